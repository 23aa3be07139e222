"""Ranks of target items, from 0; items with equal scores share their mean rank.

The rank of an item with `better` candidates of higher score and `ties` others of equal
score is better + ties / 2. The candidates of a user are all items that the user has not
seen, and all targets: a film that is watched again counts as found. Axes besides the
usual: `q` users, `i` items, `t` targets of all users, one user after the other.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged, from_lengths
from deepsets_jax.tasks.retrieval import blocks

# Number of targets of one row of a block; a user with more takes several rows.
_MOST_TARGETS = 8


def tolerance(size: int) -> float:
  """Largest difference of two products that count as equal, over |user| |target|.

  It is 2 sqrt(d) epsilons of float32 for vectors of size d. Sums of the same d terms in
  different orders differ by d epsilons in the worst case and, like a random walk, by
  about sqrt(d) in practice: on a CPU by 2.5 for d = 64 and 4.5 for d = 256, where 16
  and 32 are allowed. Different items with products this close tie as well. For d = 256
  the tolerance is 16,000 times smaller than the standard deviation of the products of
  random unit vectors.
  """
  return 2 * size**0.5 * float(np.finfo(np.float32).eps)


def of_scores(
  scores: Float[np.ndarray, "q i"], targets: Ragged, seen: Ragged | None = None
) -> Float[np.ndarray, "t"]:
  """Compute ranks from given scores on the host; only equal scores tie.

  Args:
    scores: Score of every item for every user; higher is better. May be infinite.
    targets: Item rows to rank per user; the other targets of a user are candidates. An
      item that is a target twice has two ranks, but is one candidate.
    seen: Item rows per user to leave out; None for no items.

  Raises:
    ConfigError: The scores are not a matrix or contain NaN, there is not one list per
      user, or an item row is out of range.
  """
  scores = _checked_scores(scores)
  targets, left_out = _checked(targets, seen, *scores.shape)
  ranks = []
  for row, own, out in zip(
    scores, targets.to_lists(), left_out.to_lists(), strict=True
  ):
    candidates = np.delete(row, out)
    for score in row[own]:
      better = np.count_nonzero(candidates > score)
      level = np.count_nonzero(candidates == score) - 1
      ranks.append(better + level / 2)
  return np.array(ranks, np.float64)


def of_vectors(
  users: Float[Array, "q d"],
  items: Float[Array, "i d"],
  targets: Ragged,
  seen: Ragged | None = None,
  *,
  user_block: int = 256,
  item_block: int = 8192,
) -> Float[np.ndarray, "t"]:
  """Compute exact ranks among all items from products of vectors.

  Equals `of_scores` of `users @ items.T`, but only one block of products exists at a
  time, and scores within the `tolerance` tie.

  Args:
    users: User vectors, finite.
    items: Item vectors, finite. They are kept on the device in their own type, and
      multiplied in float32.
    targets: See `of_scores`.
    seen: See `of_scores`.
    user_block: Number of users of a block; larger blocks are faster if memory allows.
    item_block: Number of items of a block.

  Raises:
    ConfigError: See `of_scores` and `blocks.check_vectors`.
  """
  users, items = blocks.check_vectors(users, items)
  targets, left_out = _checked(targets, seen, len(users), len(items))
  owners, slots, places = _in_rows(targets)
  found = []
  for vectors, pairs, size in blocks.user_blocks(
    users[owners],
    blocks.take(left_out, owners),
    len(items),
    user_block=user_block,
    item_block=item_block,
  ):
    begin = len(found) * len(vectors)
    some = slots[begin : begin + len(vectors)]
    some = np.pad(some, ((0, len(vectors) - len(some)), (0, 0)))
    found.append(_twice_the_ranks(vectors, items, pairs, some, item_block=size))
  if not found:
    return np.zeros(0, np.float64)
  return np.concatenate(found).ravel()[places] / 2


def _in_rows(targets: Ragged) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Distribute the targets of each user over rows of equal width.

  Returns:
    The user of each row, its targets `[rows, m]` (item 0 in empty slots), and the
    position of each target among all slots.
  """
  lengths = np.diff(targets.offsets)
  width = min(max(lengths.max(initial=0), 1), _MOST_TARGETS)
  num_rows = -(-lengths // width)
  owners = np.repeat(np.arange(len(lengths)), num_rows)
  # The targets of a user fill the slots of its rows one after the other.
  begins = (np.cumsum(num_rows) - num_rows) * width
  places = np.repeat(begins - targets.offsets[:-1], lengths)
  places = places + np.arange(len(places))
  slots = np.zeros(len(owners) * width, np.int32)
  slots[places] = targets.values
  return owners, slots.reshape(-1, width), places


@functools.partial(jax.jit, static_argnames="item_block")
def _twice_the_ranks(
  users: Float[Array, "r d"],
  items: Float[Array, "i d"],
  pairs: blocks.ExcludedPairs,
  targets: Int[Array, "r m"],
  *,
  item_block: int,
) -> Int[Array, "r m"]:
  """Twice the number of better items plus the number of ties, without the target."""
  vectors = jnp.take(items, targets, axis=0).astype(jnp.float32)
  score = jnp.einsum("rd,rmd->rm", users, vectors, precision=jax.lax.Precision.HIGHEST)
  lengths = jnp.linalg.norm(users, axis=1)[:, None] * jnp.linalg.norm(vectors, axis=2)
  margin = tolerance(users.shape[1]) * lengths
  above, below = (x[:, :, None] for x in (score + margin, score - margin))

  def add(block, total):
    scores, start = blocks.scores(users, items, pairs, block, item_block)
    scores = scores[:, None, :]
    rows = start + jnp.arange(item_block, dtype=jnp.int32)
    own = rows[None, None, :] == targets[:, :, None]
    # One sum for both counts: two sums would read the scores twice.
    count = (scores > above).astype(jnp.int32) + (scores >= below).astype(jnp.int32)
    return total + jnp.sum(jnp.where(own, 0, count), axis=2, dtype=jnp.int32)

  return jax.lax.fori_loop(0, len(pairs.begins), add, jnp.zeros_like(targets))


def among_sampled(
  scores: Float[np.ndarray, "q i"] | tuple[Float[Array, "q d"], Float[Array, "i d"]],
  targets: Ragged,
  seen: Ragged | None = None,
  *,
  n: int = 100,
  seed: int = 0,
  user_rows: Int[np.ndarray, "q"] | None = None,
) -> Float[np.ndarray, "t"]:
  """Compute ranks among `n` sampled items, for comparison with papers.

  Sampled metrics differ from those of full ranking, and may order models differently:
  Krichene and Rendle, "On Sampled Metrics for Item Recommendation" (2020). The `n`
  items of a user are uniform, without replacement, and neither seen nor targets. All
  targets of a user are ranked among the same items, but not among each other.

  Args:
    scores: Scores of all items, or vectors of users and items; ties as in `of_scores`
      and `of_vectors`.
    targets: See `of_scores`.
    seen: See `of_scores`.
    n: Number of sampled items.
    seed: Determines the sample, together with the user's row.
    user_rows: Rows of the users in their table, by default 0, 1, ...

  Raises:
    ConfigError: See `of_scores` and `of_vectors`; or a user has fewer than `n` items to
      sample from.
  """
  if isinstance(scores, tuple):
    users, items = blocks.check_vectors(*scores)
    score = functools.partial(_products, users, np.asarray(items))
    shape = len(users), len(items)
  else:
    scores = _checked_scores(scores)
    score, shape = (lambda user, rows: (scores[user, rows], 0.0)), scores.shape
  targets, left_out = _checked(targets, seen, *shape)
  user_rows = np.arange(shape[0]) if user_rows is None else np.asarray(user_rows)
  if user_rows.shape != shape[:1]:
    raise ConfigError(
      f"user_rows has the shape {user_rows.shape}; expected one row for each of the"
      f" {shape[0]} users"
    )
  ranks = []
  for user, own in enumerate(targets.to_lists()):
    if len(own):
      out = left_out.values[left_out.offsets[user] : left_out.offsets[user + 1]]
      taken = np.unique(np.concatenate([own, out]))
      sample = _sample(user, taken, shape[1], n, [seed, int(user_rows[user])])
      ranks += _among(score(user, sample)[0], *score(user, own))
  return np.array(ranks, np.float64)


def _sample(
  user: int, taken: np.ndarray, num_items: int, n: int, seed: list[int]
) -> np.ndarray:
  """Sample `n` different item rows that are not in `taken`, which is ascending."""
  free = num_items - len(taken)
  if free < n:
    raise ConfigError(
      f"user {user}: only {free} of {num_items} items are neither seen nor targets, but"
      f" n is {n}; lower n, or rank among all items"
    )
  places = np.random.default_rng(seed).choice(free, n, replace=False)
  # Adds to each position among the free rows the number of taken rows before it.
  return places + np.searchsorted(taken - np.arange(len(taken)), places, side="right")


def _among(others: np.ndarray, scores: np.ndarray, margins: Any) -> list[float]:
  """Rank of each score among the others, which tie within a margin."""
  ranks = []
  for score, margin in zip(*np.broadcast_arrays(scores, margins), strict=True):
    better = np.count_nonzero(others > score + margin)
    level = np.count_nonzero(others >= score - margin) - better
    ranks.append(better + level / 2)
  return ranks


def _products(users, items, user, rows):
  """Scores of items for a user in float64, and the margins within which they tie."""
  vectors, vector = items[rows].astype(np.float64), users[user].astype(np.float64)
  lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector)
  return vectors @ vector, tolerance(len(vector)) * lengths


