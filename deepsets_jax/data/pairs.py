"""Batches of users, the items they came to next, and the items to tell these from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.struct
import numpy as np
from jaxtyping import Array, Float, Int

from deepsets_jax.data import budgets
from deepsets_jax.data.batching import Absence, Batcher, Budget
from deepsets_jax.data.prefixes import HISTORY, Prefixes, users_before
from deepsets_jax.data.table import Table
from deepsets_jax.ragged import Batch, stack

_DRAWS = 100
# Slots beyond what the largest of the draws took.
_SLACK = 1.1


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
    prefixes: Prefixes,
    budget: Budget,
    *,
    uniform: int,
    in_batch: bool,
    shared: bool,
    item_slots: Mapping[str, int] | None = None,
    absence: Absence | None = None,
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
      ValueError: More uniform negatives than there are items, or none of any kind.
    """
    items = prefixes.histories.items
    if not 0 <= uniform <= len(items):
      raise ValueError(
        f"config.recall.uniform is {uniform}; there are {len(items)} items to draw from"
      )
    if not (uniform or in_batch):
      raise ValueError(
        "config.recall: neither in_batch nor uniform negatives; take one or both"
      )
    self._prefixes, self._items, self._budget = prefixes, items, budget
    self._uniform, self._shared, self._absence = uniform, shared, absence
    history = budget.slots[HISTORY] if shared else 0
    most = min(len(items), budget.examples + uniform + history)
    if item_slots is None:
      item_slots = _propose(items, most, prefixes.seed)
    self.item_budget = Budget(budgets.rounded(most), item_slots)
    self._log_expected = _log_expected(
      prefixes.shares() * budget.examples * in_batch, uniform / len(items)
    )

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
    table = users_before(prefixes.histories, users, ends, prefixes.window)
    batcher = Batcher(table, budget, self._absence)
    batch = batcher.shard(np.arange(len(users)), step, index)
    batch = batch.replace(indices=_padded(users, budget.examples, -1))
    positives = prefixes.histories.rows[ends]
    rng = np.random.default_rng((prefixes.seed, step, index, 2))
    negatives = rng.choice(
      len(self._items), self._uniform, replace=False, shuffle=False
    )
    history = batch.modalities[HISTORY]
    clicked = history.values[: history.offsets[-1] * self._shared]
    distinct = np.unique(np.concatenate([positives, negatives, clicked]))
    if self._shared:
      slots = _padded(np.searchsorted(distinct, clicked), history.num_slots, 0)
      history = history.replace(values=slots)
      batch = batch.replace(modalities={**batch.modalities, HISTORY: history})
    slots = np.searchsorted(distinct, positives)
    return Pairs(
      users=batch,
      items=self._item_batch(distinct),
      positives=_padded(slots, budget.examples, 0),
      negatives=np.searchsorted(distinct, negatives).astype(np.int32),
      log_expected=_padded(
        self._log_expected[distinct], self.item_budget.examples, 0, np.float32
      ),
    )

  def _item_batch(self, rows: np.ndarray) -> Batch:
    table = self._items
    largest = self._largest(rows)
    if largest is None:
      return Batcher(table, self.item_budget).shard(rows)
    table = budgets.truncate(table.select(rows), largest, "first", 0)[0]
    batch = Batcher(table, self.item_budget).shard(np.arange(len(rows)))
    return batch.replace(indices=_padded(rows, self.item_budget.examples, -1))

  def _largest(self, rows: np.ndarray) -> dict[str, int] | None:
    """How many elements an item may have for all to fit; None where all do."""
    caps, fits = {}, True
    for name, slots in self.item_budget.slots.items():
      lengths = self._items.lengths_of(name, rows)
      cap = int(lengths.max(initial=0))
      while np.minimum(lengths, cap).sum() > slots:
        cap, fits = cap * 9 // 10, False
      caps[name] = cap
    return None if fits else caps


def _propose(items: Table, most: int, seed: int) -> dict[str, int]:
  """Slots by modality for any `most` distinct items, or what nearly all such take.

  A batch that does not fit has its largest items cut.
  """
  slots = {}
  for name in items.modalities:
    lengths = items.lengths(name)
    wanted = int(lengths.sum())
    if most < len(items):
      rng = np.random.default_rng(seed)
      draws = [
        lengths[rng.choice(len(items), most, replace=False, shuffle=False)].sum()
        for _ in range(_DRAWS)
      ]
      wanted = min(wanted, max(int(_SLACK * max(draws)), int(lengths.max())))
    slots[name] = budgets.rounded(wanted)
  return slots


def _log_expected(in_batch: np.ndarray, uniform: float) -> np.ndarray:
  """The log of the sum; of an item that is never a candidate, of the least there is."""
  expected = in_batch + uniform
  return np.log(np.maximum(expected, expected[expected > 0].min()))


def _padded(
  values: np.ndarray, size: int, fill: float, dtype: type = np.int32
) -> np.ndarray:
  out = np.full(size, fill, dtype)
  out[: len(values)] = values
  return out
