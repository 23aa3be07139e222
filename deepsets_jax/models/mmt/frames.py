"""Which frames of a video are taken, and when they were.

As published with Gabeur et al., "Multi-modal Transformer for Video Retrieval" (2020):
an example has at most so many frames of an expert, in their order. The public code
takes random ones; the choice here is a mask over the elements, so that it can be any.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from deepsets_jax.ragged import Ragged, compress
from deepsets_jax.ragged.ordering import segment_cumsum


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

  The public code takes random ones: `ragged.sample_mask` in training,
  `keep_as_published` in evaluation.
  """
  lengths = jnp.maximum(elements.to_elements(elements.lengths), 1)
  at, after = (
    x * limit // lengths for x in (elements.positions, elements.positions + 1)
  )
  return (after > at) & elements.mask


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
  keep = keep & elements.mask
  keep = keep & (segment_cumsum(keep, elements) <= limit)
  num_slots = min(elements.num_slots, elements.num_examples * limit)
  return compress(elements.replace(weights=None), keep, num_slots)
