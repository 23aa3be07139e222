"""Products of user and item vectors, block by block, without the items already seen.

Axes besides the usual: `q` users, `i` items, `r` users of a block, `p` pairs of a user
and an item. All items stay on the device as one array (1,000,000 x 256 in float32 are
1 GB, which a block's transfer would have to move for each block of users); what grows
with users times items exists for one block only.
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

# One user would be a product of a matrix and a vector, which rounds the items at its
# end in another way than the others: equal vectors would no longer tie exactly.
_FEWEST_USERS = 8


@flax.struct.dataclass
class Pairs:
  """The pairs of a user of a block and an item to leave out, by item.

  Attributes:
    users: Row in the block; past its end on padding.
    items: Ascending.
    begins: Where the pairs of each block of items begin.
    window: At least the number of pairs of any block of items. Static.
  """

  users: Int[Array, "p"]
  items: Int[Array, "p"]
  begins: Int[Array, "..."]
  window: int = flax.struct.field(pytree_node=False)


def checked(
  users: Float[Array, "q d"], items: Float[Array, "i d"]
) -> tuple[Float[np.ndarray, "q d"], Float[Array, "i d"]]:
  """The users on the host in float32, the items on the device.

  Raises:
    ConfigError: Not two matrices of the same width, no items, or a vector that is not
      finite or whose length overflows float32.
  """
  users = np.asarray(users).astype(np.float32)
  if not isinstance(items, jax.Array):
    # jnp.asarray would hold another copy for a moment (jax 0.10.2).
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
        f"{name} row {row}: a vector of length {lengths[row]}; the model has diverged,"
        " try a lower config.optim.learning_rate"
      )
  return users, items


@jax.jit
def _lengths(vectors: Float[Array, "n d"]) -> Float[Array, "n"]:
  return jnp.linalg.norm(vectors.astype(jnp.float32), axis=1)


def checked_rows(lists: Ragged | None, name: str, num_users: int, num_items: int):
  """A list of item rows per user, on the host; empty lists for None.

  Raises:
    ConfigError: Not one list per user, or a row that no item has.
  """
  if lists is None:
    return Ragged(np.zeros(0, np.int64), np.zeros(num_users + 1, np.int64))
  values, offsets = np.asarray(lists.values), np.asarray(lists.offsets)
  if len(offsets) != num_users + 1:
    raise ConfigError(
      f"{name}: {len(offsets) - 1} lists and {num_users} users; pass a list per user,"
      " empty where there is none"
    )
  values = values[: offsets[-1]]
  bad = np.flatnonzero((values < 0) | (values >= num_items))
  if len(bad):
    user = int(np.searchsorted(offsets, bad[0], side="right")) - 1
    raise ConfigError(
      f"{name} of user {user}: item row {values[bad[0]]}, and there are {num_items}"
      " items, rows from 0; drop events of items without a vector"
    )
  return Ragged(values, offsets)


def take(lists: Ragged, rows: Int[np.ndarray, "m"]) -> Ragged:
  """The lists of some rows, in their order, a row as often as it is named (host)."""
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
) -> Iterator[tuple[Float[np.ndarray, "r d"], Pairs, int]]:
  """Blocks of users of one shape: vectors (zeros past the last), pairs, item block.

  The block of items is cut to the number of items.

  Raises:
    ConfigError: A block of less than one row.
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
) -> Pairs:
  """The pairs of each block of users, with a leading axis of blocks.

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
  # A window that begins at a block's last pair still ends inside.
  slots = _power_of_two(totals.max(initial=0)) + window
  rows = np.full((num_blocks, slots), user_block, np.int32)
  columns = np.zeros((num_blocks, slots), np.int32)
  slot = np.arange(len(users)) - np.repeat(np.cumsum(totals) - totals, totals)
  rows[users // user_block, slot] = users % user_block
  columns[users // user_block, slot] = items
  begins = (np.cumsum(counts, axis=1) - counts).astype(np.int32)
  return Pairs(rows, columns, begins, window)


def _power_of_two(size: int) -> int:
  """The least that is at least the size."""
  return 1 << (max(int(size), 1) - 1).bit_length()


def scores(
  users: Float[Array, "r d"],
  items: Float[Array, "i d"],
  pairs: Pairs,
  block: Int[Array, ""],
  item_block: int,
) -> tuple[Float[Array, "r ..."], Int[Array, ""]]:
  """Products with a block of items, -inf for pairs left out; the block's first item.

  In full float32. The last block is moved back to end with the last item, which needs
  no padded copy of all items; what it repeats of the block before is -inf.
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
  # The window may hold pairs of later blocks: past the end, and dropped.
  products = products.at[rows, columns - start].set(-jnp.inf, mode="drop")
  repeated = start + jnp.arange(item_block, dtype=jnp.int32) < first
  return jnp.where(repeated, -jnp.inf, products), start
