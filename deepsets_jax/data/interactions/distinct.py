"""Users and distinct items of a shard, shared by the batches of pairs and lists."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from deepsets_jax.data.interactions.next_item import HISTORY
from deepsets_jax.data.tables import budgets
from deepsets_jax.data.tables.batching import Batcher, Budget, SetDropout
from deepsets_jax.data.tables.table import Table
from deepsets_jax.ragged import Batch, stack

_Shard = TypeVar("_Shard")

_DRAWS = 100
# Slots of a proposal, relative to the largest draw.
_SLACK = 1.1


class ItemBatcher:
  """Gathers distinct items into batches of one shape.

  If the items of a shard do not fit, the longest lose their last elements.

  Attributes:
    budget: The capacity of a shard of items.
  """

  def __init__(
    self,
    items: Table,
    most: int,
    shares: np.ndarray,
    seed: int,
    slots: Mapping[str, int] | None = None,
  ):
    """Initializes the batcher.

    Args:
      items: All items.
      most: The largest number of items of a shard; it may exceed that of all items.
      shares: The relative frequency of each item in batches, with sum 1.
      seed: Seed of the draws for a proposal of slots.
      slots: {modality: slots of a shard}; None for a proposal.
    """
    most = min(len(items), most)
    self._items = items
    self.budget = Budget(
      budgets.round_up(most), slots or _propose(items, most, shares, seed)
    )

  def shard(self, rows: np.ndarray) -> Batch:
    """Gathers the items of these distinct rows, which become their `indices`."""
    largest, fits = {}, True
    for name, slots in self.budget.slots.items():
      lengths = self._items.lengths_of(name, rows)
      largest[name] = longest_fitting(lengths, slots)
      fits &= largest[name] == lengths.max(initial=0)
    if fits:
      return Batcher(self._items, self.budget).shard(rows)
    table = self._items.select(rows)
    table = budgets.truncate(table, largest, "first", 0)[0]
    batch = Batcher(table, self.budget).shard(np.arange(len(rows)))
    return batch.replace(indices=pad(rows, self.budget.examples, -1))


class ShardBatcher(Generic[_Shard], abc.ABC):
  """Gathers users before an event, and the distinct items of a shard.

  Args:
    source: The training examples.
    budget: The capacity of a shard of users.
    most: The largest number of distinct items of a shard, without those of histories.
    shares: The relative frequency of each item in shards, with sum 1.
    tie_item_tower: Whether histories use the vectors of the items of the shard.
    item_slots: {modality of items: slots of a shard}; None for a proposal.
    dropout: What to drop from users in training; None for nothing.
  """

  def __init__(
    self,
    source: Any,
    budget: Budget,
    most: int,
    shares: np.ndarray,
    *,
    tie_item_tower: bool,
    item_slots: Mapping[str, int] | None,
    dropout: SetDropout | None,
  ):
    self._source, self._budget = source, budget
    self._tied, self._dropout = tie_item_tower, dropout
    most += budget.slots[HISTORY] if tie_item_tower else 0
    items = source.histories.items
    self._items = ItemBatcher(items, most, shares, source.seed, item_slots)

  @property
  def item_budget(self) -> Budget:
    """The capacity of a shard of items."""
    return self._items.budget

  def batch(
    self, epoch: int, rows: Sequence[np.ndarray], step: int, first_shard: int
  ) -> _Shard:
    """Gathers a batch `[s, ...]`.

    Args:
      epoch: The epoch.
      rows: The examples of each of the `s` shards.
      step: The training step, for random numbers.
      first_shard: Index of the first of these shards over all processes, likewise.
    """
    shards = []
    for index, examples in enumerate(rows, start=first_shard):
      users, ends = self._source.of_epoch(epoch, examples)
      shards.append(self._shard(users, ends, step, index))
    return stack(shards)

  @abc.abstractmethod
  def _shard(
    self, users: np.ndarray, ends: np.ndarray, step: int, index: int
  ) -> _Shard:
    """Gathers the shard of this index; `users` and `ends` are those of `of_epoch`."""

  def _users(self, users: np.ndarray, ends: np.ndarray, step: int, index: int) -> Batch:
    """Gathers users before an event; their `indices` are rows of all users."""
    table = self._source.users_before(users, ends)
    batcher = Batcher(table, self._budget, self._dropout)
    batch = batcher.shard(np.arange(len(table)), step, index)
    return batch.replace(indices=pad(users, self._budget.examples, -1))

  def _distinct(
    self, users: Batch, rows: Sequence[np.ndarray]
  ) -> tuple[Batch, np.ndarray]:
    """The users, and the distinct rows of the items of the shard, increasing.

    With a tied item tower these include the items of histories, whose values become
    positions among them.
    """
    if not self._tied:
      return users, np.unique(np.concatenate(rows))
    history = users.modalities[HISTORY]
    values = history.values[: history.offsets[-1]]
    found = np.unique(np.concatenate([*rows, values]))
    slots = pad(np.searchsorted(found, values), history.num_slots, 0)
    history = history.replace(values=slots)
    return users.replace(modalities={**users.modalities, HISTORY: history}), found


def longest_fitting(lengths: np.ndarray, slots: int) -> int:
  """Returns the largest length to which lists can be cut so that all of them fit.

  If all lists fit uncut, it is the length of the longest.
  """
  ordered = np.sort(lengths)
  shorter = np.cumsum(ordered) - ordered
  # If all are cut to the i-th length, that list and all longer ones have it.
  cut = np.arange(len(ordered), 0, -1)
  over = shorter + ordered * cut > slots
  if not over.any():
    return int(ordered[-1]) if len(ordered) else 0
  first = int(np.argmax(over))
  return int((slots - shorter[first]) // cut[first])


def pad(
  values: np.ndarray, size: int, fill: float, dtype: type = np.int32
) -> np.ndarray:
  """Returns the values, padded with `fill` to the size."""
  out = np.full(size, fill, dtype)
  out[: len(values)] = values
  return out


def _propose(items: Table, most: int, shares: np.ndarray, seed: int) -> dict[str, int]:
  """Proposes {modality: slots} that hold nearly all sets of `most` distinct items.

  Half of the draws are uniform, half by frequency: frequent items often have more
  fields.
  """
  rng = np.random.default_rng(seed)
  draws = []
  if most < len(items):
    draws = [_draw(rng, shares * (i % 2), most) for i in range(_DRAWS)]
  slots = {}
  for name in items.modalities:
    lengths = items.lengths(name)
    wanted = int(lengths.sum())
    if draws:
      largest = max(lengths[draw].sum() for draw in draws)
      wanted = min(wanted, max(int(_SLACK * largest), int(lengths.max())))
    slots[name] = budgets.round_up(wanted)
  return slots


def _draw(rng: np.random.Generator, shares: np.ndarray, most: int) -> np.ndarray:
  """Draws `most` distinct items by their shares; uniformly if these are 0."""
  # Efraimidis and Spirakis (2006): the first of exponential arrivals.
  arrivals = rng.exponential(size=len(shares)) / (shares + 1e-3 / len(shares))
  return np.argpartition(arrivals, most - 1)[:most]
