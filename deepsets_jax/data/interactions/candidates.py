"""Batches of users and the items to rank for each: lists of any length, none included.

Where the lists come from, see `list_sources`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.struct
import numpy as np
from jaxtyping import Array, Float

from deepsets_jax.data.interactions import distinct
from deepsets_jax.data.interactions.distinct import padded
from deepsets_jax.data.interactions.lists import CANDIDATES, Source
from deepsets_jax.data.interactions.next_item import HISTORY
from deepsets_jax.data.tables.batching import Budget, SetDropout
from deepsets_jax.data.tables.table import take_elements
from deepsets_jax.ragged import Batch, Ragged, stack


@flax.struct.dataclass
class Lists:
  """`b` users before an event, and the items to rank for each.

  Attributes:
    users: Their fields and HISTORY, whose values are rows in the table of items, or
      slots in `items` where towers are shared.
    items: What is known of the distinct items that this takes; their rows are
      `items.indices`, increasing, -1 on padding.
    candidates: Of each user its list, slots in `items` `[n]`.
    labels: Of each candidate how much it is wanted, from 0; 0 on padding.
  """

  users: Batch
  items: Batch
  candidates: Ragged
  labels: Float[Array, "n"]


class ListBatcher:
  """Gathers lists into `Lists` of one shape.

  Where candidates do not fit, the longest lists lose their last ones; see the room of a
  source.
  """

  def __init__(
    self,
    source: Source,
    budget: Budget,
    *,
    tie_item_tower: bool,
    item_slots: Mapping[str, int] | None = None,
    absence: SetDropout | None = None,
  ):
    """The batcher.

    Args:
      source: The lists.
      budget: Of the users of a shard and of their CANDIDATES.
      shared: Whether histories are made of the vectors of the batch's items.
      item_slots: Slots of the items' modalities; None for a proposal.
      absence: What is left out of users in training, or None.
    """
    self._source, self._budget = source, budget
    self._shared, self._absence = tie_item_tower, absence
    history = budget.slots[HISTORY] if tie_item_tower else 0
    self._items = distinct.ItemBatcher(
      source.histories.items,
      budget.slots[CANDIDATES] + history,
      source.shares(),
      source.seed,
      item_slots,
    )

  @property
  def item_budget(self) -> Budget:
    """Of the items of a shard."""
    return self._items.budget

  def batch(
    self, epoch: int, rows: Sequence[np.ndarray], step: int, first_shard: int
  ) -> Lists:
    """Lists `[s, ...]`, those of `rows` for each shard of a step of an epoch."""
    shards = []
    for index, lists in enumerate(rows, start=first_shard):
      users, ends = self._source.of_epoch(epoch, lists)
      shards.append(self._shard(users, ends, step, index))
    return stack(shards)

  def _shard(self, users: np.ndarray, ends: np.ndarray, step: int, index: int) -> Lists:
    source, budget = self._source, self._budget
    table = source.users_before(users, ends)
    batch = distinct.users(table, users, budget, self._absence, step, index)
    rng = np.random.default_rng((source.seed, step, index, 3))
    candidates, labels = source.candidates(users, ends, rng)
    slots = budget.slots[CANDIDATES]
    keep = _places(candidates) < distinct.longest(candidates.lengths, slots)
    candidates, labels = take_elements(candidates, keep), labels[keep]
    parts = [candidates.values]
    if self._shared:
      parts.append(distinct.clicked(batch))
    rows = np.unique(np.concatenate(parts))
    if self._shared:
      batch = distinct.with_slots(batch, rows)
    ends = candidates.offsets
    return Lists(
      users=batch,
      items=self._items.shard(rows),
      candidates=Ragged(
        padded(np.searchsorted(rows, candidates.values), slots, 0),
        # A user that is only padding has an empty list.
        padded(ends, budget.examples + 1, ends[-1]),
      ),
      labels=padded(labels, slots, 0, np.float32),
    )


def _places(lists: Ragged) -> np.ndarray:
  """The place of each element in its list, from 0 (host)."""
  return np.arange(len(lists.values)) - np.repeat(lists.offsets[:-1], lists.lengths)
