"""Reductions of the segments of a flat array, with gradients of our own.

This is the only module that calls segment ops: they are sensitive to device and
version, so they have one owner. Ids are sorted and declared so; padding has an id one
past the last segment, which the ops drop.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from deepsets_jax.ragged.arrays import Ragged


def segment_sum(values: Num[Array, "n d"], elements: Ragged) -> Num[Array, "b d"]:
  """The sum of each example's values; 0 where there are none."""
  return jax.ops.segment_sum(
    values, elements.segment_ids, elements.num_examples, indices_are_sorted=True
  )


def segment_max(
  values: Float[Array, "n d"], elements: Ragged
) -> tuple[Float[Array, "b d"], Float[Array, "b d"]]:
  """The largest of each example's values, and how many elements attain it.

  -inf and 0 where there are none. Elements that tie share the gradient equally.
  """
  return _segment_max(values, elements.segment_ids, elements.num_examples)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _segment_max(values, segment_ids, num_segments):
  """`segment_max`, with a gradient that scatters nothing.

  The default one gathers twice and scatters once more, unsorted. This one remembers
  who attained the maximum, and gathers each segment's share.
  """
  (value, ties), _ = _segment_max_forward(values, segment_ids, num_segments)
  return value, ties


def _segment_max_forward(values, segment_ids, num_segments):
  value = jax.ops.segment_max(
    values, segment_ids, num_segments, indices_are_sorted=True
  )
  attained, ties = _attained(values, value, segment_ids, num_segments)
  return (value, ties), (attained, segment_ids, ties)


def _attained(values, value, segment_ids, num_segments):
  """Which elements are equal to their segment's value, and how many are."""
  # NaN on padding: equal to nothing.
  attained = values == jnp.take(
    value, segment_ids, axis=0, mode="fill", fill_value=jnp.nan, indices_are_sorted=True
  )
  ties = jax.ops.segment_sum(
    attained.astype(jnp.float32), segment_ids, num_segments, indices_are_sorted=True
  )
  return attained, ties


def _segment_max_backward(num_segments, residuals, cotangents):
  del num_segments
  attained, segment_ids, ties = residuals
  return _shared(attained, segment_ids, ties, cotangents[0]), None


def _shared(attained, segment_ids, ties, cotangent):
  """A segment's gradient, shared equally by the elements that attain its value."""
  share = cotangent / jnp.maximum(ties, 1)
  share = jnp.take(
    share, segment_ids, axis=0, mode="fill", fill_value=0, indices_are_sorted=True
  )
  return jnp.where(attained, share, 0)


_segment_max.defvjp(_segment_max_forward, _segment_max_backward)


def segment_median(
  values: Float[Array, "n d"], elements: Ragged
) -> Float[Array, "b d"]:
  """The middle one of each example's values, the lower of two; 0 where there are none.

  Values that tie with it share the gradient equally. Not a monoid: it needs all
  values at once, and sorts them.
  """
  return _segment_median(values, elements.segment_ids, elements.offsets)


@jax.custom_vjp
def _segment_median(values, segment_ids, offsets):
  """`segment_median`; its gradient is that of the maximum, of another value."""
  return _segment_median_forward(values, segment_ids, offsets)[0]


def _segment_median_forward(values, segment_ids, offsets):
  ids = jnp.broadcast_to(segment_ids[:, None], values.shape)
  _, ordered = jax.lax.sort((ids, values), dimension=0, num_keys=2)
  lengths = (offsets[1:] - offsets[:-1])[:, None]
  middle = offsets[:-1] + jnp.maximum(lengths[:, 0] - 1, 0) // 2
  value = jnp.take(ordered, middle, axis=0, mode="fill", fill_value=0)
  value = jnp.where(lengths > 0, value, 0)
  attained, ties = _attained(values, value, segment_ids, len(lengths))
  return value, (attained, segment_ids, ties)


def _segment_median_backward(residuals, cotangent):
  return _shared(*residuals, cotangent), None, None


_segment_median.defvjp(_segment_median_forward, _segment_median_backward)


@jax.custom_vjp
def merge_max(a, b):
  """The larger of two (maximum, ties) pairs; ties add up where they are equal."""
  pair, _ = _merge_max_forward(a, b)
  return pair


def _merge_max_forward(a, b):
  value = jnp.maximum(a[0], b[0])
  ties_a = jnp.where(a[0] == value, a[1], 0)
  ties_b = jnp.where(b[0] == value, b[1], 0)
  return (value, ties_a + ties_b), (ties_a, ties_b)


def _merge_max_backward(residuals, cotangents):
  ties_a, ties_b = residuals
  share = cotangents[0] / jnp.maximum(ties_a + ties_b, 1)
  zeros = jnp.zeros_like(ties_a)
  return (share * ties_a, zeros), (share * ties_b, zeros)


merge_max.defvjp(_merge_max_forward, _merge_max_backward)
