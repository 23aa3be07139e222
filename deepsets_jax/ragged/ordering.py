"""Order inside each example: sorting, order statistics, the top k, running sums.

These ops need all elements of an example at once: they do not merge over modalities,
chunks or devices. Values are `[n, ...]` in the slots of a `Ragged`, whose own values
are not read; each feature is sorted by itself. The rules of `segments` for padding, NaN
and types hold here, too.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from deepsets_jax.ragged import reductions
from deepsets_jax.ragged.arrays import Ragged
from deepsets_jax.ragged.offsets import element_mask, expand_like, segment_ids
from deepsets_jax.ragged.segments import attains, shared_tangent

# Values of a quantile between two elements, as in `numpy.quantile`.
METHODS = ("linear", "lower", "higher", "nearest", "midpoint")


def segment_argsort(
  values: Shaped[Array, "n ..."], elements: Ragged, *, descending: bool = False
) -> Int[Array, "n ..."]:
  """Return the slots of each example's elements in the order of their values.

  The sort is stable. NaN comes last in ascending order and first in descending order.
  Padding slots stay where they are.
  """
  values = jax.lax.stop_gradient(jnp.asarray(values))
  n = values.shape[0]
  # Equal values on padding keep their order.
  zero = jnp.zeros((), values.dtype)
  values = jnp.where(element_mask(values, elements.offsets), values, zero)
  ids = jnp.broadcast_to(expand_like(elements.segment_ids, values), values.shape)
  slots = expand_like(jax.lax.iota(jnp.int32, n), values)
  slots = jnp.broadcast_to(slots, values.shape)
  keys = [ids]
  if descending:
    keys.append((values == values).astype(jnp.int32))
    # The complement of an integer reverses the order and cannot overflow.
    inexact = jnp.issubdtype(values.dtype, jnp.inexact)
    values = -values if inexact else ~values
  keys.append(values)
  *_, order = jax.lax.sort((*keys, slots), dimension=0, num_keys=len(keys))
  return order


def segment_sort(
  values: Shaped[Array, "n ..."], elements: Ragged, *, descending: bool = False
) -> Shaped[Array, "n ..."]:
  """Sort each example's values inside its slots; zeros on padding."""
  order = segment_argsort(values, elements, descending=descending)
  values = jnp.take_along_axis(jnp.asarray(values), order, axis=0)
  zero = jnp.zeros((), values.dtype)
  return jnp.where(element_mask(values, elements.offsets), values, zero)


def segment_top_k(
  values: Shaped[Array, "n ..."], elements: Ragged, k: int
) -> tuple[Shaped[Array, "b k ..."], Int[Array, "b k ..."]]:
  """Return the `k` largest of each example's values, largest first, and their slots.

  Equal values keep their order, and NaN counts as the largest, as in `jax.lax.top_k`.
  Where an example has fewer than `k` values, the value is -inf (the lowest integer) and
  the slot is `n`.
  """
  values = jnp.asarray(values)
  n = values.shape[0]
  order = segment_argsort(values, elements, descending=True)
  rank = jax.lax.iota(jnp.int32, k)[None]
  places = elements.offsets[:-1, None].astype(jnp.int32) + rank
  places = jnp.where(rank < elements.lengths[:, None], places, n)
  slots = _take(order, places, n)
  lowest = reductions.lowest(values.dtype)
  if n == 0:
    return jnp.full(slots.shape, lowest, values.dtype), slots
  flat = slots.reshape(slots.shape[0] * k, *values.shape[1:])
  taken = jnp.take_along_axis(values, jnp.minimum(flat, n - 1), axis=0)
  taken = jnp.where(flat < n, taken, jnp.asarray(lowest, values.dtype))
  return taken.reshape(slots.shape), slots


def _take(rows: Array, places: Array, fill) -> Array:
  if rows.shape[0] == 0:
    return jnp.full((*places.shape, *rows.shape[1:]), fill, rows.dtype)
  return jnp.take(rows, places, axis=0, mode="fill", fill_value=fill)


