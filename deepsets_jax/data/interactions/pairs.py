"""Batches of users, the items they came to next, and the items to tell these from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.struct
import numpy as np
from jaxtyping import Array, Float, Int

from deepsets_jax.data.interactions import distinct
from deepsets_jax.data.interactions.distinct import padded
from deepsets_jax.data.interactions.next_item import (
  HISTORY,
  NextItemExamples,
  users_before,
)
from deepsets_jax.data.tables.batching import Budget, SetDropout
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Batch, stack


@flax.struct.dataclass
class Pairs:
  """`b` users before an event, and the `c` distinct items that this takes.

  Attributes:
    users: Their fields and HISTORY, whose values are rows in the table of items, or
      slots in `items` where towers are shared.
    items: What is known of the items; their rows are `items.indices`, increasing, -1 on
      padding.
    positives: `[b]`, the slot of the item that each user came to.
    negatives: `[u]`, the slots of items that were drawn uniformly, all different.
    log_expected: `[c]`, the log of how often an item is expected among the positives
      and negatives of a shard: the Q of the correction, see `recall.softmax`.
  """

  users: Batch
  items: Batch
  positives: Int[Array, "b"]
  negatives: Int[Array, "u"]
  log_expected: Float[Array, "c"]


class PairBatcher:
  """Gathers examples into `Pairs` of one shape."""

  def __init__(
    self,
    prefixes: NextItemExamples,
    budget: Budget,
    *,
    num_uniform_negatives: int,
    in_batch: bool,
    tie_item_tower: bool,
    item_slots: Mapping[str, int] | None = None,
    absence: SetDropout | None = None,
  ):
    """The batcher.

    Args:
      prefixes: The examples.
      budget: Of the users of a shard.
      uniform: `u`.
      in_batch: Whether the items of a shard's other users are candidates.
      shared: Whether histories are made of the vectors of the batch's items.
      item_slots: Slots of the items' modalities; None for a proposal.
      absence: What is left out of users in training, or None.

    Raises:
      ConfigError: More uniform negatives than there are items, or none of any kind.
    """
    items = prefixes.histories.items
    if not 0 <= num_uniform_negatives <= len(items):
      raise ConfigError(
        f"config.retrieval.num_uniform_negatives is {num_uniform_negatives}; there"
        f" are {len(items)} items to draw from"
      )
    if not (num_uniform_negatives or in_batch):
      raise ConfigError(
        "config.retrieval: neither in_batch nor uniform negatives; take one or both"
      )
    self._prefixes, self._budget = prefixes, budget
    self._uniform, self._shared, self._absence = (
      num_uniform_negatives,
      tie_item_tower,
      absence,
    )
    history = budget.slots[HISTORY] if tie_item_tower else 0
    shares = prefixes.shares()
    most = budget.examples + num_uniform_negatives + history
    self._items = distinct.ItemBatcher(items, most, shares, prefixes.seed, item_slots)
    self._log_expected = _log_expected(
      shares * budget.examples * in_batch, num_uniform_negatives / len(items)
    )

  @property
  def item_budget(self) -> Budget:
    """Of the items of a shard."""
    return self._items.budget

  def batch(
    self, epoch: int, rows: Sequence[np.ndarray], step: int, first_shard: int
  ) -> Pairs:
    """Pairs `[s, ...]` of the examples `rows` of each shard of a step of an epoch."""
    shards = []
    for index, examples in enumerate(rows, start=first_shard):
      users, ends = self._prefixes.of_epoch(epoch, examples)
      shards.append(self._shard(users, ends, step, index))
    return stack(shards)

  def _shard(self, users: np.ndarray, ends: np.ndarray, step: int, index: int) -> Pairs:
    prefixes, budget = self._prefixes, self._budget
    table = users_before(prefixes.histories, users, ends, prefixes.max_history)
    batch = distinct.users(table, users, budget, self._absence, step, index)
    positives = prefixes.histories.rows[ends]
    rng = np.random.default_rng((prefixes.seed, step, index, 2))
    negatives = rng.choice(
      len(prefixes.histories.items), self._uniform, replace=False, shuffle=False
    )
    parts = [positives, negatives]
    if self._shared:
      parts.append(distinct.clicked(batch))
    rows = np.unique(np.concatenate(parts))
    if self._shared:
      batch = distinct.with_slots(batch, rows)
    slots = np.searchsorted(rows, positives)
    return Pairs(
      users=batch,
      items=self._items.shard(rows),
      positives=padded(slots, budget.examples, 0),
      negatives=np.searchsorted(rows, negatives).astype(np.int32),
      log_expected=padded(
        self._log_expected[rows], self.item_budget.examples, 0, np.float32
      ),
    )


def _log_expected(in_batch: np.ndarray, num_uniform_negatives: float) -> np.ndarray:
  """The log of the sum; of an item that is never a candidate, of the least there is."""
  expected = in_batch + num_uniform_negatives
  return np.log(np.maximum(expected, expected[expected > 0].min()))
