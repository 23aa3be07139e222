"""Batches of users, the items of their next events, and negative items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.struct
import numpy as np
from jaxtyping import Array, Float, Int

from deepsets_jax.data.interactions import distinct
from deepsets_jax.data.interactions.distinct import pad
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
  """`b` users before an event, and the `c` distinct items of the shard.

  Attributes:
    users: Their fields and HISTORY, whose values are rows in the table of items, or
      slots in `items` if the item tower is tied.
    items: The items; `items.indices` are their rows, increasing, and -1 on padding.
    positives: The slot of the item of each user's next event: `[b]`.
    negatives: The slots of distinct items that are drawn uniformly: `[u]`.
    log_expected: The log of the expected count of each item among the positives and
      negatives of a shard, `[c]`: the Q of the correction in `retrieval.softmax`.
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
    examples: NextItemExamples,
    budget: Budget,
    *,
    num_uniform_negatives: int,
    in_batch: bool,
    tie_item_tower: bool,
    item_slots: Mapping[str, int] | None = None,
    dropout: SetDropout | None = None,
  ):
    """Initializes the batcher.

    Args:
      examples: The training examples.
      budget: The capacity of a shard of users.
      num_uniform_negatives: Number of uniform negatives of a shard, `u`.
      in_batch: Whether the positives of the other users of a shard are negatives.
      tie_item_tower: Whether histories use the vectors of the items of the batch.
      item_slots: {modality of items: slots of a shard}; None for a proposal.
      dropout: What to drop from users in training; None for nothing.

    Raises:
      ConfigError: There are more uniform negatives than items, or no negatives at all.
    """
    items = examples.histories.items
    if not 0 <= num_uniform_negatives <= len(items):
      raise ConfigError(
        f"config.retrieval.num_uniform_negatives is {num_uniform_negatives}; expected 0"
        f" to {len(items)}, the number of items"
      )
    if not (num_uniform_negatives or in_batch):
      raise ConfigError(
        "config.retrieval has neither in_batch nor uniform negatives; set one or both"
      )
    self._examples, self._budget, self._dropout = examples, budget, dropout
    self._num_uniform, self._tied = num_uniform_negatives, tie_item_tower
    history = budget.slots[HISTORY] if tie_item_tower else 0
    shares = examples.shares()
    most = budget.examples + num_uniform_negatives + history
    self._items = distinct.ItemBatcher(items, most, shares, examples.seed, item_slots)
    self._log_expected = _log_expected(
      shares * budget.examples * in_batch, num_uniform_negatives / len(items)
    )

  @property
  def item_budget(self) -> Budget:
    """The capacity of a shard of items."""
    return self._items.budget

  def batch(
    self, epoch: int, rows: Sequence[np.ndarray], step: int, first_shard: int
  ) -> Pairs:
    """Gathers the examples `rows` of each shard of a step: `Pairs` of `[s, ...]`."""
    shards = []
    for index, some in enumerate(rows, start=first_shard):
      users, ends = self._examples.of_epoch(epoch, some)
      shards.append(self._shard(users, ends, step, index))
    return stack(shards)

  def _shard(self, users: np.ndarray, ends: np.ndarray, step: int, index: int) -> Pairs:
    examples, budget = self._examples, self._budget
    table = users_before(examples.histories, users, ends, examples.max_history)
    batch = distinct.user_batch(table, users, budget, self._dropout, step, index)
    positives = examples.histories.rows[ends]
    rng = np.random.default_rng((examples.seed, step, index, 2))
    negatives = rng.choice(
      len(examples.histories.items), self._num_uniform, replace=False, shuffle=False
    )
    parts = [positives, negatives]
    if self._tied:
      parts.append(distinct.history_values(batch))
    rows = np.unique(np.concatenate(parts))
    if self._tied:
      batch = distinct.with_slots(batch, rows)
    slots = np.searchsorted(rows, positives)
    return Pairs(
      users=batch,
      items=self._items.shard(rows),
      positives=pad(slots, budget.examples, 0),
      negatives=np.searchsorted(rows, negatives).astype(np.int32),
      log_expected=pad(
        self._log_expected[rows], self.item_budget.examples, 0, np.float32
      ),
    )


def _log_expected(in_batch: np.ndarray, uniform: float) -> np.ndarray:
  """The log of the expected counts; items that never occur get the smallest."""
  expected = in_batch + uniform
  return np.log(np.maximum(expected, expected[expected > 0].min()))
