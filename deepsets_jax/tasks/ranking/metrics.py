"""Ranking metrics of ragged lists, mostly computed by Rax with segments.

All lists have the same weight. A metric of tied candidates is its mean over all of
their orders (McSherry and Najork, "Computing Information Retrieval Performance Measures
Efficiently in the Presence of Tied Scores", 2008). What Rax cannot compute by segment
is computed here: its transform of other functions needs `jax.util`, which JAX has
removed. Axes besides the usual: `m` slots of a chunk.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import rax
from jaxtyping import Array, Bool, Float, Int

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged

# Number of slots of a chunk, unless a list is longer. The cost is quadratic in it.
_SLOTS = 512


def names(ks: Sequence[int] = (10,)) -> tuple[str, ...]:
  """Names of the metrics of `of_lists`."""
  return (*(f"ndcg_{k}" for k in ks), "ndcg", "mrr", "concordance")


def of_lists(
  scores: Float[np.ndarray, "n"],
  labels: Float[np.ndarray, "n"],
  lists: Ragged,
  ks: Sequence[int] = (10,),
  *,
  relevant: float = 1,
) -> dict[str, float]:
  """Compute metrics of the order of lists, averaged over lists.

  * "ndcg_10": discounted gain, (2^label - 1) / log2(rank + 1) with ranks from 1, of the
    first 10 candidates, over that of the best order (Järvelin and Kekäläinen, 2002;
    gains of Burges et al., 2005). "ndcg" covers the whole list. Lists without a label
    above 0 do not count.
  * "mrr": 1 / rank of the best relevant candidate; ties share their mean rank. Lists
    without a relevant candidate do not count.
  * "concordance": share of the pairs with different labels that are in order; a tie
    counts half. For labels 0 and 1 it is the area under the ROC curve. Lists without
    such pairs do not count.

  Args:
    scores: Scores of the candidates, one list after the other; finite.
    labels: Labels of the candidates, at least 0.
    lists: Lists of candidates; only their offsets are used.
    ks: Lengths at which lists are cut.
    relevant: Lowest label of a relevant candidate.

  Raises:
    ConfigError: There is not one score and one label per candidate, a value is not
      finite, a label is below 0, or no list counts for a metric.
  """
  scores, labels = np.asarray(scores, np.float32), np.asarray(labels, np.float32)
  offsets = np.asarray(lists.offsets)
  _check(scores, labels, offsets)
  owners = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))

  def sums(values: np.ndarray) -> np.ndarray:
    return np.bincount(owners, values, len(offsets) - 1)

  # Rax puts the value of a list at its first candidate, and 0 at the others.
  found = {k: sums(v) for k, v in _per_slot(scores, labels, offsets, ks, relevant)}
  pairs = found.pop("pairs")
  found["concordance"] = found["concordance"] / np.maximum(pairs, 1)
  counts = {"mrr": sums(labels >= relevant) > 0, "concordance": pairs > 0}
  gains = sums(labels) > 0
  return {name: _mean(name, found[name], counts.get(name, gains)) for name in names(ks)}


def _mean(name: str, values: np.ndarray, counts: np.ndarray) -> float:
  if not counts.any():
    raise ConfigError(
      f"{name!r} is not defined on any list; is the split empty, or are all labels of"
      " each list the same?"
    )
  return float(np.mean(values[counts]))


def _check(scores: np.ndarray, labels: np.ndarray, offsets: np.ndarray) -> None:
  if not len(scores) == len(labels) == offsets[-1]:
    raise ConfigError(
      f"{len(scores)} scores and {len(labels)} labels do not match the"
      f" {offsets[-1]} candidates of the lists"
    )
  if not len(scores):
    raise ConfigError("there are no candidates to rank; is the split empty?")
  for name, values, good in (
    ("score", scores, np.isfinite(scores)),
    ("label", labels, np.isfinite(labels) & (labels >= 0)),
  ):
    if not good.all():
      place = int(np.argmin(good))
      row = int(np.searchsorted(offsets, place, side="right")) - 1
      raise ConfigError(
        f"list {row}, candidate {place - offsets[row]}: the {name} is {values[place]};"
        f" expected a finite number{', at least 0' if name == 'label' else ''}"
      )


def _per_slot(
  scores: np.ndarray,
  labels: np.ndarray,
  offsets: np.ndarray,
  ks: Sequence[int],
  relevant: float,
) -> Iterator[tuple[str, np.ndarray]]:
  """Iterate over the values of `_of_chunk`, by name, for all candidates.

  All chunks have the same shape.
  """
  slots = max(_SLOTS, int(np.diff(offsets).max(initial=0)))
  chunks, first = [], 0
  while first < len(offsets) - 1:
    # As many lists as fit, empty ones included.
    last = int(np.searchsorted(offsets, offsets[first] + slots, side="right")) - 1
    begin, end = offsets[first], offsets[last]
    segments = np.repeat(np.arange(first, last), np.diff(offsets[first : last + 1]))
    arrays = (x[begin:end] for x in (scores, labels))
    arrays = (*arrays, segments.astype(np.int32), np.ones(end - begin, bool))
    padded = (np.pad(x, (0, slots - len(x))) for x in arrays)
    values = _of_chunk(*padded, ks=tuple(ks), relevant=relevant)
    chunks.append({k: np.asarray(v)[: end - begin] for k, v in values.items()})
    first = last
  for name in chunks[0]:
    yield name, np.concatenate([chunk[name] for chunk in chunks])


@functools.partial(jax.jit, static_argnames=("ks", "relevant"))
def _of_chunk(
  scores: Float[Array, "m"],
  labels: Float[Array, "m"],
  segments: Int[Array, "m"],
  real: Bool[Array, "m"],
  *,
  ks: tuple[int, ...],
  relevant: float,
) -> dict[str, Float[Array, "m"]]:
  """Metrics of a list at its first slot, and ordered pairs of each slot."""
  common = dict(where=real, segments=segments, reduce_fn=None)
  same = _same(segments, real)
  better = jnp.sum(same & (scores[None] > scores[:, None]), axis=1, dtype=jnp.int32)
  level = jnp.sum(same & (scores[None] == scores[:, None]), axis=1, dtype=jnp.int32)
  mean_ranks = better.astype(jnp.float32) + (level.astype(jnp.float32) + 1) / 2
  found = {}
  with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
    for name, k in [*((f"ndcg_{k}", k) for k in ks), ("ndcg", None)]:
      discounts = _discounts(better, level, k)
      got = rax.dcg_metric(
        scores, labels, discount_fn=lambda _, d=discounts: d, **common
      )
      best = rax.dcg_metric(labels, labels, topn=k, **common)
      found[name] = got / jnp.where(best > 0, best, 1)
    good = (labels >= relevant).astype(jnp.float32)
    found["mrr"] = rax.mrr_metric(
      scores, good, rank_fn=lambda *_, **__: mean_ranks, **common
    )
  pairs = same & (labels[:, None] > labels[None])
  above = (scores[:, None] > scores[None]).astype(jnp.float32)
  above = above + (scores[:, None] == scores[None]).astype(jnp.float32) / 2
  found["concordance"] = jnp.sum(above, axis=1, where=pairs)
  found["pairs"] = jnp.sum(pairs, axis=1, dtype=jnp.float32)
  return found


def _discounts(
  better: Int[Array, "m"], level: Int[Array, "m"], k: int | None
) -> Float[Array, "m"]:
  """Mean discount of each slot over all orders of the slots that tie with it.

  The discount is 0 after rank `k`.
  """
  ranks = jnp.arange(1, len(better) + 1, dtype=jnp.int32)
  each = 1 / jnp.log2(ranks.astype(jnp.float32) + 1)
  each = jnp.where(ranks <= (k or len(ranks)), each, 0)
  sums = jnp.pad(jnp.cumsum(each), (1, 0))
  shared = (sums[better + level] - sums[better]) / jnp.maximum(level, 1)
  # Without ties the exact discount: a difference of sums would be rounded.
  return jnp.where(level > 1, shared, each[better])


def _same(segments: Int[Array, "m"], real: Bool[Array, "m"]) -> Bool[Array, "m m"]:
  """Whether two slots hold candidates of the same list."""
  return (segments[:, None] == segments[None]) & real[:, None] & real[None]
