"""Reductions of flat arrays by offsets: in which order, on which platform.

The only module that calls `jax.ops.segment_*`: these depend on platform and version, so
they have one owner. `segments` builds the public ops on it.

Three things hold for every sum here. It is accurate: within 1e-6 of float64 (relative
to the sum of magnitudes) for up to 10^7 elements in a segment, because no partial sum
takes more than 64 terms. It does not depend, to the bit, on the other segments: partial
sums are counted from the start of their segment. And on GPUs, where the additions of a
scatter happen in any order, it is computed without a scatter, in the same order on
every run.

Derivatives. The tangent of a sum is the plain segment sum of the tangents, whose
transpose is a gather, so that reverse mode costs no more than with `jax.ops`; tangents
in forward mode, and the gradient of `spread` on CPUs, are summed in one chain.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped

# Terms that are added directly to a segment's total. Sets of at most this size, the
# common ones, are summed as by `jax.ops.segment_sum`, to the bit and at its speed.
_CHAIN = 64
# The same for partial sums, whose number is added to the drift of rounding.
_UPPER_CHAIN = 32
# Terms of each partial sum. For 10^7 equal values, the worst case, 16 keeps the drift
# below 7e-7; 32 would let it reach 1.2e-6.
_CHUNK = 16
# Terms that a GPU adds at once.
_TILE = 32


# Whether compiled functions check their offsets, see `debug_offsets`.
_debugging = False


@contextlib.contextmanager
def debug_offsets() -> Iterator[None]:
  """Checks offsets inside `jax.jit`, too, while the context is open.

  A compiled function does not know its offsets, and bad ones give wrong numbers. Here
  it calls back to the host with them, and fails with the message of `check_offsets`.
  All functions are compiled again inside the context, and after it.
  """
  global _debugging
  before, _debugging = _debugging, True
  jax.clear_caches()
  try:
    yield
    jax.effects_barrier()  # The last calls are checked, too.
  finally:
    _debugging = before
    jax.clear_caches()


def check_offsets(offsets: np.ndarray, shape: tuple[int, ...]) -> None:
  """Raises where offsets are none of values of this shape.

  Both may have the same leading axes, such as one of shards.

  Raises:
    ValueError: Offsets that do not begin at 0, decrease, or run past the slots; the
      message names the first such example.
  """
  if offsets.ndim < 1 or offsets.shape[-1] < 1:
    raise ValueError(
      f"offsets of shape {offsets.shape}: expected one more than there are examples"
    )
  num_slots = shape[offsets.ndim - 1] if len(shape) >= offsets.ndim else 0
  rows = offsets.reshape(-1, offsets.shape[-1])
  if (rows[:, 0] != 0).any():
    first = rows[rows[:, 0] != 0][0, 0]
    raise ValueError(
      f"offsets begin at {first}; they must begin at 0: subtract the first from all"
    )
  shrinks = rows[:, 1:] < rows[:, :-1]
  if shrinks.any():
    row, index = np.argwhere(shrinks)[0]
    raise ValueError(
      f"offsets decrease from {rows[row, index]} to {rows[row, index + 1]} at example"
      f" {index}; build them from lengths with ragged.from_lengths"
    )
  if (rows[:, -1] > num_slots).any():
    raise ValueError(
      f"offsets end at {rows[:, -1].max()}, and there are {num_slots} slots; give as"
      " many values as the last offset says, or more"
    )


def _check(num_slots: int, offsets: np.ndarray) -> None:
  check_offsets(np.asarray(offsets), (num_slots,))


def segment_ids(offsets: Int[Array, "b+1"], num_slots: int) -> Int[Array, "n"]:
  """The segment of each slot, sorted; `b` on padding.

  Counts the boundaries passed. Of the three ways to write it, this one is fast and
  exports with symbolic sizes. A boundary at `n` is out of range of the counts, and
  dropped.
  """
  offsets = jnp.asarray(offsets)
  if _debugging:
    jax.debug.callback(functools.partial(_check, num_slots), offsets)
  passed = jnp.zeros(num_slots, jnp.int32)
  passed = passed.at[offsets[1:]].add(1, mode="drop")
  return jnp.cumsum(passed, dtype=jnp.int32)


def mask(offsets: Int[Array, "b+1"], num_slots: int) -> Bool[Array, "n"]:
  """True where a slot holds a real element."""
  return jax.lax.iota(offsets.dtype, num_slots) < offsets[-1]


def real(values: Shaped[Array, "n ..."], offsets: Array) -> Bool[Array, "n ..."]:
  """`mask`, with as many axes as the values."""
  return like(mask(jnp.asarray(offsets), values.shape[0]), values)


def like(x: Shaped[Array, "n"], values: Array) -> Shaped[Array, "n ..."]:
  """A number per slot (or per example), with as many axes as the values."""
  return x.reshape(x.shape[0], *[1] * (values.ndim - 1))


@jax.custom_jvp
def without_gradient_on_padding(
  values: Shaped[Array, "n ..."], offsets: Int[Array, "b+1"]
) -> Shaped[Array, "n ..."]:
  """The values themselves; their gradient on padding is 0, whatever a formula says.

  Where sums drop what a formula makes of padding, this takes a mask in the backward
  pass only.
  """
  del offsets
  return values


@without_gradient_on_padding.defjvp
def _without_gradient_on_padding_jvp(primals, tangents):
  values, offsets = primals
  return values, jnp.where(real(values, offsets), tangents[0], 0)


def widened(values: Shaped[Array, "n ..."]) -> Shaped[Array, "n ..."]:
  """Booleans as int32 and short floats as float32: the types that are reduced in."""
  if values.dtype == jnp.bool_:
    return values.astype(jnp.int32)
  short = jnp.issubdtype(values.dtype, jnp.floating) and values.dtype.itemsize < 4
  return values.astype(jnp.float32) if short else values


def spread(
  per_segment: Shaped[Array, "b ..."], offsets: Int[Array, "b+1"], num_slots: int
) -> Shaped[Array, "n ..."]:
  """Each slot's row of `per_segment`; zeros on padding. The transpose of a sum."""
  per_segment, offsets = jnp.asarray(per_segment), jnp.asarray(offsets)
  if per_segment.shape[0] == 0 or num_slots == 0:  # Nothing to gather.
    return jnp.zeros((num_slots, *per_segment.shape[1:]), per_segment.dtype)
  if on_gpu():
    return _spread(num_slots, per_segment, offsets)
  return _take(per_segment, segment_ids(offsets, num_slots))


