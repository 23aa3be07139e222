"""Batches in the background, through Grain over step numbers.

Grain prefetches and remembers the position; what a step holds is worked out from its
number (`batching`). Mapping whole batches, not examples, is what makes it fast.
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

# One thread gathers while another waits for memory; batches ahead of the device.
_READ = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)


def train_batches(
  table: Table,
  budget: Budget,
  shards: int,
  *,
  seed: int,
  total_steps: int,
  absence: SetDropout | None = None,
) -> grain.DatasetIterator:
  """An iterator over the batches of all training steps, this process's shards.

  Its `get_state` and `set_state` are the data position, for a checkpoint.
  """
  steps = EpochPlan(lengths_of(table), len(table), budget, shards, seed)
  batcher = Batcher(table, budget, absence)
  own = own_shards(shards)

  def batch(step: int):
    return batcher.batch(steps.rows(step)[own], step, own.start)

  return ahead(batch, total_steps)


def ahead(batch: Callable[[int], Any], steps: int) -> grain.DatasetIterator:
  """An iterator over `batch(0)`, `batch(1)` and so on, made in the background."""
  return iter(grain.MapDataset.range(steps).map(batch).to_iter_dataset(_READ))


def evaluation_batches(
  table: Table, budget: Budget, shards: int
) -> grain.DatasetIterator:
  """An iterator over batches that hold each row once, this process's shards."""
  steps = SequentialPlan(lengths_of(table)(0), len(table), budget, shards)
  batcher = Batcher(table, budget)
  own = own_shards(shards)

  def batch(step: int):
    return batcher.batch(steps.rows(step)[own])

  return ahead(batch, len(steps))


def own_shards(
  shards: int, process_index: int | None = None, process_count: int | None = None
) -> slice:
  """The shards of a batch that this process gathers: an equal run of them."""
  index = jax.process_index() if process_index is None else process_index
  count = jax.process_count() if process_count is None else process_count
  per_process = shards // count
  return slice(index * per_process, (index + 1) * per_process)
