"""Batches of users and the items to rank for each, in lists of any length.

The lists come from a source of `lists`.
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.struct
import numpy as np
from jaxtyping import Array, Float

from deepsets_jax.data.interactions import distinct
from deepsets_jax.data.interactions.distinct import pad
from deepsets_jax.data.interactions.lists import CANDIDATES, ListSource
from deepsets_jax.data.tables.batching import Budget, SetDropout
from deepsets_jax.data.tables.table import take_elements
from deepsets_jax.ragged import Batch, Ragged


@flax.struct.dataclass
class Lists:
  """`b` users before an event, and the items to rank for each.

  Attributes:
    users: Their fields and HISTORY, whose values are rows in the table of items, or
      slots in `items` if the item tower is tied.
    items: The distinct items of the shard; `items.indices` are their rows, increasing,
      and -1 on padding.
    candidates: The list of each user, as slots in `items`: `[n]`.
    labels: The relevance of each candidate, at least 0; 0 on padding.
  """

  users: Batch
  items: Batch
  candidates: Ragged
  labels: Float[Array, "n"]


class ListBatcher(distinct.ShardBatcher[Lists]):
  """Gathers lists into `Lists` of one shape.

  If the candidates do not fit, the longest lists lose their last ones; see
  `max_candidates` of a source.
  """

  def __init__(
    self,
    source: ListSource,
    budget: Budget,
    *,
    tie_item_tower: bool,
    item_slots: Mapping[str, int] | None = None,
    dropout: SetDropout | None = None,
  ):
    """Initializes the batcher.

    Args:
      source: The lists.
      budget: The capacity of a shard of users, including their CANDIDATES.
      tie_item_tower: Whether histories use the vectors of the items of the batch.
      item_slots: {modality of items: slots of a shard}; None for a proposal.
      dropout: What to drop from users in training; None for nothing.
    """
    super().__init__(
      source,
      budget,
      budget.slots[CANDIDATES],
      source.shares(),
      tie_item_tower=tie_item_tower,
      item_slots=item_slots,
      dropout=dropout,
    )

  def _shard(self, users: np.ndarray, ends: np.ndarray, step: int, index: int) -> Lists:
    source, budget = self._source, self._budget
    batch = self._users(users, ends, step, index)
    rng = np.random.default_rng((source.seed, step, index, 3))
    candidates, labels = source.candidates(users, ends, rng)
    slots = budget.slots[CANDIDATES]
    keep = _positions(candidates) < distinct.longest_fitting(candidates.lengths, slots)
    candidates, labels = take_elements(candidates, keep), labels[keep]
    batch, rows = self._distinct(batch, [candidates.values])
    ends = candidates.offsets
    return Lists(
      users=batch,
      items=self._items.shard(rows),
      candidates=Ragged(
        pad(np.searchsorted(rows, candidates.values), slots, 0),
        # A user on padding has an empty list.
        pad(ends, budget.examples + 1, ends[-1]),
      ),
      labels=pad(labels, slots, 0, np.float32),
    )


def _positions(lists: Ragged) -> np.ndarray:
  """The position of each element in its list, from 0."""
  return np.arange(len(lists.values)) - np.repeat(lists.offsets[:-1], lists.lengths)
