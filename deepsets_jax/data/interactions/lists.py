"""The lists to rank: a user before an event, some items, and how much each is wanted.

Where lists come from: of "ratings", a run of a user's events is what it was offered,
and how it rated is the order wanted; of "clicks", the item that a user came to is to be
told from random ones.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from deepsets_jax.data.interactions import next_item
from deepsets_jax.data.interactions.histories import Histories, Split
from deepsets_jax.data.interactions.next_item import HISTORY, NextItemExamples
from deepsets_jax.data.tables.schema import Schema
from deepsets_jax.data.tables.table import Table, element_slots
from deepsets_jax.foundation.errors import ConfigError, DataError
from deepsets_jax.ragged import Ragged, from_lengths, offsets_from_lengths

# Among the lengths of examples, and the budgets of a shard.
CANDIDATES = "candidates"


class Source(Protocol):
  """The lists that are trained on.

  Attributes:
    histories: Of all users.
    seed: Of the draws.
    highest: Of the labels.
  """

  histories: Histories
  seed: int
  highest: float

  def __len__(self) -> int:
    """Number of lists of an epoch."""

  def lengths(self, epoch: int) -> Mapping[str, np.ndarray]:
    """Elements of each list of an epoch by modality of its user, and CANDIDATES."""

  def longest(self) -> int:
    """The most events that a list of any epoch is known by."""

  def shares(self) -> np.ndarray:
    """How often an item is a candidate: `[items]`, the sum 1."""

  def schema(self) -> Schema:
    """Of a user before an event."""

  def users_before(self, users: np.ndarray, ends: np.ndarray) -> Table:
    """See `prefixes.users_before`."""

  def of_epoch(self, epoch: int, lists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The users of some lists, and where what is known of each ends: `[b]` each."""

  def candidates(
    self, users: np.ndarray, ends: np.ndarray, rng: np.random.Generator
  ) -> tuple[Ragged, np.ndarray]:
    """The rows of the items of some lists, each once in a list, and their labels."""


