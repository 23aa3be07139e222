"""Which segments of a batch are taken together: built once, shared by all layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Lengths of the tiles of self-attention. Finer steps waste less and compile longer.
_SIZES = (8, 16, 24, 32, 48, 64, 96, 128)
# Of cross-attention, where each length of queries meets each length of keys.
_COARSE_SIZES = (8, 32, 128)
# Side of the blocks of longer segments.
BLOCK = 128
# Slots of a group of tiles: enough to keep the loop's own cost small, few enough that
# a last group that is not full costs little. Measured on a CPU.
_GROUP_SLOTS = 384


@flax.struct.dataclass
class Plan:
  """Which segments are taken together. Made by `plan`.

  Attributes:
    query_offsets, key_offsets: Where segments begin, `[b + 1]`.
    order: Segments by tile, `[b]`: those of the first tile, of the second, ..., then
      those that are cut into blocks, then those without a query or without a key.
    starts: Where in `order` each of these begins.
    block_ends: Number of blocks of queries up to and with each segment, `[b]`; None
      where no segment can be longer than a tile.
    tiles: Length in queries and in keys of each kind of tile.
  """

  query_offsets: Int[Array, "b+1"]
  key_offsets: Int[Array, "b+1"]
  order: Int[Array, "b"]
  starts: Int[Array, "t+2"]
  block_ends: Int[Array, "b"] | None
  tiles: tuple[tuple[int, int], ...] = flax.struct.field(pytree_node=False)

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
  """The plan of a batch; for self-attention give the same offsets twice.

  The number of examples may be symbolic, as in `jax.export`: offsets of shape `b + 1`
  for a symbol `b`. The most queries and keys of a segment are numbers.

  Args:
    query_offsets: Where each segment's queries begin.
    key_offsets: Where its keys begin.
    most_queries: No segment has more queries: the slots, or less if it is known.
    most_keys: No segment has more keys.
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
  """Whether an array has no rows; one of a symbolic number has some."""
  return isinstance(x.shape[0], int) and x.shape[0] == 0


def _tiles(most_queries: int, most_keys: int, same: bool):
  """The tiles that a batch can need, the smallest first."""
  if same:
    return tuple((size, size) for size in _sizes(most_queries, _SIZES))
  sides = _sizes(most_queries, _COARSE_SIZES), _sizes(most_keys, _COARSE_SIZES)
  return tuple(sorted(itertools.product(*sides), key=math.prod))


def _sizes(bound: int, sizes: Sequence[int]) -> tuple[int, ...]:
  """The sizes that a segment of at most `bound` elements can need."""
  bound = max(bound, 1)
  return (*(size for size in sizes if size < bound), *([bound] * (bound <= BLOCK)))


def uncounted_flops(
  plan: Plan, num_heads: int, key_features: int, value_features: int
) -> Float[Array, ""]:
  """Operations of the products of `attend` that XLA's cost analysis does not see.

  XLA counts the body of a loop once, however often it runs. This is what all tiles and
  blocks of the batch cost, padding in them included, less one body of each; of the
  forward pass, the backward pass has 2.5 times as many. Blocks that a mask lets
  `attend` leave out are counted.
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
  """How many tiles of `a` queries and `z` keys are taken together."""
  return max(_GROUP_SLOTS // max(a, z), 1)
