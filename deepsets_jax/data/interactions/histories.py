"""Users, items and the events between them, for retrieval and ranking.

An event is a click, a rating or a purchase: a user, an item, a time, and perhaps a
rating. The history of a user is its events by time. Users and items are the examples of
one table each, with any fields. For evaluation, the last events of each user are held
out: they are the targets, to be found from the events before them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from deepsets_jax.data.tables.table import Table, slots_between
from deepsets_jax.foundation.errors import ConfigError, DataError
from deepsets_jax.ragged import Ragged, offsets_from_lengths


@dataclasses.dataclass(frozen=True)
class Histories:
  """All users, all items, and each user's events by time.

  A user without events has an empty history, and an item may have no events.

  Attributes:
    users: The fields of the users, with a target of kind "none".
    items: The fields of the items, with a target of kind "none".
    offsets: Where the events of each user begin, `[users + 1]` int64.
    rows: The row in `items` of each event, `[n]` int32.
    times: The time of each event in seconds since 1970, `[n]` int64.
    ratings: The rating of each event, `[n]` float32; None for clicks.
  """

  users: Table
  items: Table
  offsets: np.ndarray
  rows: np.ndarray
  times: np.ndarray
  ratings: np.ndarray | None

  def lengths(self) -> np.ndarray:
    """Returns the number of events of each user, `[users]` int64."""
    return np.diff(self.offsets)

  def items_between(self, begins: np.ndarray, ends: np.ndarray) -> Ragged:
    """Returns the item rows of `q` runs of events, `begins[i]` to before `ends[i]`."""
    slots, offsets = slots_between(begins, ends)
    return Ragged(self.rows[slots], offsets)

  def popularity(self, ends: np.ndarray) -> np.ndarray:
    """Returns the number of events of each item, `[items]` int64.

    Events of a user from `ends[user]` on are not counted.
    """
    counted = self.items_between(self.offsets[:-1], ends).values
    return np.bincount(counted, minlength=len(self.items))

  def validate(self, where: str) -> Histories:
    """Checks every value, and returns the histories themselves.

    Args:
      where: The name of the data in messages, such as a file.

    Raises:
      DataError: A table is not valid, or has a target; offsets do not fit users or
        events; an item does not exist; events of a user are out of order; a rating is
        not finite. The message names the event and the user.
    """
    for name, table in (("users", self.users), ("items", self.items)):
      table.validate(f"{where}, {name}")
      if table.schema.target.kind != "none":
        kind = repr(table.schema.target.kind)
        raise DataError(
          f"{where}, {name}: a target of kind {kind}; expected 'none', and modalities"
        )
    _check_offsets(self, where)
    columns = {"times": self.times, "ratings": self.ratings}
    _check_lengths(columns, len(self.rows), where)
    good = (self.rows >= 0) & (self.rows < len(self.items))
    problem = f"item row {{}} is not one of the {len(self.items)} items"
    self._check(good, self.rows, problem, where)
    falls = np.diff(self.times, prepend=self.times[:1]) < 0
    # The first event of a user may be earlier than the last of the previous user.
    falls[self.offsets[:-1][self.lengths() > 0]] = False
    problem = "time {} is before that of the event before; use histories.of_events"
    self._check(~falls, self.times, problem, where)
    if self.ratings is not None:
      problem = "rating {} is not finite; leave the event out, or the ratings"
      self._check(np.isfinite(self.ratings), self.ratings, problem, where)
    return self

  def _check(
    self, good: np.ndarray, values: np.ndarray, problem: str, where: str
  ) -> None:
    """Raises an error for the first bad event; `problem` has `{}` for its value."""
    if not good.all():
      event = int(np.argmin(good))
      user = int(np.searchsorted(self.offsets, event, side="right")) - 1
      raise DataError(
        f"{where}: event {event - int(self.offsets[user])} of user"
        f" {str(self.users.ids[user])!r} (row {user}):"
        f" {problem.format(values[event].item())}"
      )


@dataclasses.dataclass(frozen=True)
class Split:
  """One evaluation: the known events of each user, and the targets to be found.

  Attributes:
    user_rows: The users that have targets, `[q]`, increasing.
    known_ends: The known events of user `u = user_rows[i]` are those from `offsets[u]`
      to before `known_ends[i]`: `[q]` int64.
    target_ends: Its targets are the events from there to before `target_ends[i]`.
  """

  user_rows: np.ndarray
  known_ends: np.ndarray
  target_ends: np.ndarray

  def known(self, histories: Histories) -> Ragged:
    """Returns the rows of the items in the known events of each user, by time."""
    begins = histories.offsets[:-1][self.user_rows]
    return histories.items_between(begins, self.known_ends)

  def targets(self, histories: Histories) -> Ragged:
    """Returns the rows of the items to be found by each user: `q` lists."""
    return histories.items_between(self.known_ends, self.target_ends)

  def ends(self, histories: Histories) -> np.ndarray:
    """Returns where the known events of every user end, `[users]`."""
    ends = histories.offsets[1:].copy()
    ends[self.user_rows] = self.known_ends
    return ends


def of_events(
  users: Table,
  items: Table,
  user_rows: np.ndarray,
  item_rows: np.ndarray,
  times: np.ndarray,
  ratings: np.ndarray | None = None,
  *,
  where: str,
) -> tuple[Histories, dict[str, int]]:
  """Builds histories from a log of events in any order, which may be empty.

  Events of one user at one time stay in the order of the log; if they have the same
  item, too, only the first stays.

  Args:
    users: All users, with or without events.
    items: All items, with or without events.
    user_rows: The row in `users` of each event, `[n]` integers.
    item_rows: The row in `items` of each event, `[n]` integers.
    times: The time of each event in whole seconds since 1970, integers or floats.
    ratings: The rating of each event, finite; or None.
    where: The name of the log in messages.

  Returns:
    The histories; and how many events were "duplicates", which are left out, and
    "out_of_order", that is, earlier than the event of their user before them.

  Raises:
    DataError: Columns differ in length, or a row, time or rating is not valid. The
      message names the event by its position in the log, from 0.
  """
  columns = {"item rows": item_rows, "times": times, "ratings": ratings}
  _check_lengths(columns, len(user_rows), where)
  user_rows = _rows(user_rows, len(users), "user", where)
  item_rows = _rows(item_rows, len(items), "item", where)
  times = _seconds(times, where)
  order, repaired = _order(user_rows, item_rows, times)
  counts = np.bincount(user_rows[order], minlength=len(users))
  histories = Histories(
    users=users,
    items=items,
    offsets=offsets_from_lengths(counts),
    rows=item_rows[order].astype(np.int32),
    times=times[order],
    ratings=None if ratings is None else _finite(ratings, where)[order],
  )
  return histories, repaired


def leave_out(
  histories: Histories, held_out: int = 1
) -> tuple[dict[str, Split], np.ndarray]:
  """Holds out the last events of each user by time, for example leave-one-out.

  The last `held_out` events are the targets of "test", those before them the targets of
  "validation". The known events of "test" include the targets of "validation". Users
  with fewer than `2 * held_out + 1` events are in neither; all their events train.

  Args:
    histories: The histories of all users.
    held_out: Number of events of each user in each of the two splits.

  Returns:
    The splits "validation" and "test"; and where the training events of each user end,
    `[users]` int64.

  Raises:
    ConfigError: `held_out` below 1.
    DataError: No user has enough events.
  """
  if held_out < 1:
    raise ConfigError(f"held_out {held_out}: expected at least 1")
  lengths, needed = histories.lengths(), 2 * held_out + 1
  user_rows = np.flatnonzero(lengths >= needed)
  if not len(user_rows):
    raise DataError(
      f"no user has {needed} events, to hold out {held_out} for each of two splits;"
      f" the longest history has {lengths.max(initial=0)}: hold out fewer events"
    )
  ends = histories.offsets[1:][user_rows]
  splits = {
    "validation": Split(user_rows, ends - 2 * held_out, ends - held_out),
    "test": Split(user_rows, ends - held_out, ends),
  }
  return splits, splits["validation"].ends(histories)


def _rows(rows: np.ndarray, count: int, what: str, where: str) -> np.ndarray:
  """The rows as int64, after a check that they are rows of the table."""
  rows = np.asarray(rows)
  if rows.size and not np.issubdtype(rows.dtype, np.integer):
    raise DataError(
      f"{where}: {what} rows of type {rows.dtype}, expected integers; give rows of"
      f" {what}s, not ids"
    )
  problem = f"{what} row {{}} is not one of the {count} {what}s"
  _check_log((rows >= 0) & (rows < count), rows, problem, where)
  return rows.astype(np.int64)


def _seconds(times: np.ndarray, where: str) -> np.ndarray:
  times = np.asarray(times)
  if np.issubdtype(times.dtype, np.floating):
    # Above 2**53 a float is no longer exact to the second.
    whole = (np.abs(times) < 2**53) & (times == np.floor(times))
    problem = "time {} is not a whole number of seconds since 1970; round it"
    _check_log(whole, times, problem, where)
  elif not np.issubdtype(times.dtype, np.integer):
    raise DataError(
      f"{where}: times of type {times.dtype}, expected whole seconds since 1970"
    )
  return times.astype(np.int64)


def _finite(ratings: np.ndarray, where: str) -> np.ndarray:
  ratings = np.asarray(ratings)
  finite = np.abs(ratings) <= np.finfo(np.float32).max
  _check_log(finite, ratings, "rating {} is not finite; leave it out", where)
  return ratings.astype(np.float32)


def _order(
  users: np.ndarray, items: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, dict[str, int]]:
  """The events to keep, by user and time, and the counts that `of_events` returns."""
  by_user = np.argsort(users, kind="stable")
  late = (np.diff(users[by_user]) == 0) & (np.diff(times[by_user]) < 0)
  # Each sort is stable: among equal events the first in the log comes first.
  grouped = np.lexsort((items, times, users))
  same = [np.diff(column[grouped]) == 0 for column in (users, items, times)]
  first = np.ones(len(users), bool)
  first[grouped[1:]] = ~np.all(same, axis=0)
  order = np.lexsort((times, users))
  order = order[first[order]]
  counts = {"duplicates": len(users) - len(order), "out_of_order": int(late.sum())}
  return order, counts


def _check_lengths(
  columns: Mapping[str, np.ndarray | None], events: int, where: str
) -> None:
  for name, column in columns.items():
    if column is not None and len(column) != events:
      raise DataError(f"{where}: {len(column)} {name} for {events} events")


def _check_log(good: np.ndarray, values: np.ndarray, problem: str, where: str) -> None:
  if not good.all():
    event = int(np.argmin(good))
    value = values[event].item()
    raise DataError(f"{where}: event {event}: {problem.format(value)}")


def _check_offsets(histories: Histories, where: str) -> None:
  offsets, users = histories.offsets, len(histories.users)
  if len(offsets) != users + 1:
    raise DataError(
      f"{where}: {len(offsets)} offsets for {users} users, expected one more"
    )
  events = len(histories.rows)
  if offsets[0] != 0 or offsets[-1] != events:
    raise DataError(
      f"{where}: offsets run from {offsets[0]} to {offsets[-1]}, expected 0 to the"
      f" number of events, {events}"
    )
  if (lengths := histories.lengths()).min() < 0:
    row = int(np.argmin(lengths))
    raise DataError(
      f"{where}: offsets decrease at user {str(histories.users.ids[row])!r} (row {row})"
    )