def on_gpu() -> bool:
  """Whether JAX computes on a GPU, where reductions are made without a scatter.

  Known when a function is traced: `jax.lax.platform_dependent` would decide when it is
  lowered, but keeps what the backward pass of either way needs, which costs training a
  tenth of its speed. Results are right on any platform.
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
    _spread_tiles(tangents[0], primals[1], num_slots),
  )


def segment_sum(
  values: Shaped[Array, "n ..."], offsets: Int[Array, "b+1"]
) -> Shaped[Array, "b ..."]:
  """The sum of each segment, in the values' type; 0 where it is empty."""
  if _is_empty(values, offsets):
    return _identities(values, offsets, 0)
  if not jnp.issubdtype(values.dtype, jnp.inexact):  # Exact in any order.
    return _scatter(jax.ops.segment_sum, values, offsets)
  return _sum(values, jnp.asarray(offsets))


def _is_empty(values: Array, offsets: Array) -> bool:
  """Whether there is no slot or no segment, from which nothing can be gathered."""
  return values.shape[0] == 0 or offsets.shape[0] == 1


def _identities(values: Array, offsets: Array, identity) -> Array:
  shape = (offsets.shape[0] - 1, *values.shape[1:])
  return jnp.full(shape, identity, values.dtype)


@jax.custom_jvp
def _sum(values, offsets):
  if on_gpu():
    return _reduce_tiles(jnp.sum, 0, values, offsets)
  return _sum_chunks(values, offsets)


