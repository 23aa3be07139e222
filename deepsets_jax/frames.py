"""Which frames of a video are taken, and when they were.

As published with Gabeur et al., "Multi-modal Transformer for Video Retrieval" (2020):
an example has at most so many frames of an expert, in their order. The public code
takes random ones; the choice here is a mask over the elements, so that it can be any.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped

from deepsets_jax.ragged import Ragged


def time_places(elements: Ragged, window: float, num_times: int) -> Int[Array, "n"]:
  """Which time code each element takes.

  0 is no time (of tokens that are no frame), 1 a time that is not known, 2 the first
  `window` and so on; the last code is that of all later times.
  """
  if elements.times is None:
    return jnp.ones(elements.num_slots, jnp.int32)
  places = jnp.clip(elements.times / window + 2, 2, num_times - 1)
  return jnp.where(elements.times >= 0, places, 1).astype(jnp.int32)


def keep_evenly(elements: Ragged, limit: int) -> Bool[Array, "n"]:
  """At most `limit` elements of each example, evenly spread, always the same ones.

  The public code takes random ones: `keep_randomly` in training, `keep_as_published`
  in evaluation.
  """
  lengths = jnp.maximum(elements.to_elements(elements.lengths), 1)
  at, after = (
    x * limit // lengths for x in (elements.positions, elements.positions + 1)
  )
  return (after > at) & elements.mask


def keep_randomly(key: Array, elements: Ragged, limit: int) -> Bool[Array, "n"]:
  """At most `limit` elements of each example, any of them equally likely."""
  lots = jax.random.uniform(key, (elements.num_slots,), jnp.float32)
  order = jnp.lexsort((lots, elements.segment_ids))
  # Sorted by segment: what stands at slot i is of the example that i belongs to.
  ranks = elements.positions.at[order].set(elements.positions, unique_indices=True)
  return (ranks < limit) & elements.mask


def keep_as_published(
  offsets: Int[np.ndarray, "b+1"], num_slots: int, limit: int
) -> Bool[np.ndarray, "n"]:
  """The elements that the public code takes in evaluation; on the host.

  A random choice from the same seed for every example, so that it depends on the number
  of elements alone.
  """
  keep = np.zeros(num_slots, bool)
  for begin, length in zip(offsets[:-1], np.diff(offsets), strict=True):
    # The published numbers hang on this generator.
    rng = np.random.RandomState(0)
    chosen = rng.choice(length, size=min(length, limit), replace=False)
    keep[begin + chosen] = True
  return keep


def select(elements: Ragged, keep: Bool[Array, "n"], limit: int) -> Ragged:
  """The elements to keep, in their order, the first `limit` of each example.

  In as few slots as suffice for any choice. Times go along, weights do not.
  """
  n = elements.num_slots
  num_slots = min(n, elements.num_examples * limit)
  keep = keep & elements.mask
  counts = _counts(keep)
  ranks = counts[:-1] - elements.to_elements(counts[elements.offsets[:-1]])
  keep = keep & (ranks < limit)
  counts = _counts(keep)
  # What is dropped goes past the end, each slot to a place of its own.
  slots = jnp.where(keep, counts[:-1], n + jnp.arange(n, dtype=jnp.int32))

  def move(x: Shaped[Array, "n ..."]) -> Shaped[Array, "m ..."]:
    kept = jnp.zeros((num_slots, *x.shape[1:]), x.dtype)
    return kept.at[slots].set(x, mode="drop", unique_indices=True)

  times = None if elements.times is None else move(elements.times)
  return Ragged(move(elements.values), counts[elements.offsets], times=times)


def _counts(keep: Bool[Array, "n"]) -> Int[Array, "n+1"]:
  """How many are kept before each slot, and in all."""
  return jnp.pad(jnp.cumsum(keep, dtype=jnp.int32), (1, 0))
