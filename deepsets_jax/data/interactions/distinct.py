"""Users and distinct items of a shard, shared by the batches of pairs and lists."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from deepsets_jax.data.interactions.next_item import HISTORY
from deepsets_jax.data.tables import budgets
from deepsets_jax.data.tables.batching import Batcher, Budget, SetDropout
from deepsets_jax.data.tables.table import Table
from deepsets_jax.ragged import Batch

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


def user_batch(
  table: Table,
  rows: np.ndarray,
  budget: Budget,
  dropout: SetDropout | None,
  step: int,
  index: int,
) -> Batch:
  """Gathers a shard of users before an event; their `indices` are rows of all users.

  Args:
    table: The users of the shard, from `next_item.users_before`.
    rows: The row of each in the table of all users.
    budget: The capacity of the shard.
    dropout: What to drop at random; None for nothing.
    step: The training step, for dropout.
    index: The index of the shard, for dropout.
  """
  batch = Batcher(table, budget, dropout).shard(np.arange(len(table)), step, index)
  return batch.replace(indices=pad(rows, budget.examples, -1))


def history_values(users: Batch) -> np.ndarray:
  """Returns the values of the histories of users, end to end, without padding."""
  history = users.modalities[HISTORY]
  return history.values[: history.offsets[-1]]


def with_slots(users: Batch, rows: np.ndarray) -> Batch:
  """Replaces the item rows in the histories of users by their positions in `rows`."""
  history = users.modalities[HISTORY]
  slots = np.searchsorted(rows, history_values(users))
  history = history.replace(values=pad(slots, history.num_slots, 0))
  return users.replace(modalities={**users.modalities, HISTORY: history})


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
