"""The choice of a video's frames, and their time codes.

As published with Gabeur et al., "Multi-modal Transformer for Video Retrieval" (2020):
an example has a limited number of frames of an expert, in their order. The public code
chooses random ones. Here the choice is a mask over the elements, so any choice is
possible.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from deepsets_jax.ragged import Ragged, compress
from deepsets_jax.ragged.ordering import segment_cumsum


def time_places(elements: Ragged, window: float, num_times: int) -> Int[Array, "n"]:
  """The row of the time code of each element.

  Row 0 is for tokens that are not frames, row 1 for unknown times, row 2 for the first
  `window` of time, row 3 for the next, and the last row for all later times.

  Args:
    elements: Frames with times from the start of the video, or without times. A
      negative time is unknown.
    window: Duration of one time code, in the unit of the times.
    num_times: Number of time codes, at least 3.
  """
  if elements.times is None:
    return jnp.ones(elements.num_slots, jnp.int32)
  places = jnp.clip(elements.times / window + 2, 2, num_times - 1)
  return jnp.where(elements.times >= 0, places, 1).astype(jnp.int32)


def keep_evenly(elements: Ragged, limit: int) -> Bool[Array, "n"]:
  """A mask of at most `limit` elements of each example, spread evenly.

  The choice is deterministic. The public code chooses random elements: see
  `ragged.sample_mask` for training and `keep_as_published` for evaluation.
  """
  lengths = jnp.maximum(elements.to_elements(elements.lengths), 1)
  at, after = (
    x * limit // lengths for x in (elements.positions, elements.positions + 1)
  )
  return (after > at) & elements.mask


def keep_as_published(
  offsets: Int[np.ndarray, "b+1"], num_slots: int, limit: int
) -> Bool[np.ndarray, "n"]:
  """A mask of the elements that the public code chooses in evaluation, on the host.

  It is a random choice with the same seed for every example, so that it depends only on
  the number of elements.
  """
  keep = np.zeros(num_slots, bool)
  for begin, length in zip(offsets[:-1], np.diff(offsets), strict=True):
    # The published results depend on this generator.
    rng = np.random.RandomState(0)
    chosen = rng.choice(length, size=min(length, limit), replace=False)
    keep[begin + chosen] = True
  return keep


def select(elements: Ragged, keep: Bool[Array, "n"], limit: int) -> Ragged:
  """The first `limit` elements of each example that `keep` selects, in their order.

  The result has as many slots as any choice may need. Times are kept, weights are not.
  """
  keep = keep & elements.mask
  keep = keep & (segment_cumsum(keep, elements) <= limit)
  num_slots = min(elements.num_slots, elements.num_examples * limit)
  return compress(elements.replace(weights=None), keep, num_slots)