@_sum.defjvp
def _sum_jvp(primals, tangents):
  return _sum(*primals), tangent_sum(tangents[0], primals[1])


def tangent_sum(
  tangents: Shaped[Array, "n ..."], offsets: Int[Array, "b+1"]
) -> Shaped[Array, "b ..."]:
  """The sum for rules of differentiation: in one chain, with a gather as transpose."""
  if _is_empty(tangents, offsets):
    return _identities(tangents, offsets, 0)
  return _scatter(jax.ops.segment_sum, tangents, offsets)


def segment_extreme(
  values: Shaped[Array, "n ..."], offsets: Int[Array, "b+1"], largest: bool
) -> Shaped[Array, "b ..."]:
  """The maximum (or minimum) of each segment, without a derivative.

  NaN where a value is. The lowest (highest) number of the type where it is empty.
  """
  if _is_empty(values, offsets):
    return _identities(values, offsets, lowest(values.dtype, largest))
  identity = lowest(values.dtype, largest)
  if on_gpu():  # The atomic maximum of some GPUs drops NaN.
    reduce = functools.partial(jnp.max if largest else jnp.min, initial=identity)
    return _reduce_tiles(reduce, identity, values, offsets)
  op = jax.ops.segment_max if largest else jax.ops.segment_min
  return _scatter(op, values, offsets)


def lowest(dtype, largest: bool = True):
  """The identity of the maximum (or minimum) over a type."""
  if jnp.issubdtype(dtype, jnp.inexact):
    return -jnp.inf if largest else jnp.inf
  limits = jnp.iinfo(dtype)
  return limits.min if largest else limits.max


def segment_prod(
  values: Shaped[Array, "n ..."], offsets: Int[Array, "b+1"]
) -> Shaped[Array, "b ..."]:
  """The product of each segment, without a derivative; 1 where it is empty."""
  if _is_empty(values, offsets):
    return _identities(values, offsets, 1)
  if on_gpu():
    return _reduce_tiles(jnp.prod, 1, values, offsets)
  return _scatter(jax.ops.segment_prod, values, offsets)


def _scatter(op: Callable, values: Array, offsets: Array) -> Array:
  return _scatter_ids(op, values, segment_ids(offsets, values.shape[0]), offsets)


def _scatter_ids(op: Callable, values: Array, ids: Array, offsets: Array) -> Array:
  return op(values, ids, offsets.shape[0] - 1, indices_are_sorted=True)


def _sum_chunks(values: Array, offsets: Array) -> Array:
  """A sum by scatters, in levels where a segment has more terms than a chain."""
  n = values.shape[0]
  # A symbolic size may be any that int32 offsets allow.
  most = n if isinstance(n, int) else 2**31
  # Ids are made outside of the branches, so that they are made once: for narrow values
  # they cost as much as the sum.
  return _sum_level(values, segment_ids(offsets, n), offsets, _CHAIN, most)


