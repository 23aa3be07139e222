"""Users before an event: their fields, and their history up to the event.

The training examples are histories cut before each of their events. An example contains
nothing of the event itself or of later events.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from deepsets_jax.data.interactions.histories import Histories
from deepsets_jax.data.tables.schema import Modality, Schema
from deepsets_jax.data.tables.table import Table, slots_between, take_rows
from deepsets_jax.foundation.errors import ConfigError, DataError
from deepsets_jax.ragged import Ragged, offsets_from_lengths

HISTORY = "history"
_MINUTE = 60
EXAMPLES = ("prefixes", "users")


def schema(histories: Histories) -> Schema:
  """Returns the schema of a user before an event: its fields, and HISTORY.

  The elements of HISTORY are tokens, the rows of items. They are ordered, and their
  times are ages, see `users_before`.

  Raises:
    DataError: A field of users has the name of the history.
  """
  fields = histories.users.schema
  if HISTORY in fields.modalities:
    raise DataError(
      f"a field of users is called {HISTORY!r}, the name of their events: rename it, or"
      " leave it out of config.data.histories.user_fields"
    )
  history = Modality("tokens", len(histories.items), ordered=True, timed=True)
  return Schema({**fields.modalities, HISTORY: history}, fields.target)


def users_before(
  histories: Histories, users: np.ndarray, ends: np.ndarray, max_history: int
) -> Table:
  """Returns users as they were before some of their events.

  The age of an event is log(1 + minutes) up to the latest known event, so that it has
  no information about later events.

  Args:
    histories: The histories of all users.
    users: The rows of the users, `[b]`; a user may occur several times.
    ends: The first unknown event of each, counted over all users: `[b]`.
    max_history: Number of latest events to keep of a longer history.

  Returns:
    A table of `schema`, in the order of `users`.
  """
  begins = np.maximum(histories.offsets[:-1][users], ends - max_history)
  slots, offsets = slots_between(begins, ends)
  latest = np.repeat(ends - 1, ends - begins)
  minutes = (histories.times[latest] - histories.times[slots]) / _MINUTE
  history = Ragged(
    histories.rows[slots], offsets, times=np.log1p(minutes).astype(np.float32)
  )
  fields = histories.users
  return Table(
    schema=schema(histories),
    modalities={
      **{name: take_rows(v, users) for name, v in fields.modalities.items()},
      HISTORY: history,
    },
    targets=fields.targets[users],
    ids=fields.ids[users],
  )


@dataclasses.dataclass(frozen=True)
class NextItemExamples:
  """The training examples of histories: a user, and its next event.

  Attributes:
    histories: The histories of all users.
    train_ends: The end of the training events of each user: `[users]`.
    max_history: See `users_before`.
    examples: "prefixes", every training event of every user in each epoch; or "users",
      one event of each user, drawn again in each epoch. The former weights users by
      their events, the latter equally.
    seed: Seed of the draws.
  """

  histories: Histories
  train_ends: np.ndarray
  max_history: int
  examples: str
  seed: int

  def __post_init__(self):
    if self.examples not in EXAMPLES:
      raise ConfigError(
        f"unknown config.data.histories.examples {self.examples!r}; one of"
        f" {list(EXAMPLES)}"
      )
    if self.max_history < 1:
      raise ConfigError(
        f"config.data.histories.max_history is {self.max_history}; expected at least 1"
      )

  def schema(self) -> Schema:
    """Returns the schema of a user before an event."""
    return schema(self.histories)

  def users_before(self, users: np.ndarray, ends: np.ndarray) -> Table:
    """Returns users as they were before some of their events; see the function."""
    return users_before(self.histories, users, ends, self.max_history)

  def __len__(self) -> int:
    """Returns the number of examples of an epoch."""
    if self.examples == "prefixes":
      return int(self._firsts[-1])
    return len(self._active)

  def of_epoch(self, epoch: int, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the users of some examples, and the next event of each: `[b]` each."""
    begins = self.histories.offsets[:-1]
    if self.examples == "prefixes":
      users = np.searchsorted(self._firsts, examples, side="right") - 1
      return users, begins[users] + examples - self._firsts[users]
    users = self._active[examples]
    draws = _draws(self.seed, epoch, len(self._active))[examples]
    counts = self.train_ends[users] - begins[users]
    return users, begins[users] + (draws * counts).astype(np.int64)

  def lengths(self, epoch: int) -> Mapping[str, np.ndarray]:
    """Returns {modality: number of elements of each example of an epoch}."""
    users, ends = self.of_epoch(epoch, np.arange(len(self)))
    fields = self.histories.users
    known = np.minimum(ends - self.histories.offsets[:-1][users], self.max_history)
    return {
      **{name: fields.lengths_of(name, users) for name in fields.modalities},
      HISTORY: known,
    }

  def longest(self) -> int:
    """Returns the largest number of known events of an example of any epoch."""
    most = int(np.max(self.train_ends - self.histories.offsets[:-1]))
    return min(self.max_history, max(most - 1, 0))

  def shares(self) -> np.ndarray:
    """Returns the relative frequency of items as targets: `[items]`, with sum 1."""
    begins = self.histories.offsets[:-1]
    counts = self.train_ends - begins
    rows = self.histories.items_between(begins, self.train_ends).values
    each = np.repeat(1 / np.maximum(counts, 1), counts)
    weights = None if self.examples == "prefixes" else each
    found = np.bincount(rows, weights, minlength=len(self.histories.items))
    return found / found.sum()

  @functools.cached_property
  def _firsts(self) -> np.ndarray:
    """The first training event of each user among those of all: `[users + 1]`."""
    return offsets_from_lengths(self.train_ends - self.histories.offsets[:-1])

  @functools.cached_property
  def _active(self) -> np.ndarray:
    """The users that have training events."""
    return np.flatnonzero(np.diff(self._firsts))


@functools.lru_cache(maxsize=2)  # Threads work on at most two epochs at once.
def _draws(seed: int, epoch: int, count: int) -> np.ndarray:
  """A random number in [0, 1) for each user in an epoch."""
  return np.random.default_rng((seed, epoch, 1)).random(count)