def segment_quantile(
  values: Float[Array, "n ..."],
  elements: Ragged,
  q: float | int,
  method: str = "linear",
  empty: float = 0.0,
) -> Float[Array, "b ..."]:
  """Compute a quantile of each example's values, as `numpy.quantile`.

  The gradient goes to the elements equal to one of the two values that the quantile
  lies between; equal elements share it equally.

  Args:
    values: Reduced in float32, or in float64 if they are float64. An example may have
      up to 2^24 values.
    elements: The `Ragged` whose slots hold the values.
    q: Between 0 (the minimum) and 1 (the maximum).
    method: The result where the quantile lies between two values; one of `METHODS`.
    empty: The result for an example without elements.

  Raises:
    ValueError: `q` is not in [0, 1], or the method is unknown.
  """
  if not 0 <= q <= 1:
    raise ValueError(f"q is {q}; a quantile has q between 0 and 1")
  if method not in METHODS:
    raise ValueError(f"unknown method {method!r}; one of {METHODS}")
  values = reductions.widened(jnp.asarray(values))
  offsets, lengths = elements.offsets, elements.lengths
  if values.shape[0] == 0:
    return jnp.full((lengths.shape[0], *values.shape[1:]), empty, values.dtype)
  whole, weight = _index(q, jnp.maximum(lengths - 1, 0).astype(jnp.int32), values.dtype)
  below, above = whole, whole + (weight > 0).astype(jnp.int32)
  match method:
    case "lower":
      above = below
    case "higher":
      below = above
    case "nearest":  # Half to even.
      up = (weight > 0.5) | ((weight == 0.5) & (whole % 2 == 1))
      below = above = whole + up.astype(jnp.int32)
    case "midpoint":
      weight = jnp.where(weight > 0, 0.5, weight)
  begin = offsets[:-1].astype(jnp.int32)
  low, high = _order_statistics(values, offsets, begin + below, begin + above)
  weight = expand_like(weight, low)
  # Infinities times 0 are NaN, and so is the difference of equal ones.
  between = jnp.where(low == high, low, low * (1 - weight) + high * weight)
  between = jnp.where(expand_like(below == above, low), low, between)
  return jnp.where(expand_like(lengths, low) > 0, between, empty)


def _index(
  q: float | int, last: Int[Array, "b"], dtype
) -> tuple[Int[Array, "b"], Float[Array, "b"]]:
  """Return q * last as a whole number and a fraction.

  A float32 product would lose the fraction. This is long multiplication in limbs of 12
  bits, exact for `last` below 2^24. A fraction within 2^-20 of a whole number comes
  from the rounding of `q`, and is dropped.
  """
  bits = round(q * 2**48)
  of_q = [(bits >> shift) & 4095 for shift in (0, 12, 24, 36)] + [bits >> 48]
  of_last = [last & 4095, last >> 12]
  limbs = [jnp.zeros_like(last) for _ in range(6)]
  for i, x in enumerate(of_q):
    for j, y in enumerate(of_last):
      limbs[i + j] += x * y
  for lower in range(4):
    limbs[lower + 1] += limbs[lower] >> 12
  # The point lies after the fourth limb.
  whole = limbs[4] + (limbs[5] << 12)
  fraction = jnp.zeros(last.shape, dtype)
  for limb in limbs[:4]:
    fraction = (fraction + (limb & 4095).astype(dtype)) / 4096
  up = fraction > 1 - 2**-20
  fraction = jnp.where(up | (fraction < 2**-20), 0, fraction)
  return whole + up.astype(jnp.int32), fraction


def segment_median(
  values: Float[Array, "n ..."], elements: Ragged
) -> Float[Array, "b ..."]:
  """Return the lower median of each example's values; 0 for an empty example.

  This is `torch.median`; for numpy's mean of the two middle values use
  `segment_quantile(..., 0.5)`.
  """
  return segment_quantile(values, elements, 0.5, "lower")


@jax.custom_jvp
def _order_statistics(values, offsets, low, high):
  """Return the sorted values in two slots of each example; NaN if any value is."""
  n = values.shape[0]
  ids = segment_ids(offsets, n)
  ids = jnp.broadcast_to(expand_like(ids, values), values.shape)
  _, ordered = jax.lax.sort((ids, values), dimension=0, num_keys=2)
  # NaN is sorted to the end.
  last = _take(ordered, jnp.maximum(offsets[1:] - 1, 0), 0)
  some = expand_like(offsets[1:] > offsets[:-1], last)

  def at(places):
    taken = _take(ordered, places, 0)
    taken = jnp.where(last != last, jnp.nan, taken)
    return jnp.where(some, taken, 0)

  return at(low), at(high)


@_order_statistics.defjvp
def _order_statistics_jvp(primals, tangents):
  values, offsets, *_ = primals
  found = _order_statistics(*primals)
  return found, tuple(_tangent(x, values, tangents[0], offsets) for x in found)


def _tangent(found, values, tangent, offsets):
  attained = attains(values, found, offsets)
  ties = reductions.segment_sum(attained.astype(jnp.int32), offsets)
  return shared_tangent(attained, found, ties, tangent, offsets)


def segment_cumsum(
  values: Shaped[Array, "n ..."], elements: Ragged
) -> Shaped[Array, "n ..."]:
  """Sum each example's values up to and including each element; zeros on padding.

  Partial sums double their reach in each step. Therefore rounding grows with the
  logarithm of the length, and an example's sums do not depend on other examples.
  """
  values = reductions.widened(jnp.asarray(values))
  values = jnp.where(element_mask(values, elements.offsets), values, 0)
  n = values.shape[0]
  position = expand_like(elements.positions, values)
  steps = max(n - 1, 0).bit_length() if isinstance(n, int) else 31

  def double(step, sums):
    reach = jnp.left_shift(jnp.int32(1), step)
    before = jax.lax.iota(jnp.int32, n) - reach
    earlier = jnp.take(sums, jnp.maximum(before, 0), axis=0, mode="clip")
    return sums + jnp.where(position >= reach, earlier, 0)

  if n == 0:
    return values
  return jax.lax.fori_loop(0, steps, double, values)
