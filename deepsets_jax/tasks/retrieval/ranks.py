"""Ranks of the items to be found, from 0; what ties shares the mean of its ranks.

With `better` candidates above an item and `ties` others level with it, its rank is
better + ties / 2. Candidates of a user are all items but those seen, except where a
seen item is a target, too: who clicks a film again has found it. Axes besides the
usual: `q` users, `i` items, `t` targets of all users, one after the other.
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

# Targets of one row of a block; a user with more takes several rows.
_MOST_TARGETS = 8


def tolerance(size: int) -> float:
  """How far two products of `size` terms may lie apart and tie, over |user| |target|.

  2 sqrt(d) of float32's epsilon, d the size. Sums of equal vectors taken in different
  orders differ by d epsilons at the worst, and in effect by the square root of that, as
  random walks do: by 2.5 at d = 64 and 4.5 at 256 on a CPU, of 16 and 32 here. Other
  items so near tie, too. At d = 256 this is 16,000 times less than the standard
  deviation of the products of random directions.
  """
  return 2 * size**0.5 * float(np.finfo(np.float32).eps)


def of_scores(
  scores: Float[np.ndarray, "q i"], targets: Ragged, seen: Ragged | None = None
) -> Float[np.ndarray, "t"]:
  """Ranks by scores of any origin (host); only equal scores tie.

  Args:
    scores: Of every item for every user; higher is better. May be infinite.
    targets: Item rows per user. Each is ranked among all others of the user, too. An
      item that is a target twice has two ranks, and counts once as a candidate.
    seen: Item rows per user, to be left out. None: nothing was seen.

  Raises:
    ConfigError: Scores that are not a matrix or NaN, not a list per user, or a row that
      no item has.
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
  """Ranks by the products of vectors, among all items and exact.

  As `of_scores` of `users @ items.T`, of which one block at a time exists; scores
  within the `tolerance` tie. All items are on the device, in their own type.

  Args:
    users, items: Finite. Items of a low precision are multiplied in float32.
    targets, seen: See `of_scores`.
    user_block, item_block: Rows of a block. Results do not depend on them; a device
      with more memory is faster with more.

  Raises:
    ConfigError: See `of_scores` and `blocks.checked`.
  """
  users, items = blocks.checked(users, items)
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
  """The user of each row, its targets `[rows, m]`, and where in those each target is.

  A user has as many rows as it takes, none without targets; empty slots are item 0.
  """
  lengths = np.diff(targets.offsets)
  width = min(max(lengths.max(initial=0), 1), _MOST_TARGETS)
  num_rows = -(-lengths // width)
  owners = np.repeat(np.arange(len(lengths)), num_rows)
  # A user's targets lie one after the other in the slots of its rows.
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
  pairs: blocks.Pairs,
  targets: Int[Array, "r m"],
  *,
  item_block: int,
) -> Int[Array, "r m"]:
  """Twice the number of better items and once that of level ones, targets apart."""
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
    # One sum of both: two sums would read the scores twice.
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
  """Ranks among `n` random items only: the weaker protocol, for comparison with papers.

  Metrics of it are not those of the full ranking, and need not order models alike:
  Krichene and Rendle, "On Sampled Metrics for Item Recommendation" (2020). The `n` of a
  user are neither seen nor targets, uniform and without replacement; all targets of a
  user meet the same, and not one another.

  Args:
    scores: Of all items, or the vectors of users and items; ties as in `of_scores` and
      `of_vectors`.
    targets, seen: See `of_scores`.
    n: Number of sampled items.
    seed: With the user's row, decides the sample.
    user_rows: Rows of the users in their table, so that a sample depends on no other
      user; by default 0, 1, ...

  Raises:
    ConfigError: As `of_scores` and `of_vectors`, or a user has fewer than `n` items to
      sample from.
  """
  if isinstance(scores, tuple):
    users, items = blocks.checked(*scores)
    score = functools.partial(_products, users, np.asarray(items))
    shape = len(users), len(items)
  else:
    scores = _checked_scores(scores)
    score, shape = (lambda user, rows: (scores[user, rows], 0.0)), scores.shape
  targets, left_out = _checked(targets, seen, *shape)
  user_rows = np.arange(shape[0]) if user_rows is None else np.asarray(user_rows)
  if user_rows.shape != shape[:1]:
    raise ConfigError(
      f"user_rows of shape {user_rows.shape}: expected a row for each of {shape[0]}"
      " users"
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
  """`n` different rows of items out of those not taken; `taken` ascending."""
  free = num_items - len(taken)
  if free < n:
    raise ConfigError(
      f"user {user}: {free} of {num_items} items are neither seen nor targets, and n is"
      f" {n}; lower n, or rank among all items"
    )
  places = np.random.default_rng(seed).choice(free, n, replace=False)
  # The number of taken rows before a free one, by its place among the free ones.
  return places + np.searchsorted(taken - np.arange(len(taken)), places, side="right")


def _among(others: np.ndarray, scores: np.ndarray, margins: Any) -> list[float]:
  """The rank of each score among the others; within a margin of it they tie."""
  ranks = []
  for score, margin in zip(*np.broadcast_arrays(scores, margins), strict=True):
    better = np.count_nonzero(others > score + margin)
    level = np.count_nonzero(others >= score - margin) - better
    ranks.append(better + level / 2)
  return ranks


def _products(users, items, user, rows):
  """Scores of some items for a user in float64, and how far apart they may tie."""
  vectors, vector = items[rows].astype(np.float64), users[user].astype(np.float64)
  lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector)
  return vectors @ vector, tolerance(len(vector)) * lengths


def _checked_scores(scores: Float[np.ndarray, "q i"]) -> Float[np.ndarray, "q i"]:
  scores = np.asarray(scores)
  if scores.ndim != 2:
    raise ConfigError(f"scores of shape {scores.shape}: expected [users, items]")
  bad = np.isnan(scores).any(axis=1)
  if bad.any():
    user = int(np.argmax(bad))
    item = int(np.argmax(np.isnan(scores[user])))
    raise ConfigError(
      f"user {user}: the score of item row {item} is NaN, which has no rank; give an"
      " item without a score -inf"
    )
  return scores


def _checked(
  targets: Ragged, seen: Ragged | None, num_users: int, num_items: int
) -> tuple[Ragged, Ragged]:
  """The targets, and of the seen items those that are no targets of the user."""
  targets = blocks.checked_rows(targets, "targets", num_users, num_items)
  seen = blocks.checked_rows(seen, "seen", num_users, num_items)
  users = [np.repeat(np.arange(num_users), np.diff(x.offsets)) for x in (targets, seen)]
  # A user and an item as one number, so that pairs are compared as numbers are.
  own, out = (
    user * num_items + x.values for user, x in zip(users, (targets, seen), strict=True)
  )
  rest = ~np.isin(out, own)
  lengths = np.bincount(users[1][rest], minlength=num_users)
  return targets, from_lengths(seen.values[rest], lengths)
