"""Lists to rank: a user before an event, some items, and the relevance of each.

With "ratings", a list is a run of a user's events, to be ranked by their ratings. With
"clicks", a list is the item of a user's next event, to be ranked above random items.
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
from deepsets_jax.data.tables.table import Table, slots_between
from deepsets_jax.foundation.errors import ConfigError, DataError
from deepsets_jax.ragged import Ragged, from_lengths, offsets_from_lengths

# The key of candidates among the lengths of examples and the budgets of a shard.
CANDIDATES = "candidates"


class ListSource(Protocol):
  """A source of training lists.

  Attributes:
    histories: The histories of all users.
    seed: Seed of the draws.
    highest: The highest label.
  """

  histories: Histories
  seed: int
  highest: float

  def __len__(self) -> int:
    """Returns the number of lists of an epoch."""

  def lengths(self, epoch: int) -> Mapping[str, np.ndarray]:
    """Returns {modality of users, or CANDIDATES: elements of each list of an epoch}."""

  def longest(self) -> int:
    """Returns the largest number of known events of a list of any epoch."""

  def shares(self) -> np.ndarray:
    """Returns the relative frequency of items as candidates: `[items]`, with sum 1."""

  def schema(self) -> Schema:
    """Returns the schema of a user before an event."""

  def users_before(self, users: np.ndarray, ends: np.ndarray) -> Table:
    """See `next_item.users_before`."""

  def of_epoch(self, epoch: int, lists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the users of some lists, and where their known events end: `[b]` each."""

  def candidates(
    self, users: np.ndarray, ends: np.ndarray, rng: np.random.Generator
  ) -> tuple[Ragged, np.ndarray]:
    """Returns the item rows of some lists, distinct in a list, and their labels."""


