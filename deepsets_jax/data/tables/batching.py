"""Batches of the rows of a table, in numpy: which rows, and their elements end to end.

The rows of a step are a pure function of seed and step. So training resumes without any
saved state, and every process computes the same plan and takes its own shards.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from deepsets_jax.data.tables.table import Table, element_slots
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Batch, Ragged, offsets_from_lengths, stack


@dataclasses.dataclass(frozen=True)
class Budget:
  """The capacity of one shard of a batch, which is its compiled shape.

  Attributes:
    examples: The number of examples, `b`.
    slots: {modality: the number of elements, `n`}.
  """

  examples: int
  slots: Mapping[str, int]

  def __post_init__(self):
    for name, slots in self.slots.items():
      if slots > np.iinfo(np.int32).max:
        raise ConfigError(
          f"{slots} slots of {name!r} in one shard: offsets are int32; lower"
          f" config.data.budgets.{name}, or take more shards"
        )


def plan(
  lengths: Mapping[str, np.ndarray], order: np.ndarray, budget: Budget
) -> np.ndarray:
  """Splits rows into shards greedily: a shard ends when any of its slots are full.

  Args:
    lengths: {modality: number of elements of each row}; no row is over the budget.
    order: The rows, in the order to take them.
    budget: The capacity of a shard.

  Returns:
    Where shards begin in `order`: increasing, the first 0 and the last `len(order)`.

  Raises:
    ConfigError: A row alone is over the budget.
  """
  ends = np.minimum(np.arange(len(order)) + budget.examples, len(order))
  for name, length in lengths.items():
    total = offsets_from_lengths(length[order])
    full = np.searchsorted(total, total[:-1] + budget.slots[name], side="right") - 1
    ends = np.minimum(ends, full)
  if (ends <= np.arange(len(order))).any():
    row = order[np.argmax(ends <= np.arange(len(order)))]
    raise ConfigError(f"row {row} is over the budget {budget}; see budgets.check")
  bounds, ends = [0], ends.tolist()
  while bounds[-1] < len(order):
    bounds.append(ends[bounds[-1]])
  return np.array(bounds)


# epoch -> {modality: number of elements of each example}.
Lengths = Callable[[int], Mapping[str, np.ndarray]]


def lengths_of(table: Table) -> Lengths:
  """Returns the lengths of a table, the same in every epoch."""
  lengths = {name: table.lengths(name) for name in table.modalities}
  return lambda epoch: lengths


class EpochPlan:
  """The rows of each training step, with every epoch shuffled by seed and epoch.

  The last step of an epoch, which is not full, is dropped unless it is the only one.

  Args:
    lengths: Number of elements of each example, by epoch.
    examples: Number of examples of an epoch.
    budget: The capacity of a shard.
    shards: Number of shards of a step.
    seed: Seed of the order.
  """

  def __init__(
    self, lengths: Lengths, examples: int, budget: Budget, shards: int, seed: int
  ):
    self._lengths, self._examples = lengths, examples
    self._budget, self._shards, self._seed = budget, shards, seed
    self._first_steps = [0]  # Of every planned epoch and the next.
    self._latest: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    self._lock = threading.Lock()  # Prefetching threads call concurrently.

  def rows(self, step: int) -> list[np.ndarray]:
    """Returns the rows of each shard of a step; steps count from 0."""
    return self.epoch_and_rows(step)[1]

  def epoch_and_rows(self, step: int) -> tuple[int, list[np.ndarray]]:
    """Returns the epoch of a step, and the rows of each of its shards."""
    with self._lock:
      while self._first_steps[-1] <= step:
        epoch = len(self._first_steps) - 1
        bounds = self._plan(epoch)[1]
        steps = max((len(bounds) - 1) // self._shards, 1)
        self._first_steps.append(self._first_steps[-1] + steps)
      epoch = int(np.searchsorted(self._first_steps, step, side="right")) - 1
      order, bounds = self._plan(epoch)
    first = (step - self._first_steps[epoch]) * self._shards
    return epoch, _shard_rows(order, bounds, first, self._shards)

  def steps_per_epoch(self) -> int:
    """Returns the number of steps of the first epoch; others may differ slightly."""
    self.rows(0)
    return self._first_steps[1]

  def _plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    if epoch not in self._latest:
      order = np.random.default_rng((self._seed, epoch)).permutation(self._examples)
      # Threads work on at most two epochs at once; older plans are no longer needed.
      self._latest = {k: v for k, v in self._latest.items() if k == epoch - 1}
      self._latest[epoch] = (order, plan(self._lengths(epoch), order, self._budget))
    return self._latest[epoch]


class SequentialPlan:
  """The rows of each evaluation step: every row once, in order, the last step padded.

  Args:
    lengths: {modality: number of elements of each row}.
    examples: Number of rows.
    budget: The capacity of a shard.
    shards: Number of shards of a step.
  """

  def __init__(
    self, lengths: Mapping[str, np.ndarray], examples: int, budget: Budget, shards: int
  ):
    self._order = np.arange(examples)
    self._bounds = plan(lengths, self._order, budget)
    self._shards = shards

  def __len__(self) -> int:
    return -(-(len(self._bounds) - 1) // self._shards)

  def rows(self, step: int) -> list[np.ndarray]:
    """Returns the rows of each shard of a step; shards that only pad it have none."""
    return _shard_rows(self._order, self._bounds, step * self._shards, self._shards)


def _shard_rows(
  order: np.ndarray, bounds: np.ndarray, first: int, shards: int
) -> list[np.ndarray]:
  """The rows of shards `first` to `first + shards`; none past the last shard."""
  edges = np.minimum(np.arange(first, first + shards + 1), len(bounds) - 1)
  positions = bounds[edges]
  return [order[a:z] for a, z in itertools.pairwise(positions)]


@dataclasses.dataclass(frozen=True)
class SetDropout:
  """Random removal of modalities and elements from training examples.

  What is dropped is truly absent, without a placeholder. It depends only on the seed,
  the step and the shard.

  Attributes:
    modality_rate: Probability of dropping a modality of an example as a whole, in
      [0, 1). One of those present, chosen at random, always stays.
    element_rate: Probability of dropping each element, in [0, 1).
    seed: The seed.
  """

  modality_rate: float
  element_rate: float
  seed: int

  def __post_init__(self):
    for name in ("modality_rate", "element_rate"):
      if not 0 <= getattr(self, name) < 1:
        raise ConfigError(f"{name} {getattr(self, name)}: expected a number in [0, 1)")


class Batcher:
  """Gathers rows of a table into batches of one shape.

  Args:
    table: The examples.
    budget: The capacity of a shard.
    dropout: What to drop at random in training; None for nothing.
  """

  def __init__(self, table: Table, budget: Budget, dropout: SetDropout | None = None):
    self._table, self._budget, self._dropout = table, budget, dropout

  def batch(
    self, rows: Sequence[np.ndarray], step: int = 0, first_shard: int = 0
  ) -> Batch:
    """Gathers a batch `[s, ...]`.

    Args:
      rows: The rows of each of the `s` shards.
      step: The training step, for dropout.
      first_shard: Index of the first of these shards over all processes, for dropout.
    """
    return stack(
      [self.shard(mine, step, first_shard + i) for i, mine in enumerate(rows)]
    )

  def shard(self, rows: np.ndarray, step: int = 0, index: int = 0) -> Batch:
    """Gathers one shard of a batch: that of this index in a step."""
    rng = None
    if self._dropout is not None:
      rng = np.random.default_rng((self._dropout.seed, step, index))
    table, b = self._table, self._budget.examples
    targets = np.zeros((b, *table.targets.shape[1:]), table.targets.dtype)
    targets[: len(rows)] = table.targets[rows]
    present = self._present(rows, rng)
    return Batch(
      modalities={
        name: self._modality(name, rows, present[name], rng)
        for name in table.modalities
      },
      targets=targets,
      weights=(np.arange(b) < len(rows)).astype(np.float32),
      indices=np.pad(rows, (0, b - len(rows)), constant_values=-1).astype(np.int32),
    )

  def _present(
    self, rows: np.ndarray, rng: np.random.Generator | None
  ) -> dict[str, np.ndarray | None]:
    """{modality: whether each row keeps it}; None if all rows do."""
    names = list(self._table.modalities)
    if rng is None or not self._dropout.modality_rate:
      return dict.fromkeys(names)
    nonempty = np.stack([self._table.lengths_of(name, rows) > 0 for name in names])
    # A draw above the rate keeps a modality; the largest draw always does.
    draws = np.where(nonempty, rng.random(nonempty.shape), -1.0)
    keep = (draws >= self._dropout.modality_rate) | (draws == draws.max(0))
    return dict(zip(names, keep, strict=True))

  def _modality(
    self,
    name: str,
    rows: np.ndarray,
    present: np.ndarray | None,
    rng: np.random.Generator | None,
  ) -> Ragged:
    column, n = self._table.modalities[name], self._budget.slots[name]
    starts = column.offsets[:-1][rows]
    lengths = column.offsets[1:][rows] - starts
    if present is not None:
      lengths = np.where(present, lengths, 0)
    offsets = np.zeros(self._budget.examples + 1, np.int64)
    np.cumsum(lengths, out=offsets[1 : len(rows) + 1])
    offsets[len(rows) + 1 :] = offsets[len(rows)]
    slots = element_slots(starts, lengths, offsets[: len(rows) + 1])
    if rng is not None and self._dropout.element_rate:
      keep = rng.random(len(slots)) >= self._dropout.element_rate
      slots, offsets = slots[keep], offsets_from_lengths(keep)[offsets]
    return Ragged(
      values=_gather(column.values, slots, n),
      offsets=offsets.astype(np.int32),
      weights=None if column.weights is None else _gather(column.weights, slots, n),
      times=None if column.times is None else _gather(column.times, slots, n),
    )


def _gather(values: np.ndarray, slots: np.ndarray, n: int) -> np.ndarray:
  """The elements in these slots, padded with zeros to `n` elements."""
  out = np.zeros((n, *values.shape[1:]), values.dtype)
  # Slots are in range by construction. "clip" lets numpy write without a buffer.
  np.take(values, slots, axis=0, out=out[: len(slots)], mode="clip")
  return out
