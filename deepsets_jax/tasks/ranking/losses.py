"""Ranking losses of ragged lists, computed by Rax with segments.

All lists have the same weight. Rax (Jagerman et al., "Rax: Composable Learning-to-Rank
using JAX", 2022) compares all pairs of slots of a shard. Cost and memory are quadratic
in the number of slots, so that more shards than devices are cheaper. Lists for which a
loss is not defined, such as empty ones, do not change sum, count or gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import rax
from jaxtyping import Array, Bool, Float

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged
from deepsets_jax.ragged.segments import segment_sum

# (logits `[n]`, labels `[n]`, lists) -> (sum over lists, number of lists that count).
Loss = Callable[[Array, Array, Ragged], tuple[Array, Array]]

LOSSES = ("softmax", "pairwise", "pointwise")


def build_ranking_loss(name: str, highest: float) -> Loss:
  """Build the loss of a name.

  Args:
    name: One of `LOSSES`; see the function of that name.
    highest: Highest label; 1 for clicks.

  Raises:
    ConfigError: There is no loss of this name.
  """
  match name:
    case "softmax":
      return softmax
    case "pairwise":
      return pairwise
    case "pointwise":
      return functools.partial(pointwise, highest=highest)
  raise ConfigError(
    f"unknown config.ranking.loss {name!r}; choose one of {list(LOSSES)}"
  )


def softmax(
  logits: Float[Array, "n"], labels: Float[Array, "n"], lists: Ragged
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Cross-entropy of the softmax over a list and the gains of its labels.

  The gains, 2^label - 1 as in NDCG, are normalised to sum 1 (Bruch et al., "An Analysis
  of the Softmax Cross Entropy Loss for Learning-to-Rank with Binary Relevance", 2019).
  Lists with at least two candidates and a positive gain count.
  """
  gains = jnp.where(lists.mask, jnp.exp2(labels) - 1, 0)
  total = _sums(gains, lists)
  wanted = gains / lists.to_elements(jnp.where(total > 0, total, 1), fill=1)
  with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
    lost = rax.softmax_loss(
      logits, wanted, segments=lists.segment_ids, reduce_fn=jnp.sum
    )
  return lost, _count((total > 0) & (lists.lengths > 1))


def pairwise(
  logits: Float[Array, "n"], labels: Float[Array, "n"], lists: Ragged
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Logistic loss of the score differences of the pairs with different labels.

  It is the mean over the pairs of a list (Burges et al., "Learning to Rank using
  Gradient Descent", 2005). Lists that have such pairs count.
  """
  segments = lists.segment_ids
  in_order = (labels[:, None] > labels[None]) & (segments[:, None] == segments[None])
  pairs = _sums(jnp.sum(in_order, axis=1, dtype=jnp.float32), lists)
  weights = lists.to_elements(1 / jnp.maximum(pairs, 1))
  with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
    lost = rax.pairwise_logistic_loss(
      logits,
      labels,
      where=lists.mask,
      segments=segments,
      weights=weights,
      reduce_fn=jnp.sum,
    )
  return lost, _count(pairs > 0)


def pointwise(
  logits: Float[Array, "n"],
  labels: Float[Array, "n"],
  lists: Ragged,
  *,
  highest: float,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Sigmoid cross-entropy with the label over the highest label.

  It is the mean over the candidates of a list. Lists that are not empty count.
  """
  lengths = lists.lengths.astype(jnp.float32)
  weights = lists.to_elements(1 / jnp.maximum(lengths, 1))
  with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
    lost = rax.pointwise_sigmoid_loss(
      logits,
      labels / highest,
      where=lists.mask,
      segments=lists.segment_ids,
      weights=weights,
      reduce_fn=jnp.sum,
    )
  return lost, _count(lengths > 0)


def _sums(values: Float[Array, "n"], lists: Ragged) -> Float[Array, "b"]:
  return segment_sum(values[:, None], lists)[:, 0]


def _count(counts: Bool[Array, "b"]) -> Float[Array, ""]:
  return jnp.sum(counts, dtype=jnp.float32)