@dataclasses.dataclass(frozen=True)
class RatingLists:
  """Consecutive runs of a user's training events, to be ranked by rating.

  A list is known nothing of but the events before it. Its labels are the ratings less
  the lowest of all, so that the worst gains nothing.

  Attributes:
    histories: Of all users, with ratings.
    train_ends: `[users]`: events of a user from here on are not trained on.
    window: See `prefixes.users_before`.
    list_size: Events of a list; the last list of a user may have fewer.
    seed: Of their order.
    room: The most candidates of a list that a shard has room for: the `lengths` are no
      more, and what a list has beyond is cut; None for any number.

  Raises:
    ConfigError: A list size below 1.
    DataError: Events have no ratings.
  """

  histories: Histories
  train_ends: np.ndarray
  max_history: int
  list_size: int
  seed: int
  room: int | None = None

  def __post_init__(self):
    if self.list_size < 1:
      raise ConfigError(
        f"config.ranking.list_size is {self.list_size}; expected at least 1"
      )
    if self.histories.ratings is None:
      raise DataError(
        "config.ranking.lists is 'ratings', and events have none: give the log a"
        " rating of each, or set it to 'clicks'"
      )

  def __len__(self) -> int:
    return int(self._firsts[-1])

  def of_epoch(self, epoch: int, lists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See `Source`; every epoch has the same."""
    del epoch
    users = np.searchsorted(self._firsts, lists, side="right") - 1
    places = (lists - self._firsts[users]) * self.list_size
    return users, self.histories.offsets[:-1][users] + places

  def lengths(self, epoch: int) -> Mapping[str, np.ndarray]:
    """See `Source`."""
    users, begins = self.of_epoch(epoch, np.arange(len(self)))
    fields = self.histories.users
    known = np.minimum(begins - self.histories.offsets[:-1][users], self.max_history)
    return {
      **{name: fields.lengths_of(name, users) for name in fields.modalities},
      HISTORY: known,
      CANDIDATES: _at_most(self._ends(users, begins) - begins, self.room),
    }

  def longest(self) -> int:
    """See `Source`."""
    return int(self.lengths(0)[HISTORY].max())

  def shares(self) -> np.ndarray:
    """See `Source`."""
    counts = self.histories.popularity(self.train_ends)
    return counts / max(counts.sum(), 1)

  def schema(self) -> Schema:
    """See `Source`; an element of HISTORY has a weight, see `users_before`."""
    found = next_item.schema(self.histories)
    history = dataclasses.replace(found.modalities[HISTORY], weighted=True)
    return Schema({**found.modalities, HISTORY: history}, found.target)

  def users_before(self, users: np.ndarray, ends: np.ndarray) -> Table:
    """Users before some events, with the ratings of their histories.

    The weight of an element of HISTORY is 1 and the rating, standardised over those
    that are trained on: what is liked counts more, and what is not less than nothing.
    """
    histories = self.histories
    table = next_item.users_before(histories, users, ends, self.max_history)
    history = table.modalities[HISTORY]
    slots = element_slots(ends - history.lengths, history.lengths, history.offsets)
    mean, deviation = self._moments
    weights = 1 + (histories.ratings[slots] - mean) / deviation
    return dataclasses.replace(
      table,
      schema=self.schema(),
      modalities={**table.modalities, HISTORY: history.replace(weights=weights)},
    )

  def candidates(
    self, users: np.ndarray, ends: np.ndarray, rng: np.random.Generator
  ) -> tuple[Ragged, np.ndarray]:
    """See `Source`."""
    del rng
    return self.between(ends, self._ends(users, ends))

  def between(self, begins: np.ndarray, ends: np.ndarray) -> tuple[Ragged, np.ndarray]:
    """The items of runs of events, see `Histories.items_between`, and their labels."""
    rows = self.histories.items_between(begins, ends)
    lengths = ends - begins
    ratings = self.histories.ratings[element_slots(begins, lengths, rows.offsets)]
    return rows, ratings - self.histories.ratings.min(initial=np.inf)

  @functools.cached_property
  def highest(self) -> float:
    """Of the labels; 1 where all ratings are the same."""
    return float(np.ptp(self.histories.ratings)) or 1.0

  @property
  def liked(self) -> float:
    """The label of an item that is rated as the mean of those trained on."""
    return float(self._moments[0] - self.histories.ratings.min())

  @functools.cached_property
  def _moments(self) -> tuple[np.float32, np.float32]:
    """Mean and deviation of the ratings that are trained on; of equal ones 1."""
    begins, ends = self.histories.offsets[:-1], self.train_ends
    offsets = offsets_from_lengths(ends - begins)
    slots = element_slots(begins, ends - begins, offsets)
    ratings = self.histories.ratings[slots].astype(np.float64)
    return np.float32(ratings.mean()), np.float32(ratings.std() or 1)

  def _ends(self, users: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Where the lists end that begin here."""
    return np.minimum(begins + self.list_size, self.train_ends[users])

  @functools.cached_property
  def _firsts(self) -> np.ndarray:
    """The first list of each user among those of all: `[users + 1]`."""
    counts = self.train_ends - self.histories.offsets[:-1]
    return offsets_from_lengths(-(-counts // self.list_size))


@dataclasses.dataclass(frozen=True)
class ClickLists:
  """The item that a user came to, label 1, and random ones that it never did, label 0.

  Attributes:
    prefixes: The events.
    negatives: Random items of a list, uniform and all different, that are not among
      the user's training events; of a user that has clicked nearly all, as many as
      there are.
    room: As of `RatingLists`.

  Raises:
    ConfigError: Fewer than 1 negative.
  """

  prefixes: NextItemExamples
  negatives: int
  room: int | None = None

  def __post_init__(self):
    if self.negatives < 1:
      raise ConfigError(
        f"config.ranking.negatives is {self.negatives}; expected at least 1, since a"
        " list of one item is in order"
      )

  highest = 1.0

  @property
  def histories(self) -> Histories:
    """See `Source`."""
    return self.prefixes.histories

  @property
  def seed(self) -> int:
    """See `Source`."""
    return self.prefixes.seed

  def __len__(self) -> int:
    return len(self.prefixes)

  def of_epoch(self, epoch: int, lists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See `NextItemExamples.of_epoch`."""
    return self.prefixes.of_epoch(epoch, lists)

  def lengths(self, epoch: int) -> Mapping[str, np.ndarray]:
    """See `Source`; of candidates the most there may be."""
    most = np.full(len(self), 1 + self.negatives)
    lengths = {CANDIDATES: _at_most(most, self.room)}
    return {**self.prefixes.lengths(epoch), **lengths}

  def longest(self) -> int:
    """See `NextItemExamples.longest`."""
    return self.prefixes.longest()

  def shares(self) -> np.ndarray:
    """See `Source`."""
    uniform = self.negatives / len(self.histories.items)
    return (self.prefixes.shares() + uniform) / (1 + self.negatives)

  def schema(self) -> Schema:
    """See `prefixes.schema`."""
    return next_item.schema(self.histories)

  def users_before(self, users: np.ndarray, ends: np.ndarray) -> Table:
    """See `prefixes.users_before`."""
    return next_item.users_before(
      self.histories, users, ends, self.prefixes.max_history
    )

  def candidates(
    self, users: np.ndarray, ends: np.ndarray, rng: np.random.Generator
  ) -> tuple[Ragged, np.ndarray]:
    """See `Source`; of each list the positive comes first."""
    lists = [
      np.append(self.histories.rows[end], self._unseen(user, rng))
      for user, end in zip(users, ends, strict=True)
    ]
    lengths = np.array([len(rows) for rows in lists], np.int64)
    rows = from_lengths(np.concatenate([np.zeros(0, np.int32), *lists]), lengths)
    labels = np.zeros(len(rows.values), np.float32)
    labels[rows.offsets[:-1]] = 1
    return rows, labels

  def _unseen(self, user: int, rng: np.random.Generator) -> np.ndarray:
    histories, end = self.histories, self.prefixes.train_ends[user]
    seen = np.unique(histories.rows[histories.offsets[user] : end])
    free = len(histories.items) - len(seen)
    count = min(self.negatives, free)
    places = rng.choice(free, count, replace=False, shuffle=False)
    # Before a free row there are as many seen ones as are not above its place.
    before = seen - np.arange(len(seen))
    places = places + np.searchsorted(before, places, side="right")
    return places.astype(np.int32)


def last_part(
  histories: Histories, share: float = 0.1, least: int = 2
) -> tuple[dict[str, Split], np.ndarray]:
  """The last events of each user held out by share, as lists to be ranked.

  The last are the list of "test", as many before them that of "validation"; what is
  known of a user for "test" includes the latter.

  Args:
    histories: Of all users.
    share: Of a user's events, rounded down.
    least: Events of a list: two can be in a wrong order. A user with fewer than so many
      for training, too, is in neither, and all its events train.

  Returns:
    As `histories.leave_out`.

  Raises:
    DataError: No user has enough events.
  """
  lengths = histories.lengths()
  sizes = np.maximum((lengths * share).astype(np.int64), least)
  user_rows = np.flatnonzero(lengths >= 2 * sizes + least)
  if not len(user_rows):
    raise DataError(
      f"no user has {3 * least} events, to hold out {least} twice and train on the"
      f" rest; the longest history has {lengths.max(initial=0)}: give more"
    )
  ends, sizes = histories.offsets[1:][user_rows], sizes[user_rows]
  splits = {
    "validation": Split(user_rows, ends - 2 * sizes, ends - sizes),
    "test": Split(user_rows, ends - sizes, ends),
  }
  return splits, splits["validation"].ends(histories)


def _at_most(lengths: np.ndarray, room: int | None) -> np.ndarray:
  return lengths if room is None else np.minimum(lengths, room)
