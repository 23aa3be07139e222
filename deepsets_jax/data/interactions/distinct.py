"""The users and the distinct items of a shard: what recall and ranking batch alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from deepsets_jax.data.interactions.next_item import HISTORY
from deepsets_jax.data.tables import budgets
from deepsets_jax.data.tables.batching import Batcher, Budget, SetDropout
from deepsets_jax.data.tables.table import Table
from deepsets_jax.ragged import Batch

_DRAWS = 100
# Slots beyond what the largest of the draws took.
_SLACK = 1.1


class ItemBatcher:
  """Gathers distinct items into batches of one shape; of too large ones the elements.

  A shard in which they do not fit has its largest items cut: the longest lose their
  last elements.

  Attributes:
    budget: Of the items of a shard.
  """

  def __init__(
    self,
    items: Table,
    most: int,
    shares: np.ndarray,
    seed: int,
    slots: Mapping[str, int] | None = None,
  ):
    """The batcher.

    Args:
      items: All items.
      most: The most of them in a shard, which may be above their number.
      shares: How often each is asked for; of the sum 1.
      seed: Of the draws that a proposal is made of.
      slots: Of modalities; None for a proposal.
    """
    most = min(len(items), most)
    self._items = items
    self.budget = Budget(
      budgets.round_up(most), slots or _propose(items, most, shares, seed)
    )

  def shard(self, rows: np.ndarray) -> Batch:
    """The items of these rows, all different; their `indices` are the rows."""
    largest, fits = {}, True
    for name, slots in self.budget.slots.items():
      lengths = self._items.lengths_of(name, rows)
      largest[name] = longest(lengths, slots)
      fits &= largest[name] == lengths.max(initial=0)
    if fits:
      return Batcher(self._items, self.budget).shard(rows)
    table = self._items.select(rows)
    table = budgets.truncate(table, largest, "first", 0)[0]
    batch = Batcher(table, self.budget).shard(np.arange(len(rows)))
    return batch.replace(indices=padded(rows, self.budget.examples, -1))


def users(
  table: Table,
  rows: np.ndarray,
  budget: Budget,
  absence: SetDropout | None,
  step: int,
  index: int,
) -> Batch:
  """A shard of users before an event; their `indices` are rows of all users.

  Args:
    table: Of the users of the shard, see `prefixes.users_before`.
    rows: Of each in the table of all users.
    budget: Of the shard.
    absence: What is left out, by step and index of the shard, or None.
    step, index: Of the shard.
  """
  batch = Batcher(table, budget, absence).shard(np.arange(len(table)), step, index)
  return batch.replace(indices=padded(rows, budget.examples, -1))


def clicked(users: Batch) -> np.ndarray:
  """The values of the histories of users, end to end without the padding."""
  history = users.modalities[HISTORY]
  return history.values[: history.offsets[-1]]


def with_slots(users: Batch, distinct: np.ndarray) -> Batch:
  """The users, their histories not of rows of items but of places in `distinct`."""
  history = users.modalities[HISTORY]
  slots = np.searchsorted(distinct, clicked(users))
  history = history.replace(values=padded(slots, history.num_slots, 0))
  return users.replace(modalities={**users.modalities, HISTORY: history})


def longest(lengths: np.ndarray, slots: int) -> int:
  """How long lists may be for all of them to fit once the longer ones are cut.

  The largest length that is good, or that of the longest list where all fit.
  """
  ordered = np.sort(lengths)
  shorter = np.cumsum(ordered) - ordered
  # Cut to the i-th length, that list and all longer ones are alike.
  alike = np.arange(len(ordered), 0, -1)
  over = shorter + ordered * alike > slots
  if not over.any():
    return int(ordered[-1]) if len(ordered) else 0
  first = int(np.argmax(over))
  return int((slots - shorter[first]) // alike[first])


def padded(
  values: np.ndarray, size: int, fill: float, dtype: type = np.int32
) -> np.ndarray:
  """The values, then `fill` up to the size."""
  out = np.full(size, fill, dtype)
  out[: len(values)] = values
  return out


def _propose(items: Table, most: int, shares: np.ndarray, seed: int) -> dict[str, int]:
  """Slots by modality for any `most` distinct items, or what nearly all such take.

  Random items, and those that are asked for most, which often have more fields.
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
  """`most` different items, likely by their shares; all alike where these are 0."""
  # Efraimidis and Spirakis (2006): the first of the exponential arrivals.
  arrivals = rng.exponential(size=len(shares)) / (shares + 1e-3 / len(shares))
  return np.argpartition(arrivals, most - 1)[:most]
