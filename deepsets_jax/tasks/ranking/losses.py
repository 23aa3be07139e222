"""Losses of ragged lists, all lists of equal weight; Rax's, by segment.

Jagerman et al., "Rax: Composable Learning-to-Rank using JAX" (2022). Rax compares all
slots of a shard with all: cost and memory are square in them, so that more shards than
devices are cheaper. A list counts where the loss has something to say of it; others,
empty ones among them, add nothing to sum, count or gradient.
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

# Of logits `[n]`, labels `[n]` and the lists that they are of: the sum, and how many
# lists count.
Loss = Callable[[Array, Array, Ragged], tuple[Array, Array]]

LOSSES = ("softmax", "pairwise", "pointwise")


def build_ranking_loss(name: str, highest: float) -> Loss:
  """The loss of this name.

  "softmax": the cross-entropy of the softmax over a list and its gains, 2^label - 1,
  over their sum (Bruch et al., 2019, "An Analysis of the Softmax Cross Entropy Loss for
  Learning-to-Rank with Binary Relevance"; gains as in NDCG); of lists of at least two
  candidates with a gain among them. "pairwise": the mean over the pairs of a list of
  different labels of the logistic loss of the difference (Burges et al., 2005); of
  lists that have such pairs. "pointwise": the mean over a list of the cross-entropy of
  a sigmoid and the label over the highest; of lists that are not empty.

  Args:
    name: One of these.
    highest: Of all labels; 1 of clicks.

  Raises:
    ConfigError: Another name.
  """
  match name:
    case "softmax":
      return softmax
    case "pairwise":
      return pairwise
    case "pointwise":
      return functools.partial(pointwise, highest=highest)
  raise ConfigError(f"unknown config.ranking.loss {name!r}; one of {list(LOSSES)}")


def softmax(
  logits: Float[Array, "n"], labels: Float[Array, "n"], lists: Ragged
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """See `build`."""
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
  """See `build`."""
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
  """See `build`."""
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