def _checked_scores(scores: Float[np.ndarray, "q i"]) -> Float[np.ndarray, "q i"]:
  scores = np.asarray(scores)
  if scores.ndim != 2:
    raise ConfigError(f"scores has the shape {scores.shape}; expected [users, items]")
  bad = np.isnan(scores).any(axis=1)
  if bad.any():
    user = int(np.argmax(bad))
    item = int(np.argmax(np.isnan(scores[user])))
    raise ConfigError(
      f"user {user}: the score of item row {item} is NaN. Use -inf for an item without"
      " a score"
    )
  return scores


def _checked(
  targets: Ragged, seen: Ragged | None, num_users: int, num_items: int
) -> tuple[Ragged, Ragged]:
  """Checked targets, and the seen items that are not targets of the same user."""
  targets = blocks.check_rows(targets, "targets", num_users, num_items)
  seen = blocks.check_rows(seen, "seen", num_users, num_items)
  users = [np.repeat(np.arange(num_users), np.diff(x.offsets)) for x in (targets, seen)]
  # Each pair of a user and an item becomes one number.
  own, out = (
    user * num_items + x.values for user, x in zip(users, (targets, seen), strict=True)
  )
  rest = ~np.isin(out, own)
  lengths = np.bincount(users[1][rest], minlength=num_users)
  return targets, from_lengths(seen.values[rest], lengths)
