"""Reductions without a scatter, for GPUs.

Segments are cut into tiles of equal length. Each tile is gathered and reduced densely;
the results of the tiles are reduced in the same way, until each segment has one.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from deepsets_jax.ragged.offsets import (
  device_offsets,
  expand_like,
  positions,
  segment_ids,
)

# Terms that a GPU adds at once.
_TILE = 32


def _tiles(
  offsets: Int[Array, "b+1"], num_slots: int
) -> tuple[Int[Array, "m t"], Int[Array, "b+1"]]:
  """Return the slots of each tile, and the offsets of each segment's tiles.

  Places past a tile's end have indices out of range.
  """
  b = offsets.shape[0] - 1
  num_tiles = num_slots // _TILE + b
  lengths = offsets[1:] - offsets[:-1]
  tile_offsets = device_offsets(-(-lengths // _TILE))
  owner = segment_ids(tile_offsets, num_tiles)
  tile = positions(owner, tile_offsets[:-1])
  begin = jnp.take(offsets[:-1], owner, mode="clip") + tile * _TILE
  stop = jnp.take(offsets[1:], owner, mode="clip")
  stop = jnp.where(owner < b, stop, 0)
  slots = begin[:, None] + jax.lax.iota(jnp.int32, _TILE)[None]
  # Each place out of range has an index of its own, so that indices are unique.
  past = num_slots + jax.lax.iota(jnp.int32, num_tiles * _TILE).reshape(-1, _TILE)
  return jnp.where(slots < stop[:, None], slots, past), tile_offsets


def _num_levels(num_slots: int) -> int:
  """Return how often the largest possible segment has to be cut into tiles."""
  if not isinstance(num_slots, int):
    return 7  # Symbolic: enough for 2**31 slots.
  levels = 1
  while _TILE**levels < num_slots:
    levels += 1
  return levels


def reduce_tiles(reduce: Callable, identity, values: Array, offsets: Array) -> Array:
  """Reduce each segment by dense reductions; `identity` where it is empty.

  Args:
    reduce: A reduction over `axis=1`, such as `jnp.sum`.
    identity: The identity of the reduction, such as 0 for a sum.
    values: `[n, ...]`.
    offsets: `[b + 1]`.
  """
  for _ in range(_num_levels(values.shape[0])):
    slots, tile_offsets = _tiles(offsets, values.shape[0])
    taken = jnp.take(values, slots, axis=0, mode="fill", fill_value=identity)
    values, offsets = reduce(taken, axis=1), tile_offsets
  # Now each segment has at most one tile.
  left = jnp.take(values, offsets[:-1], axis=0, mode="fill", fill_value=identity)
  some = expand_like(offsets[1:] > offsets[:-1], values)
  return jnp.where(some, left, jnp.asarray(identity, values.dtype))


def spread_tiles(per_segment: Array, offsets: Array, num_slots: int) -> Array:
  """Compute `reductions.spread` so that its transpose is `reduce_tiles` of a sum."""
  levels = []
  size = num_slots
  for _ in range(_num_levels(num_slots)):
    slots, tile_offsets = _tiles(offsets, size)
    levels.append((slots, size))
    offsets, size = tile_offsets, slots.shape[0]
  b = per_segment.shape[0]
  some = offsets[1:] > offsets[:-1]
  rows = jnp.where(some, offsets[:-1], size + jax.lax.iota(jnp.int32, b))
  spread = _put(rows, per_segment, size)
  for slots, size in reversed(levels):
    tiled = jnp.broadcast_to(spread[:, None], (*slots.shape, *spread.shape[1:]))
    spread = _put(slots.reshape(-1), tiled.reshape(-1, *spread.shape[1:]), size)
  return spread


def _put(slots: Array, rows: Array, size: int) -> Array:
  target = jnp.zeros((size, *rows.shape[1:]), rows.dtype)
  return target.at[slots].set(rows, mode="drop", unique_indices=True)