def _sum_level(
  values: Array, ids: Array, offsets: Array, direct: int, most: int
) -> Array:
  """A sum of at most `most` terms, of which `direct` are added one by one.

  The first terms of a segment are added to its total, the others chunk by chunk, and
  the sums of the chunks are the terms of the next level. One scatter makes totals and
  chunks: a term's row is its segment, or `b` plus the number of its chunk.
  """
  plain = functools.partial(_scatter_ids, jax.ops.segment_sum)
  if most <= direct:
    return plain(values, ids, offsets)
  b, n = offsets.shape[0] - 1, values.shape[0]
  lengths = offsets[1:] - offsets[:-1]

  def in_levels(values, ids, offsets):
    num_chunks = n // _CHUNK + 1  # At least one, as far as export can tell.
    position = _positions(ids, offsets[:-1])
    chunks = -(-jnp.maximum(lengths - direct, 0) // _CHUNK)
    ends = jnp.pad(jnp.cumsum(chunks, dtype=jnp.int32), (1, 0))
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


def _positions(ids: Array, starts: Array) -> Array:
  slots = jax.lax.iota(jnp.int32, ids.shape[0])
  return slots - jnp.take(starts, ids, mode="clip").astype(jnp.int32)


# Without a scatter, for GPUs: segments are cut into tiles of equal length, each tile is
# gathered and reduced densely, and so are the tiles' results.


def _tiles(
  offsets: Int[Array, "b+1"], num_slots: int
) -> tuple[Int[Array, "m t"], Int[Array, "b+1"]]:
  """The slots of each tile, those past its end out of range; and tiles by segment."""
  b = offsets.shape[0] - 1
  num_tiles = num_slots // _TILE + b
  lengths = offsets[1:] - offsets[:-1]
  ends = jnp.cumsum(-(-lengths // _TILE), dtype=jnp.int32)
  tile_offsets = jnp.pad(ends, (1, 0))
  owner = segment_ids(tile_offsets, num_tiles)
  tile = _positions(owner, tile_offsets[:-1])
  begin = jnp.take(offsets[:-1], owner, mode="clip") + tile * _TILE
  stop = jnp.take(offsets[1:], owner, mode="clip")
  stop = jnp.where(owner < b, stop, 0)
  places = begin[:, None] + jax.lax.iota(jnp.int32, _TILE)[None]
  # Each place that is none has an index of its own, so that indices are unique.
  past = num_slots + jax.lax.iota(jnp.int32, num_tiles * _TILE).reshape(-1, _TILE)
  return jnp.where(places < stop[:, None], places, past), tile_offsets


def _num_levels(num_slots: int) -> int:
  """How many times the largest possible segment has to be cut into tiles."""
  if not isinstance(num_slots, int):
    return 7  # Symbolic: enough for 2**31 slots.
  levels = 1
  while _TILE**levels < num_slots:
    levels += 1
  return levels


def _reduce_tiles(reduce: Callable, identity, values: Array, offsets: Array) -> Array:
  for _ in range(_num_levels(values.shape[0])):
    places, offsets_of_tiles = _tiles(offsets, values.shape[0])
    taken = jnp.take(values, places, axis=0, mode="fill", fill_value=identity)
    values, offsets = reduce(taken, axis=1), offsets_of_tiles
  # Now at most one tile is left of each segment.
  left = jnp.take(values, offsets[:-1], axis=0, mode="fill", fill_value=identity)
  some = like(offsets[1:] > offsets[:-1], values)
  return jnp.where(some, left, jnp.asarray(identity, values.dtype))


def _spread_tiles(per_segment: Array, offsets: Array, num_slots: int) -> Array:
  """`spread` in the form whose transpose is `_reduce_tiles` of a sum."""
  levels = []
  size = num_slots
  for _ in range(_num_levels(num_slots)):
    places, tile_offsets = _tiles(offsets, size)
    levels.append((places, size))
    offsets, size = tile_offsets, places.shape[0]
  b = per_segment.shape[0]
  some = offsets[1:] > offsets[:-1]
  rows = jnp.where(some, offsets[:-1], size + jax.lax.iota(jnp.int32, b))
  spread = _put(rows, per_segment, size)
  for places, size in reversed(levels):
    tiled = jnp.broadcast_to(spread[:, None], (*places.shape, *spread.shape[1:]))
    spread = _put(places.reshape(-1), tiled.reshape(-1, *spread.shape[1:]), size)
  return spread


def _put(places: Array, rows: Array, size: int) -> Array:
  target = jnp.zeros((size, *rows.shape[1:]), rows.dtype)
  return target.at[places].set(rows, mode="drop", unique_indices=True)
