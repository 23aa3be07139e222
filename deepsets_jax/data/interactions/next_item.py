"""Users as they were before an event: their fields, and the history up to there.

What a model of clicks learns from is a history cut before each of its events. Nothing
of the event itself or after it is in the example.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from deepsets_jax.data.interactions.histories import Histories
from deepsets_jax.data.tables.schema import Modality, Schema
from deepsets_jax.data.tables.table import Table, element_slots, take_rows
from deepsets_jax.foundation.errors import ConfigError, DataError
from deepsets_jax.ragged import Ragged, offsets_from_lengths

HISTORY = "history"
_MINUTE = 60
EXAMPLES = ("prefixes", "users")


def schema(histories: Histories) -> Schema:
  """Of a user before an event: its fields, and HISTORY, tokens that are item rows.

  The tokens are ordered; their times are ages, see `users_before`.

  Raises:
    DataError: A field of users has the name of the history.
  """
  fields = histories.users.schema
  if HISTORY in fields.modalities:
    raise DataError(
      f"a field of users is called {HISTORY!r}, as their events are: give it another"
      " name, or leave it out of config.data.histories.user_fields"
    )
  history = Modality("tokens", len(histories.items), ordered=True, timed=True)
  return Schema({**fields.modalities, HISTORY: history}, fields.target)


def users_before(
  histories: Histories, users: np.ndarray, ends: np.ndarray, max_history: int
) -> Table:
  """Users as they were before some of their events.

  An age is log(1 + minutes) from an event to the latest that is known, so that it says
  nothing of what comes.

  Args:
    histories: Of all users.
    users: `[b]` rows of users; one may be there several times.
    ends: `[b]`, of each the first event that is not known, counted over all users.
    window: Of a longer history the latest so many events.

  Returns:
    A table of `schema`, in the order of `users`.
  """
  begins = np.maximum(histories.offsets[:-1][users], ends - max_history)
  lengths = ends - begins
  offsets = offsets_from_lengths(lengths)
  slots = element_slots(begins, lengths, offsets)
  latest = np.repeat(ends - 1, lengths)
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
  """The training examples of histories: a user, and an event to come.

  Attributes:
    histories: Of all users.
    train_ends: `[users]`: events of a user from here on are not trained on.
    window: See `users_before`.
    examples: "prefixes", every training event of every user in each epoch; or "users",
      in each epoch one event of each user, drawn anew. The former counts a user as
      often as it clicks, the latter once.
    seed: Of the draws.
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

  def __len__(self) -> int:
    """Number of examples of an epoch."""
    if self.examples == "prefixes":
      return int(self._firsts[-1])
    return len(self._active)

  def of_epoch(self, epoch: int, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The users of some examples, and the event that each is to come to: `[b]` each."""
    begins = self.histories.offsets[:-1]
    if self.examples == "prefixes":
      users = np.searchsorted(self._firsts, examples, side="right") - 1
      return users, begins[users] + examples - self._firsts[users]
    users = self._active[examples]
    draws = _draws(self.seed, epoch, len(self._active))[examples]
    counts = self.train_ends[users] - begins[users]
    return users, begins[users] + (draws * counts).astype(np.int64)

  def lengths(self, epoch: int) -> Mapping[str, np.ndarray]:
    """Number of elements of each example of an epoch, by modality."""
    users, ends = self.of_epoch(epoch, np.arange(len(self)))
    fields = self.histories.users
    known = np.minimum(ends - self.histories.offsets[:-1][users], self.max_history)
    return {
      **{name: fields.lengths_of(name, users) for name in fields.modalities},
      HISTORY: known,
    }

  def longest(self) -> int:
    """The most events that an example of any epoch is known by."""
    most = int(np.max(self.train_ends - self.histories.offsets[:-1]))
    return min(self.max_history, max(most - 1, 0))

  def shares(self) -> np.ndarray:
    """How often an item is what an example is to come to: `[items]`, the sum 1."""
    begins = self.histories.offsets[:-1]
    counts = self.train_ends - begins
    rows = self.histories.rows[element_slots(begins, counts, self._firsts)]
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


@functools.lru_cache(maxsize=2)  # Threads straddle at most two epochs.
def _draws(seed: int, epoch: int, count: int) -> np.ndarray:
  """A number in [0, 1) for each user, of an epoch."""
  return np.random.default_rng((seed, epoch, 1)).random(count)
