"""Reductions without a scatter, for GPUs.

Segments are cut into tiles of equal length, each tile is gathered and reduced densely,
and so are the tiles' results.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from deepsets_jax.ragged.offsets import like, positions, segment_ids

# Terms that a GPU adds at once.
_TILE = 32


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
  tile = positions(owner, tile_offsets[:-1])
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


def reduce_tiles(reduce: Callable, identity, values: Array, offsets: Array) -> Array:
  """The reduction of each segment by a dense one; `identity` where it is empty.

  Args:
    reduce: A reduction over `axis=1`, such as `jnp.sum`.
    identity: What does not change the result.
    values: `[n, ...]`.
    offsets: `[b + 1]`.
  """
  for _ in range(_num_levels(values.shape[0])):
    places, offsets_of_tiles = _tiles(offsets, values.shape[0])
    taken = jnp.take(values, places, axis=0, mode="fill", fill_value=identity)
    values, offsets = reduce(taken, axis=1), offsets_of_tiles
  # Now at most one tile is left of each segment.
  left = jnp.take(values, offsets[:-1], axis=0, mode="fill", fill_value=identity)
  some = like(offsets[1:] > offsets[:-1], values)
  return jnp.where(some, left, jnp.asarray(identity, values.dtype))


def spread_tiles(per_segment: Array, offsets: Array, num_slots: int) -> Array:
  """`spread` in the form whose transpose is `reduce_tiles` of a sum."""
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
