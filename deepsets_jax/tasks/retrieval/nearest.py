"""Nearest-neighbour search: the items with the largest products with a user vector.

Axes besides the usual: `q` users, `i` items, `r` users of a block.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged
from deepsets_jax.tasks.retrieval import blocks

# Number of scores of a chunk, whose maximum is taken first. On a CPU 32 and 64 are as
# fast (1.6 times as fast as `top_k` alone); a vector register of a TPU holds 128.
_CHUNK = 128


def nearest(
  users: Float[Array, "q d"],
  items: Float[Array, "i d"],
  k: int,
  seen: Ragged | None = None,
  *,
  approximate: bool = False,
  recall_target: float = 0.95,
  user_block: int = 256,
  item_block: int = 16384,
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
  """Find the `k` items with the highest scores for each user.

  Of equal scores the lower row comes first. Equal vectors have equal scores if the
  device's product treats all columns of a block alike, as on a CPU.

  Args:
    users, items: Finite vectors. Those of items stay on the device in their own type.
    k: Number of items to find.
    seen: Item rows per user to leave out; None for no items.
    approximate: Search with `jax.lax.approx_max_k` (Chern et al., "TPU-KNN", 2022),
      which is exact except on TPUs. The order of ties is arbitrary.
    recall_target: Expected share of the true `k` items in an approximate search.
    user_block, item_block: Number of users and of items of a block.

  Returns:
    Scores and item rows, the highest score first. For a user with fewer than `k` items
    left, the last rows are -1 and their scores -inf.

  Raises:
    ConfigError: See `blocks.check_vectors`; or `k` or `recall_target` is out of range.
  """
  users, items = blocks.check_vectors(users, items)
  if not 1 <= k <= len(items):
    raise ConfigError(f"k is {k}: expected 1 to {len(items)}, the number of items")
  if not 0 < recall_target <= 1:
    raise ConfigError(f"recall_target is {recall_target}: expected above 0, at most 1")
  seen = blocks.check_rows(seen, "seen", len(users), len(items))
  search = functools.partial(
    _nearest, k=k, recall_target=recall_target if approximate else None
  )
  found = [
    search(vectors, items, pairs, item_block=size)
    for vectors, pairs, size in blocks.user_blocks(
      users, seen, len(items), user_block=user_block, item_block=item_block
    )
  ]
  if not found:
    return np.zeros((0, k), np.float32), np.zeros((0, k), np.int32)
  scores, rows = (np.concatenate(x)[: len(users)] for x in zip(*found, strict=True))
  return scores, rows


@functools.partial(jax.jit, static_argnames=("k", "item_block", "recall_target"))
def _nearest(
  users: Float[Array, "r d"],
  items: Float[Array, "i d"],
  pairs: blocks.ExcludedPairs,
  *,
  k: int,
  item_block: int,
  recall_target: float | None,
) -> tuple[Float[Array, "r k"], Int[Array, "r k"]]:
  """Best items of a block of users; exact if `recall_target` is None."""

  def merge(block, best):
    scores, start = blocks.scores(users, items, pairs, block, item_block)
    if recall_target is None:
      top, columns = _exact(scores, min(k, item_block))
    else:
      top, columns = jax.lax.approx_max_k(
        scores,
        min(k, item_block),
        recall_target=recall_target,
        reduction_input_size_override=len(items),
      )
    # Earlier blocks come first: top_k keeps the order of equal scores, so that the
    # lower row wins, and -1 wins against excluded items.
    top = jnp.concatenate([best[0], top], axis=1)
    rows = jnp.concatenate([best[1], start + columns], axis=1)
    top, places = jax.lax.top_k(top, k)
    return top, jnp.take_along_axis(rows, places, axis=1)

  shape = (len(users), k)
  start = jnp.full(shape, -jnp.inf, jnp.float32), jnp.full(shape, -1, jnp.int32)
  return jax.lax.fori_loop(0, len(pairs.begins), merge, start)


def _exact(
  scores: Float[Array, "r i"], k: int
) -> tuple[Float[Array, "r k"], Int[Array, "r k"]]:
  """`jax.lax.top_k`, applied only to the `k` chunks with the largest maxima.

  No other chunk holds one of the `k` best scores: each of the `k` chunks has a better
  one, or an equal one of a lower row.
  """
  num_chunks = scores.shape[1] // _CHUNK
  if num_chunks <= k or scores.shape[1] % _CHUNK:
    return jax.lax.top_k(scores, k)
  chunks = scores.reshape(-1, num_chunks, _CHUNK)
  _, chosen = jax.lax.top_k(jnp.max(chunks, axis=2), k)
  # Sorted by row, so that the lower row comes first among equal scores.
  chosen = jnp.sort(chosen, axis=1)
  some = jnp.take_along_axis(chunks, chosen[:, :, None], axis=1)
  top, places = jax.lax.top_k(some.reshape(-1, k * _CHUNK), k)
  chunk = jnp.take_along_axis(chosen, places // _CHUNK, axis=1)
  return top, chunk * _CHUNK + places % _CHUNK
