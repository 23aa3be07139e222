"""Metrics of ragged lists, all lists of equal weight; Rax's, by segment.

The order of candidates that tie does not matter: what counts is the mean over all
orders of them (McSherry and Najork, 2008, "Computing Information Retrieval Performance
Measures Efficiently in the Presence of Tied Scores"). What Rax has no segments for (its
transform of other functions needs `jax.util`, which is gone) is our own. Axes besides
the usual: `m` slots of a chunk.
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

# Slots of a chunk, unless one list is longer: cost is square in them.
_SLOTS = 512


def names(ks: Sequence[int] = (10,)) -> tuple[str, ...]:
  """The metrics of `of_lists`."""
  return (*(f"ndcg_{k}" for k in ks), "ndcg", "mrr", "concordance")


def of_lists(
  scores: Float[np.ndarray, "n"],
  labels: Float[np.ndarray, "n"],
  lists: Ragged,
  ks: Sequence[int] = (10,),
  *,
  relevant: float = 1,
) -> dict[str, float]:
  """How well lists are in order, as means over those that can be in a wrong one.

  "ndcg_10": the discounted gain, (2^label - 1) / log2(rank + 1) with ranks from 1, of
  the first 10 over that of the best order (Järvelin and Kekäläinen, 2002; gains of
  Burges et al., 2005); "ndcg" of the whole list. Lists of which no label is above 0 do
  not count. "mrr": 1 / rank of the best candidate that is relevant, of lists that have
  one; there what ties has the mean of its ranks. "concordance": the share of the pairs
  of different labels that are in order, a tie counting half, which of labels 0 and 1 is
  the area under the ROC curve; of lists that have such pairs.

  Args:
    scores: Of candidates, those of a list after those of another; finite.
    labels: Not below 0.
    lists: Its offsets say which candidates are of which list; values do not matter.
    ks: Places of a list at which it is cut.
    relevant: The label from which on a candidate is.

  Raises:
    ConfigError: Not a score and a label per candidate, one that is not finite, a label
      below 0, or a metric for which no list counts.
  """
  scores, labels = np.asarray(scores, np.float32), np.asarray(labels, np.float32)
  offsets = np.asarray(lists.offsets)
  _check(scores, labels, offsets)
  owners = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))

  def sums(values: np.ndarray) -> np.ndarray:
    return np.bincount(owners, values, len(offsets) - 1)

  # Of Rax's each list's first candidate has the value of the list, others have 0.
  found = {k: sums(v) for k, v in _per_slot(scores, labels, offsets, ks, relevant)}
  pairs = found.pop("pairs")
  found["concordance"] = found["concordance"] / np.maximum(pairs, 1)
  counts = {"mrr": sums(labels >= relevant) > 0, "concordance": pairs > 0}
  gains = sums(labels) > 0
  return {name: _mean(name, found[name], counts.get(name, gains)) for name in names(ks)}


def _mean(name: str, values: np.ndarray, counts: np.ndarray) -> float:
  if not counts.any():
    raise ConfigError(
      f"no list counts for {name!r}: in none may candidates be in a wrong order; is the"
      " split empty, or are all labels the same?"
    )
  return float(np.mean(values[counts]))


def _check(scores: np.ndarray, labels: np.ndarray, offsets: np.ndarray) -> None:
  if not len(scores) == len(labels) == offsets[-1]:
    raise ConfigError(
      f"{len(scores)} scores and {len(labels)} labels; lists have {offsets[-1]}"
      " candidates"
    )
  if not len(scores):
    raise ConfigError("no candidates: there is nothing to rank; is the split empty?")
  for name, values, good in (
    ("score", scores, np.isfinite(scores)),
    ("label", labels, np.isfinite(labels) & (labels >= 0)),
  ):
    if not good.all():
      place = int(np.argmin(good))
      row = int(np.searchsorted(offsets, place, side="right")) - 1
      raise ConfigError(
        f"list {row}, candidate {place - offsets[row]}: a {name} of {values[place]};"
        f" expected a finite one{', not below 0' if name == 'label' else ''}"
      )


def _per_slot(
  scores: np.ndarray,
  labels: np.ndarray,
  offsets: np.ndarray,
  ks: Sequence[int],
  relevant: float,
) -> Iterator[tuple[str, np.ndarray]]:
  """By name what `_of_chunk` has of every candidate, from chunks of one shape."""
  slots = max(_SLOTS, int(np.diff(offsets).max(initial=0)))
  chunks, first = [], 0
  while first < len(offsets) - 1:
    # As many lists as fit; those that begin where the next one does are empty.
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
  """Rax's metrics, of a list at its first slot, and pairs of each slot in order."""
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
  """The mean discount of each slot over all orders of what is level with it.

  0 from rank `k` + 1 on.
  """
  ranks = jnp.arange(1, len(better) + 1, dtype=jnp.int32)
  each = 1 / jnp.log2(ranks.astype(jnp.float32) + 1)
  each = jnp.where(ranks <= (k or len(ranks)), each, 0)
  sums = jnp.pad(jnp.cumsum(each), (1, 0))
  shared = (sums[better + level] - sums[better]) / jnp.maximum(level, 1)
  # A difference of sums is not exact in the last digits.
  return jnp.where(level > 1, shared, each[better])


def _same(segments: Int[Array, "m"], real: Bool[Array, "m"]) -> Bool[Array, "m m"]:
  """Whether two slots hold candidates of one list."""
  return (segments[:, None] == segments[None]) & real[:, None] & real[None]
