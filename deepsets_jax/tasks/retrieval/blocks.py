"""Products of user and item vectors, block by block, without excluded pairs.

Axes besides the usual: `q` users, `i` items, `r` users of a block, `p` pairs of a user
and an item. All item vectors stay on the device as one array: 1,000,000 x 256 in
float32 are 1 GB, which would otherwise be transferred for each block of users. The
products of users and items exist for one block at a time only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged, offsets_from_lengths

# With a single user the product would be one of a matrix and a vector, which rounds the
# last items differently: equal vectors would no longer tie exactly.
_FEWEST_USERS = 8


@flax.struct.dataclass
class ExcludedPairs:
  """The pairs of a user and an item to leave out of a block of users, by item.

  Attributes:
    users: Row of the user in the block; past its end for padding.
    items: Row of the item, ascending.
    begins: Position of the first pair of each block of items.
    window: Upper bound of the number of pairs of a block of items. Static.
  """

  users: Int[Array, "p"]
  items: Int[Array, "p"]
  begins: Int[Array, "..."]
  window: int = flax.struct.field(pytree_node=False)


def check_vectors(
  users: Float[Array, "q d"], items: Float[Array, "i d"]
) -> tuple[Float[np.ndarray, "q d"], Float[Array, "i d"]]:
  """Check vectors and place them: users on the host in float32, items on the device.

  Raises:
    ConfigError: The arrays are not two matrices of the same width, there are no items,
      or the length of a vector is not finite in float32.
  """
  users = np.asarray(users).astype(np.float32)
  if not isinstance(items, jax.Array):
    # jnp.asarray would hold a second copy for a moment (jax 0.10.2).
    items = jax.device_put(np.asarray(items))
  if users.ndim != 2 or items.ndim != 2 or users.shape[1] != items.shape[1]:
    raise ConfigError(
      f"users of shape {users.shape} and items of shape {items.shape}: expected [q, d]"
      " and [i, d] of the same tower width"
    )
  if not len(items):
    raise ConfigError("no items: there is nothing to rank; pass at least one vector")
  for name, vectors in (("user", users), ("item", items)):
    lengths = np.asarray(_lengths(vectors))
    if not np.isfinite(lengths).all():
      row = int(np.argmin(np.isfinite(lengths)))
      raise ConfigError(
        f"{name} row {row} has a vector of length {lengths[row]}: the model has"
        " diverged. Try a lower config.optim.learning_rate"
      )
  return users, items


@jax.jit
def _lengths(vectors: Float[Array, "n d"]) -> Float[Array, "n"]:
  return jnp.linalg.norm(vectors.astype(jnp.float32), axis=1)


def check_rows(
  lists: Ragged | None, name: str, num_users: int, num_items: int
) -> Ragged:
  """Check lists of item rows, one per user, and put them on the host.

  Args:
    lists: Item rows per user; None for empty lists.
    name: Name of the argument, for messages.
    num_users: Number of users.
    num_items: Number of items.

  Raises:
    ConfigError: There is not one list per user, or a row is out of range.
  """
  if lists is None:
    return Ragged(np.zeros(0, np.int64), np.zeros(num_users + 1, np.int64))
  values, offsets = np.asarray(lists.values), np.asarray(lists.offsets)
  if len(offsets) != num_users + 1:
    raise ConfigError(
      f"{name} has {len(offsets) - 1} lists for {num_users} users; pass one list per"
      " user, which may be empty"
    )
  values = values[: offsets[-1]]
  bad = np.flatnonzero((values < 0) | (values >= num_items))
  if len(bad):
    user = int(np.searchsorted(offsets, bad[0], side="right")) - 1
    raise ConfigError(
      f"{name} of user {user}: item row {values[bad[0]]} is not in 0 to"
      f" {num_items - 1}; drop events of items without a vector"
    )
  return Ragged(values, offsets)


def take(lists: Ragged, rows: Int[np.ndarray, "m"]) -> Ragged:
  """Select lists by row, in the order of the rows, on the host; rows may repeat."""
  lengths = np.diff(lists.offsets)[rows]
  offsets = offsets_from_lengths(lengths)
  places = np.arange(offsets[-1])
  places += np.repeat(lists.offsets[:-1][rows] - offsets[:-1], lengths)
  return Ragged(lists.values[places], offsets)


def user_blocks(
  users: Float[np.ndarray, "q d"],
  seen: Ragged,
  num_items: int,
  *,
  user_block: int,
  item_block: int,
) -> Iterator[tuple[Float[np.ndarray, "r d"], ExcludedPairs, int]]:
  """Iterate over blocks of users, all of the same shape.

  Args:
    users: Vectors of all users.
    seen: Item rows per user to exclude.
    num_items: Number of items.
    user_block: Number of users of a block.
    item_block: Number of items of a block.

  Yields:
    Vectors of a block of users (zeros after the last user), its excluded pairs, and the
    number of items of a block, which is at most that of all items.

  Raises:
    ConfigError: A block size is below 1.
  """
  for name, size in (("user_block", user_block), ("item_block", item_block)):
    if size < 1:
      raise ConfigError(f"{name} is {size}: expected at least 1")
  user_block = max(min(user_block, len(users)), _FEWEST_USERS)
  item_block = min(item_block, num_items)
  num_blocks = math.ceil(len(users) / user_block)
  pairs = _by_item(seen, num_blocks, user_block, num_items, item_block)
  for block in range(num_blocks):
    some = users[block * user_block : (block + 1) * user_block]
    some = np.pad(some, ((0, user_block - len(some)), (0, 0)))
    yield some, jax.tree.map(lambda x, b=block: x[b], pairs), item_block


def _by_item(
  seen: Ragged, num_blocks: int, user_block: int, num_items: int, item_block: int
) -> ExcludedPairs:
  """Excluded pairs of each block of users, with a leading axis of blocks.

  Numbers of slots are powers of two, so that few shapes are compiled.
  """
  users = np.repeat(np.arange(len(seen.offsets) - 1), np.diff(seen.offsets))
  order = np.lexsort((seen.values, users // user_block))
  users, items = users[order], seen.values[order]
  item_blocks = math.ceil(num_items / item_block)
  cell = users // user_block * item_blocks + items // item_block
  counts = np.bincount(cell, minlength=num_blocks * item_blocks)
  counts = counts.reshape(num_blocks, item_blocks)
  totals = counts.sum(axis=1)
  window = _power_of_two(counts.max(initial=0))
  # A window that begins at the last pair of a block must end inside the array.
  slots = _power_of_two(totals.max(initial=0)) + window
  rows = np.full((num_blocks, slots), user_block, np.int32)
  columns = np.zeros((num_blocks, slots), np.int32)
  slot = np.arange(len(users)) - np.repeat(np.cumsum(totals) - totals, totals)
  rows[users // user_block, slot] = users % user_block
  columns[users // user_block, slot] = items
  begins = (np.cumsum(counts, axis=1) - counts).astype(np.int32)
  return ExcludedPairs(rows, columns, begins, window)


def _power_of_two(size: int) -> int:
  """The smallest power of two that is at least the size."""
  return 1 << (max(int(size), 1) - 1).bit_length()


def scores(
  users: Float[Array, "r d"],
  items: Float[Array, "i d"],
  pairs: ExcludedPairs,
  block: Int[Array, ""],
  item_block: int,
) -> tuple[Float[Array, "r ..."], Int[Array, ""]]:
  """Compute the products of users with a block of items, in full float32.

  The last block is moved back to end with the last item, which needs no padded copy of
  all items. Items that it repeats from the block before have the score -inf.

  Args:
    users: Vectors of a block of users.
    items: Vectors of all items.
    pairs: Pairs whose score is -inf.
    block: Number of the block of items.
    item_block: Number of items of a block.

  Returns:
    Scores of users and items of the block, and the row of its first item.
  """
  first = block * item_block
  start = jnp.minimum(first, len(items) - item_block)
  vectors = jax.lax.dynamic_slice_in_dim(items, start, item_block)
  products = jnp.einsum(
    "rd,id->ri",
    users,
    vectors.astype(jnp.float32),
    precision=jax.lax.Precision.HIGHEST,
  )
  rows, columns = (
    jax.lax.dynamic_slice_in_dim(x, pairs.begins[block], pairs.window)
    for x in (pairs.users, pairs.items)
  )
  # The window may hold pairs of later blocks. They lie past the end and are dropped.
  products = products.at[rows, columns - start].set(-jnp.inf, mode="drop")
  repeated = start + jnp.arange(item_block, dtype=jnp.int32) < first
  return jnp.where(repeated, -jnp.inf, products), start
