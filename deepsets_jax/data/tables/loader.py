"""Batches prepared in the background by Grain, which maps over step numbers.

Grain prefetches and keeps the position; the content of a step follows from its number
(see `batching`). It is fast because whole batches are mapped, not examples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grain
import jax

from deepsets_jax.data.tables.batching import (
  Batcher,
  Budget,
  EpochPlan,
  SequentialPlan,
  SetDropout,
  lengths_of,
)
from deepsets_jax.data.tables.table import Table

# One thread gathers while another waits for memory.
_READ = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)


def train_batches(
  table: Table,
  budget: Budget,
  shards: int,
  *,
  seed: int,
  total_steps: int,
  dropout: SetDropout | None = None,
) -> grain.DatasetIterator:
  """Returns an iterator over the training batches, with the shards of this process.

  Its `get_state` and `set_state` give the position in the data, for checkpoints.

  Args:
    table: The training examples.
    budget: The capacity of a shard.
    shards: Number of shards of a batch, over all processes.
    seed: Seed of the order.
    total_steps: Number of batches.
    dropout: What to drop at random; None for nothing.
  """
  steps = EpochPlan(lengths_of(table), len(table), budget, shards, seed)
  batcher = Batcher(table, budget, dropout)
  own = own_shards(shards)

  def batch(step: int):
    return batcher.batch(steps.rows(step)[own], step, own.start)

  return prefetch(batch, total_steps)


def prefetch(batch: Callable[[int], Any], steps: int) -> grain.DatasetIterator:
  """Returns an iterator over `batch(0)`, `batch(1)`, ..., made in the background."""
  return iter(grain.MapDataset.range(steps).map(batch).to_iter_dataset(_READ))


def evaluation_batches(
  table: Table, budget: Budget, shards: int
) -> grain.DatasetIterator:
  """Returns an iterator over batches that hold each row once, in order."""
  steps = SequentialPlan(lengths_of(table)(0), len(table), budget, shards)
  batcher = Batcher(table, budget)
  own = own_shards(shards)

  def batch(step: int):
    return batcher.batch(steps.rows(step)[own])

  return prefetch(batch, len(steps))


def own_shards(
  shards: int, process_index: int | None = None, process_count: int | None = None
) -> slice:
  """Returns the slice of the shards of a batch that this process gathers."""
  index = jax.process_index() if process_index is None else process_index
  count = jax.process_count() if process_count is None else process_count
  per_process = shards // count
  return slice(index * per_process, (index + 1) * per_process)
