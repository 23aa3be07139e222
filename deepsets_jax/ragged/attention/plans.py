"""Plans of attention: the segments that are computed together.

A plan is built once for a batch and shared by all layers.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Lengths of the tiles of self-attention. Finer steps waste less but compile longer.
_SIZES = (8, 16, 24, 32, 48, 64, 96, 128)
# The same for cross-attention, which needs each pair of lengths of queries and keys.
_COARSE_SIZES = (8, 32, 128)
# Side of the blocks of longer segments.
BLOCK = 128
# Slots of a group of tiles: enough to keep the overhead of the loop small, few enough
# that a last group that is not full costs little. Measured on a CPU.
_GROUP_SLOTS = 384


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Plan:
  """The segments that are computed together. Built by `plan`.

  Attributes:
    query_offsets, key_offsets: Where segments begin, `[b + 1]`.
    order: Segments by kind of tile, `[b]`: those of the first kind, of the second, ...,
      then those that are cut into blocks, then those without a query or without a key.
    starts: Where each of these groups begins in `order`.
    block_ends: Number of blocks of queries up to and including each segment, `[b]`;
      None if no segment can be longer than a tile.
    tiles: Numbers of queries and of keys of each kind of tile.
  """

  query_offsets: Int[Array, "b+1"]
  key_offsets: Int[Array, "b+1"]
  order: Int[Array, "b"]
  starts: Int[Array, "t+2"]
  block_ends: Int[Array, "b"] | None
  tiles: tuple[tuple[int, int], ...] = dataclasses.field(metadata={"static": True})

  @property
  def has_blocks(self) -> bool:
    """Whether a segment of this batch could be longer than a tile."""
    return self.block_ends is not None


def plan(
  query_offsets: Int[Array, "b+1"],
  key_offsets: Int[Array, "b+1"],
  most_queries: int,
  most_keys: int,
) -> Plan:
  """Build the plan of a batch; for self-attention pass the same offsets twice.

  The number of examples may be symbolic, as in `jax.export`: offsets of shape `b + 1`
  for a symbol `b`. The bounds are Python ints.

  Args:
    query_offsets: Where each segment's queries begin.
    key_offsets: Where each segment's keys begin.
    most_queries: Bound on the queries of a segment: the number of slots, or less where
      that is known.
    most_keys: The same for keys.
  """
  same = query_offsets is key_offsets
  query_offsets, key_offsets = (
    jnp.asarray(offsets, jnp.int32) for offsets in (query_offsets, key_offsets)
  )
  queries = query_offsets[1:] - query_offsets[:-1]
  keys = key_offsets[1:] - key_offsets[:-1]
  if same:
    most_queries = most_keys = min(most_queries, most_keys)
  tiles = _tiles(most_queries, most_keys, same)
  kind = jnp.full_like(queries, len(tiles))
  for index, (a, z) in reversed(list(enumerate(tiles))):
    kind = jnp.where((queries <= a) & (keys <= z), index, kind)
  kind = jnp.where((queries == 0) | (keys == 0), len(tiles) + 1, kind)
  order = jnp.argsort(kind, stable=True).astype(jnp.int32)
  kinds = jnp.arange(len(tiles) + 2, dtype=jnp.int32)
  starts = jnp.sum(kind[None] < kinds[:, None], axis=1, dtype=jnp.int32)
  block_ends = None
  fits = most_queries <= tiles[-1][0] and most_keys <= tiles[-1][1]
  if not (fits or is_empty(queries)):
    blocks = jnp.where(kind == len(tiles), -(-queries // BLOCK), 0)
    block_ends = jnp.cumsum(blocks, dtype=jnp.int32)
  return Plan(
    query_offsets=query_offsets,
    key_offsets=key_offsets,
    order=order,
    starts=starts,
    block_ends=block_ends,
    tiles=tiles,
  )


def is_empty(x: Array) -> bool:
  """Whether an array has no rows; False for a symbolic number of rows."""
  return isinstance(x.shape[0], int) and x.shape[0] == 0


def _tiles(most_queries: int, most_keys: int, same: bool):
  """Return the kinds of tile that a batch may need, the smallest first."""
  if same:
    return tuple((size, size) for size in _sizes(most_queries, _SIZES))
  sides = _sizes(most_queries, _COARSE_SIZES), _sizes(most_keys, _COARSE_SIZES)
  return tuple(sorted(itertools.product(*sides), key=math.prod))


def _sizes(bound: int, sizes: Sequence[int]) -> tuple[int, ...]:
  """Return the sizes that segments of at most `bound` elements may need."""
  bound = max(bound, 1)
  return (*(size for size in sizes if size < bound), *([bound] * (bound <= BLOCK)))


def uncounted_flops(
  plan: Plan, num_heads: int, key_features: int, value_features: int
) -> Float[Array, ""]:
  """Count the operations of `attend` that XLA's cost analysis does not see.

  XLA counts the body of a loop once, however often it runs. This number is the cost of
  the matrix products of all tiles and blocks of the batch, including their padding,
  minus one body of each loop. It is for the forward pass; the backward pass has 2.5
  times as many. Blocks that `attend` skips because of a mask are counted.
  """
  pairs = jnp.zeros((), jnp.float32)
  if is_empty(plan.order):
    return pairs
  for index, (a, z) in enumerate(plan.tiles):
    group = group_size(a, z)
    members = plan.starts[index + 1] - plan.starts[index]
    trips = (members + group - 1) // group
    pairs += (trips - 1).astype(jnp.float32) * (group * a * z)
  if plan.has_blocks:
    keys = plan.key_offsets[1:] - plan.key_offsets[:-1]
    blocks = jnp.diff(plan.block_ends, prepend=0) * (-(-keys // BLOCK))
    pairs += (jnp.sum(blocks) - 1).astype(jnp.float32) * BLOCK**2
  return pairs * (2 * num_heads * (key_features + value_features))


def group_size(a: int, z: int) -> int:
  """Return how many tiles of `a` queries and `z` keys make a group."""
  return max(_GROUP_SLOTS // max(a, z), 1)
