"""Items held out as a whole: what a model makes of an item that nobody came to yet."""

from __future__ import annotations

import dataclasses

import numpy as np

from deepsets_jax.data.interactions.histories import Histories
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged, offsets_from_lengths


@dataclasses.dataclass(frozen=True)
class ColdSplit:
  """An evaluation whose targets are cold items; used as `histories.Split`.

  Attributes:
    user_rows: The users that came to a cold item, `[q]`, in increasing order.
    known_ends: `[q]`, where the events end that each user is known by.
    target_rows: `[q]`, the cold item that each came to then.
    cold_rows: All cold items, in increasing order.
  """

  user_rows: np.ndarray
  known_ends: np.ndarray
  target_rows: np.ndarray
  cold_rows: np.ndarray

  def known(self, histories: Histories) -> Ragged:
    """Rows of the items that each user is known to have seen, by time: `q` lists."""
    begins = histories.offsets[:-1][self.user_rows]
    return histories.items_between(begins, self.known_ends)

  def targets(self, histories: Histories) -> Ragged:
    """Rows of the items to be found: `q` lists of one."""
    del histories
    return Ragged(self.target_rows, np.arange(len(self.target_rows) + 1))


def without(
  histories: Histories, share: float, seed: int
) -> tuple[Histories, ColdSplit]:
  """Histories without the events of some items, and the split that asks for these.

  Each user is asked for the last cold item that it came to, given what it came to
  before, cold items left out.

  Args:
    histories: Of all users.
    share: Of the items that become cold, above 0 and below 1.
    seed: Of which these are.

  Raises:
    ConfigError: Another share, or one of no item.
  """
  count = round(share * len(histories.items))
  if not 0 < count < len(histories.items):
    raise ConfigError(
      f"config.data.histories.cold_items is {share}, {count} of"
      f" {len(histories.items)} items; expected a share that is some and not all"
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
