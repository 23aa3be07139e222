"""Cold items: items held out with all their events, to evaluate unseen items."""

from __future__ import annotations

import dataclasses

import numpy as np

from deepsets_jax.data.interactions.histories import Histories
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged, offsets_from_lengths


@dataclasses.dataclass(frozen=True)
class ColdSplit:
  """An evaluation whose targets are cold items, with the interface of `Split`.

  Attributes:
    user_rows: The users with an event of a cold item, increasing: `[q]`.
    known_ends: The end of the known events of each user: `[q]`.
    target_rows: The cold item of the target event of each user: `[q]`.
    cold_rows: All cold items, increasing.
  """

  user_rows: np.ndarray
  known_ends: np.ndarray
  target_rows: np.ndarray
  cold_rows: np.ndarray

  def known(self, histories: Histories) -> Ragged:
    """Returns the rows of the items in the known events of each user, by time."""
    begins = histories.offsets[:-1][self.user_rows]
    return histories.items_between(begins, self.known_ends)

  def targets(self, histories: Histories) -> Ragged:
    """Returns the row of the item to be found by each user: `q` lists of one."""
    del histories
    return Ragged(self.target_rows, np.arange(len(self.target_rows) + 1))


def hold_out(
  histories: Histories, share: float, seed: int
) -> tuple[Histories, ColdSplit]:
  """Removes the events of some items, and returns the split that evaluates these.

  The target of a user is the last event of a cold item; its earlier events of other
  items are known.

  Args:
    histories: The histories of all users.
    share: The share of the items that become cold, above 0 and below 1.
    seed: Seed of their choice.

  Returns:
    The histories without the events of cold items, and the split.

  Raises:
    ConfigError: `share` selects no item, or all of them.
  """
  count = round(share * len(histories.items))
  if not 0 < count < len(histories.items):
    raise ConfigError(
      f"config.data.histories.cold_items is {share}, {count} of"
      f" {len(histories.items)} items; expected a share of some but not all items"
    )
  rng = np.random.default_rng((seed, 3))
  cold_rows = np.sort(rng.choice(len(histories.items), count, replace=False))
  cold = np.isin(histories.rows, cold_rows)
  kept_before = offsets_from_lengths(~cold)
  events = np.flatnonzero(cold)
  users = np.searchsorted(histories.offsets, events, side="right") - 1
  last = np.append(np.diff(users) > 0, True)[: len(events)]
  split = ColdSplit(
    user_rows=users[last],
    known_ends=kept_before[events[last]],
    target_rows=histories.rows[events[last]],
    cold_rows=cold_rows,
  )
  kept = dataclasses.replace(
    histories,
    offsets=kept_before[histories.offsets],
    rows=histories.rows[~cold],
    times=histories.times[~cold],
    ratings=None if histories.ratings is None else histories.ratings[~cold],
  )
  return kept, split
