"""Batches of users, the items of their next events, and negative items."""

from __future__ import annotations

from collections.abc import Mapping

import flax.struct
import numpy as np
from jaxtyping import Array, Float, Int

from deepsets_jax.data.interactions import distinct
from deepsets_jax.data.interactions.distinct import pad
from deepsets_jax.data.interactions.next_item import NextItemExamples
from deepsets_jax.data.tables.batching import Budget, SetDropout
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Batch


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


class PairBatcher(distinct.ShardBatcher[Pairs]):
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
    shares = examples.shares()
    super().__init__(
      examples,
      budget,
      budget.examples + num_uniform_negatives,
      shares,
      tie_item_tower=tie_item_tower,
      item_slots=item_slots,
      dropout=dropout,
    )
    self._num_uniform = num_uniform_negatives
    self._log_expected = _log_expected(
      shares * budget.examples * in_batch, num_uniform_negatives / len(items)
    )

  def _shard(self, users: np.ndarray, ends: np.ndarray, step: int, index: int) -> Pairs:
    histories = self._source.histories
    batch = self._users(users, ends, step, index)
    positives = histories.rows[ends]
    rng = np.random.default_rng((self._source.seed, step, index, 2))
    negatives = rng.choice(
      len(histories.items), self._num_uniform, replace=False, shuffle=False
    )
    batch, rows = self._distinct(batch, [positives, negatives])
    return Pairs(
      users=batch,
      items=self._items.shard(rows),
      positives=pad(np.searchsorted(rows, positives), self._budget.examples, 0),
      negatives=np.searchsorted(rows, negatives).astype(np.int32),
      log_expected=pad(
        self._log_expected[rows], self.item_budget.examples, 0, np.float32
      ),
    )


def _log_expected(in_batch: np.ndarray, uniform: float) -> np.ndarray:
  """The log of the expected counts; items that never occur get the smallest."""
  expected = in_batch + uniform
  return np.log(np.maximum(expected, expected[expected > 0].min()))