@dataclasses.dataclass(frozen=True)
class RatingLists:
  """Consecutive runs of a user's training events, to be ranked by rating.

  Only the events before a list are known. Labels are the ratings minus the lowest of
  all ratings, so that the worst gains nothing.

  Attributes:
    histories: The histories of all users, with ratings.
    train_ends: The end of the training events of each user: `[users]`.
    max_history: See `next_item.users_before`.
    list_size: Number of events of a list; the last list of a user may have fewer.
    seed: Seed of the order of the lists.
    max_candidates: The largest number of candidates of a list that fits into a shard:
      the `lengths` are at most this, and longer lists are cut. None for no limit.

  Raises:
    ConfigError: `list_size` is below 1.
    DataError: The events have no ratings.
  """

  histories: Histories
  train_ends: np.ndarray
  max_history: int
  list_size: int
  seed: int
  max_candidates: int | None = None

  def __post_init__(self):
    if self.list_size < 1:
      raise ConfigError(
        f"config.ranking.list_size is {self.list_size}; expected at least 1"
      )
    if self.histories.ratings is None:
      raise DataError(
        "config.ranking.lists is 'ratings', and events have none: add ratings to the"
        " log, or set it to 'clicks'"
      )

  def __len__(self) -> int:
    return int(self._firsts[-1])

  def of_epoch(self, epoch: int, lists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See `ListSource`; every epoch has the same lists."""
    del epoch
    users = np.searchsorted(self._firsts, lists, side="right") - 1
    positions = (lists - self._firsts[users]) * self.list_size
    return users, self.histories.offsets[:-1][users] + positions

  def lengths(self, epoch: int) -> Mapping[str, np.ndarray]:
    """See `ListSource`."""
    users, begins = self.of_epoch(epoch, np.arange(len(self)))
    fields = self.histories.users
    known = np.minimum(begins - self.histories.offsets[:-1][users], self.max_history)
    return {
      **{name: fields.lengths_of(name, users) for name in fields.modalities},
      HISTORY: known,
      CANDIDATES: _at_most(self._ends(users, begins) - begins, self.max_candidates),
    }

  def longest(self) -> int:
    """See `ListSource`."""
    return int(self.lengths(0)[HISTORY].max())

  def shares(self) -> np.ndarray:
    """See `ListSource`."""
    counts = self.histories.popularity(self.train_ends)
    return counts / max(counts.sum(), 1)

  def schema(self) -> Schema:
    """See `ListSource`; elements of HISTORY have weights, see `users_before`."""
    found = next_item.schema(self.histories)
    history = dataclasses.replace(found.modalities[HISTORY], weighted=True)
    return Schema({**found.modalities, HISTORY: history}, found.target)

  def users_before(self, users: np.ndarray, ends: np.ndarray) -> Table:
    """Returns users before some events, with the ratings of their histories.

    The weight of an element of HISTORY is 1 plus the rating, standardised over the
    training events: liked items count more, and disliked ones may count negatively.
    """
    histories = self.histories
    table = next_item.users_before(histories, users, ends, self.max_history)
    history = table.modalities[HISTORY]
    slots, _ = slots_between(ends - history.lengths, ends)
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
    """See `ListSource`."""
    del rng
    return self.between(ends, self._ends(users, ends))

  def between(self, begins: np.ndarray, ends: np.ndarray) -> tuple[Ragged, np.ndarray]:
    """Returns the items of runs of events, see `items_between`, and their labels."""
    slots, offsets = slots_between(begins, ends)
    rows = Ragged(self.histories.rows[slots], offsets)
    ratings = self.histories.ratings
    return rows, ratings[slots] - ratings.min(initial=np.inf)

  @functools.cached_property
  def highest(self) -> float:
    """The highest label; 1 if all ratings are equal."""
    return float(np.ptp(self.histories.ratings)) or 1.0

  @property
  def liked(self) -> float:
    """The label of the mean rating of the training events."""
    return float(self._moments[0] - self.histories.ratings.min())

  @functools.cached_property
  def _moments(self) -> tuple[np.float32, np.float32]:
    """Mean and deviation of the ratings of the training events; deviation 1 for 0."""
    slots, _ = slots_between(self.histories.offsets[:-1], self.train_ends)
    ratings = self.histories.ratings[slots].astype(np.float64)
    return np.float32(ratings.mean()), np.float32(ratings.std() or 1)

  def _ends(self, users: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Where the lists that begin at these events end."""
    return np.minimum(begins + self.list_size, self.train_ends[users])

  @functools.cached_property
  def _firsts(self) -> np.ndarray:
    """The first list of each user among those of all: `[users + 1]`."""
    counts = self.train_ends - self.histories.offsets[:-1]
    return offsets_from_lengths(-(-counts // self.list_size))


@dataclasses.dataclass(frozen=True)
class ClickLists(NextItemExamples):
  """The item of a user's next event, label 1, and random unseen items, label 0.

  Attributes:
    negatives: Number of distinct items of a list that are drawn uniformly from those
      outside the user's training events; fewer for a user with nearly all items.
    max_candidates: See `RatingLists`.

  Raises:
    ConfigError: `negatives` is below 1.
  """

  negatives: int
  max_candidates: int | None = None

  highest = 1.0

  def __post_init__(self):
    super().__post_init__()
    if self.negatives < 1:
      raise ConfigError(
        f"config.ranking.negatives is {self.negatives}; expected at least 1, since a"
        " list of one item is always in order"
      )

  def lengths(self, epoch: int) -> Mapping[str, np.ndarray]:
    """See `ListSource`; lists have at most this many candidates."""
    most = np.full(len(self), 1 + self.negatives)
    lengths = {CANDIDATES: _at_most(most, self.max_candidates)}
    return {**super().lengths(epoch), **lengths}

  def shares(self) -> np.ndarray:
    """See `ListSource`."""
    uniform = self.negatives / len(self.histories.items)
    return (super().shares() + uniform) / (1 + self.negatives)

  def candidates(
    self, users: np.ndarray, ends: np.ndarray, rng: np.random.Generator
  ) -> tuple[Ragged, np.ndarray]:
    """See `ListSource`; the positive is the first of its list."""
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
    histories, end = self.histories, self.train_ends[user]
    seen = np.unique(histories.rows[histories.offsets[user] : end])
    free = len(histories.items) - len(seen)
    count = min(self.negatives, free)
    positions = rng.choice(free, count, replace=False, shuffle=False)
    # Position to row: add the number of seen rows before the row.
    before = seen - np.arange(len(seen))
    rows = positions + np.searchsorted(before, positions, side="right")
    return rows.astype(np.int32)


def last_part(
  histories: Histories, share: float = 0.1, least: int = 2
) -> tuple[dict[str, Split], np.ndarray]:
  """Holds out a share of the last events of each user, as lists to be ranked.

  The last events are the list of "test", and as many before them that of "validation".
  The known events of "test" include the list of "validation".

  Args:
    histories: The histories of all users.
    share: The share of a user's events in each list, rounded down.
    least: The smallest number of events of a list; fewer than two are always in order.
      Users without that many left for training are in neither split; all their events
      train.

  Returns:
    See `histories.leave_out`.

  Raises:
    DataError: No user has enough events.
  """
  lengths = histories.lengths()
  sizes = np.maximum((lengths * share).astype(np.int64), least)
  user_rows = np.flatnonzero(lengths >= 2 * sizes + least)
  if not len(user_rows):
    raise DataError(
      f"no user has {3 * least} events, to hold out {least} twice and train on the"
      f" rest; the longest history has {lengths.max(initial=0)}: add events"
    )
  ends, sizes = histories.offsets[1:][user_rows], sizes[user_rows]
  splits = {
    "validation": Split(user_rows, ends - 2 * sizes, ends - sizes),
    "test": Split(user_rows, ends - sizes, ends),
  }
  return splits, splits["validation"].ends(histories)


def _at_most(lengths: np.ndarray, most: int | None) -> np.ndarray:
  return lengths if most is None else np.minimum(lengths, most)
