"""Reductions of flat arrays by offsets, for all platforms.

`segments` builds the public ops on this module. It is the only one that calls
`jax.ops.segment_*`, whose results depend on platform and version.

Every sum has three properties:

* It is within 1e-6 of float64 (relative to the sum of magnitudes) for up to 10^7
  elements in a segment, because no partial sum takes more than 64 terms.
* It does not depend, to the bit, on the other segments: partial sums are counted from
  the start of their segment.
* On GPUs it has the same order on every run. There the additions of a scatter happen in
  any order, so that sums are computed without a scatter.

The tangent of a sum is the plain segment sum of the tangents, whose transpose is a
gather. Therefore reverse mode costs no more than with `jax.ops`. Tangents in forward
mode, and the gradient of `spread` on CPUs, are summed in one chain.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from deepsets_jax.ragged.offsets import (
  device_offsets,
  element_mask,
  positions,
  segment_ids,
)
from deepsets_jax.ragged.tiles import reduce_tiles, spread_tiles

# Terms that are added directly to a segment's total. Segments of at most this size, the
# common ones, are summed as `jax.ops.segment_sum` does, to the bit and at its speed.
_CHAIN = 64
# The same for partial sums, which add to the drift of rounding.
_UPPER_CHAIN = 32
# Terms of each partial sum. For 10^7 equal values, the worst case, 16 keeps the drift
# below 7e-7; 32 would let it reach 1.2e-6.
_CHUNK = 16


@jax.custom_jvp
def without_gradient_on_padding(
  values: Shaped[Array, "n ..."], offsets: Int[Array, "b+1"]
) -> Shaped[Array, "n ..."]:
  """Return the values, but make their gradient on padding 0.

  Where sums drop the padding of a formula anyway, the mask is then needed in the
  backward pass only.
  """
  del offsets
  return values


@without_gradient_on_padding.defjvp
def _without_gradient_on_padding_jvp(primals, tangents):
  values, offsets = primals
  return values, jnp.where(element_mask(values, offsets), tangents[0], 0)


def widened(values: Shaped[Array, "n ..."]) -> Shaped[Array, "n ..."]:
  """Convert booleans to int32 and short floats to float32, the types of reductions."""
  if values.dtype == jnp.bool_:
    return values.astype(jnp.int32)
  short = jnp.issubdtype(values.dtype, jnp.floating) and values.dtype.itemsize < 4
  return values.astype(jnp.float32) if short else values


def spread(
  per_segment: Shaped[Array, "b ..."], offsets: Int[Array, "b+1"], num_slots: int
) -> Shaped[Array, "n ..."]:
  """Give each slot the row of its segment; zeros on padding. Transposes a sum."""
  per_segment, offsets = jnp.asarray(per_segment), jnp.asarray(offsets)
  if per_segment.shape[0] == 0 or num_slots == 0:
    return jnp.zeros((num_slots, *per_segment.shape[1:]), per_segment.dtype)
  if on_gpu():
    return _spread(num_slots, per_segment, offsets)
  return _take(per_segment, segment_ids(offsets, num_slots))


def on_gpu() -> bool:
  """Whether JAX computes on a GPU, where reductions must not scatter.

  The answer is fixed when a function is traced. `jax.lax.platform_dependent` would
  decide when it is lowered, but it keeps the residuals of both branches for the
  backward pass, which costs training a tenth of its speed. Results are right on any
  platform.
  """
  return jax.default_backend() == "gpu"


def _take(rows: Array, ids: Array) -> Array:
  return jnp.take(rows, ids, axis=0, mode="fill", fill_value=0, indices_are_sorted=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _spread(num_slots, per_segment, offsets):
  return _take(per_segment, segment_ids(offsets, num_slots))


@_spread.defjvp
def _spread_jvp(num_slots, primals, tangents):
  # The transpose of a gather is a scatter, and that of tiles is a sum of tiles.
  return (
    _spread(num_slots, *primals),
    spread_tiles(tangents[0], primals[1], num_slots),
  )


def segment_sum(
  values: Shaped[Array, "n ..."], offsets: Int[Array, "b+1"]
) -> Shaped[Array, "b ..."]:
  """Sum each segment, in the type of the values; 0 where it is empty."""
  if _is_empty(values, offsets):
    return _identities(values, offsets, 0)
  if not jnp.issubdtype(values.dtype, jnp.inexact):  # Exact in any order.
    return _scatter(jax.ops.segment_sum, values, offsets)
  return _sum(values, jnp.asarray(offsets))


def _is_empty(values: Array, offsets: Array) -> bool:
  """Whether there is no slot or no segment, so that nothing can be gathered."""
  return values.shape[0] == 0 or offsets.shape[0] == 1


def _identities(values: Array, offsets: Array, identity) -> Array:
  shape = (offsets.shape[0] - 1, *values.shape[1:])
  return jnp.full(shape, identity, values.dtype)


@jax.custom_jvp
def _sum(values, offsets):
  if on_gpu():
    return reduce_tiles(jnp.sum, 0, values, offsets)
  return _sum_chunks(values, offsets)


@_sum.defjvp
def _sum_jvp(primals, tangents):
  return _sum(*primals), tangent_sum(tangents[0], primals[1])


def tangent_sum(
  tangents: Shaped[Array, "n ..."], offsets: Int[Array, "b+1"]
) -> Shaped[Array, "b ..."]:
  """Sum each segment in one chain, for rules of differentiation.

  The transpose is a gather.
  """
  if _is_empty(tangents, offsets):
    return _identities(tangents, offsets, 0)
  return _scatter(jax.ops.segment_sum, tangents, offsets)


def segment_extreme(
  values: Shaped[Array, "n ..."], offsets: Int[Array, "b+1"], largest: bool
) -> Shaped[Array, "b ..."]:
  """Return the maximum (or minimum) of each segment, without a derivative.

  It is NaN where a value is, and the lowest (highest) number of the type where the
  segment is empty.
  """
  if _is_empty(values, offsets):
    return _identities(values, offsets, lowest(values.dtype, largest))
  identity = lowest(values.dtype, largest)
  if on_gpu():  # The atomic maximum of some GPUs drops NaN.
    reduce = functools.partial(jnp.max if largest else jnp.min, initial=identity)
    return reduce_tiles(reduce, identity, values, offsets)
  op = jax.ops.segment_max if largest else jax.ops.segment_min
  return _scatter(op, values, offsets)


def lowest(dtype, largest: bool = True):
  """Return the identity of the maximum (or minimum) over a type."""
  if jnp.issubdtype(dtype, jnp.inexact):
    return -jnp.inf if largest else jnp.inf
  limits = jnp.iinfo(dtype)
  return limits.min if largest else limits.max


def segment_prod(
  values: Shaped[Array, "n ..."], offsets: Int[Array, "b+1"]
) -> Shaped[Array, "b ..."]:
  """Multiply each segment, without a derivative; 1 where it is empty."""
  if _is_empty(values, offsets):
    return _identities(values, offsets, 1)
  if on_gpu():
    return reduce_tiles(jnp.prod, 1, values, offsets)
  return _scatter(jax.ops.segment_prod, values, offsets)


def _scatter(op: Callable, values: Array, offsets: Array) -> Array:
  return _scatter_ids(op, values, segment_ids(offsets, values.shape[0]), offsets)


def _scatter_ids(op: Callable, values: Array, ids: Array, offsets: Array) -> Array:
  return op(values, ids, offsets.shape[0] - 1, indices_are_sorted=True)


def _sum_chunks(values: Array, offsets: Array) -> Array:
  """Sum by scatters, in several levels where a segment is longer than a chain."""
  n = values.shape[0]
  # A symbolic size may be as large as int32 offsets allow.
  most = n if isinstance(n, int) else 2**31
  # Ids are computed outside of the branches, and thus once: for narrow values they cost
  # as much as the sum.
  return _sum_level(values, segment_ids(offsets, n), offsets, _CHAIN, most)


def _sum_level(
  values: Array, ids: Array, offsets: Array, direct: int, most: int
) -> Array:
  """Sum segments of at most `most` terms, the first `direct` of them one by one.

  The other terms are summed in chunks, and the sums of the chunks are the terms of the
  next level. One scatter makes both totals and chunks: the row of a term is its
  segment, or `b` plus the number of its chunk.
  """
  plain = functools.partial(_scatter_ids, jax.ops.segment_sum)
  if most <= direct:
    return plain(values, ids, offsets)
  b, n = offsets.shape[0] - 1, values.shape[0]
  lengths = offsets[1:] - offsets[:-1]

  def in_levels(values, ids, offsets):
    num_chunks = n // _CHUNK + 1  # At least one, as far as export can tell.
    position = positions(ids, offsets[:-1])
    chunks = -(-jnp.maximum(lengths - direct, 0) // _CHUNK)
    ends = device_offsets(chunks)
    first = jnp.take(ends[:-1], ids, mode="clip")
    chunk = b + first + jax.lax.div(position - direct, jnp.int32(_CHUNK))
    rows = jnp.where(position < direct, ids, chunk)
    rows = jnp.where(ids < b, rows, b + num_chunks)  # Padding is dropped.
    totals = jnp.zeros((b + num_chunks, *values.shape[1:]), values.dtype)
    totals = totals.at[rows].add(values, mode="drop")
    rest = _sum_level(
      totals[b:],
      segment_ids(ends, num_chunks),
      ends,
      _UPPER_CHAIN,
      -(-most // _CHUNK),
    )
    return totals[:b] + rest

  short = jnp.all(lengths <= direct)
  return jax.lax.cond(short, plain, in_levels, values, ids, offsets)
