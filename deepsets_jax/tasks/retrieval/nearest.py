"""The items whose vectors have the largest products with a user's: the recalled list.

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

# Scores of which the maximum is taken first. 32 and 64 are as fast on a CPU (1.6 times
# as fast as `top_k` alone); a vector register of a TPU holds 128.
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
  """Scores and rows of the `k` best items of each user, from the best.

  Of equal scores the lower row comes first; equal vectors have equal scores where the
  device's product treats all columns of a block alike, as on a CPU. Where a user has
  fewer than `k` items left, rows are -1 and scores -inf.

  Args:
    users, items: Finite; unit vectors make the scores cosines. All items are on the
      device, in their own type.
    k: At most the number of items.
    seen: Item rows per user, to be left out. None: nothing was seen.
    approximate: By `jax.lax.approx_max_k` (Chern et al., "TPU-KNN", 2022), which is
      made for a TPU: others fall back to an exact search. Ties are in any order.
    recall_target: The share of the true `k` best that an approximate search shall find.
    user_block, item_block: Rows of a block.

  Raises:
    ConfigError: `k` or the recall out of range, or see `blocks.checked`.
  """
  users, items = blocks.checked(users, items)
  if not 1 <= k <= len(items):
    raise ConfigError(f"k is {k}: expected 1 to {len(items)}, the number of items")
  if not 0 < recall_target <= 1:
    raise ConfigError(f"recall_target is {recall_target}: expected above 0, at most 1")
  seen = blocks.checked_rows(seen, "seen", len(users), len(items))
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
  pairs: blocks.Pairs,
  *,
  k: int,
  item_block: int,
  recall_target: float | None,
) -> tuple[Float[Array, "r k"], Int[Array, "r k"]]:
  """The `k` best of a block of users; exact without a target of recall."""

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
    # The earlier blocks' first: top_k keeps this order where scores are equal, so that
    # the lower row wins, and -1 against what is left out.
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
  """`jax.lax.top_k`, of the `k` chunks alone that have the largest maxima.

  No other chunk can have one of the `k` best: each of the chosen has a better one, or
  an equal one of a lower row.
  """
  num_chunks = scores.shape[1] // _CHUNK
  if num_chunks <= k or scores.shape[1] % _CHUNK:
    return jax.lax.top_k(scores, k)
  chunks = scores.reshape(-1, num_chunks, _CHUNK)
  _, chosen = jax.lax.top_k(jnp.max(chunks, axis=2), k)
  # By row again, so that of equal scores the first is that of the lower row.
  chosen = jnp.sort(chosen, axis=1)
  some = jnp.take_along_axis(chunks, chosen[:, :, None], axis=1)
  top, places = jax.lax.top_k(some.reshape(-1, k * _CHUNK), k)
  chunk = jnp.take_along_axis(chosen, places // _CHUNK, axis=1)
  return top, chunk * _CHUNK + places % _CHUNK
