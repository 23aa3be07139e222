"""Measures examples per second of the input pipeline, in one process.

  python -m benchmarks.input

Examples have 16 elements of 32 floats on average (geometric). As in training, batches
are shuffled, gathered, padded to the slot budget and prefetched.
"""

from __future__ import annotations

import time

import numpy as np

from deepsets_jax.data.tables import budgets, loader
from deepsets_jax.data.tables.batching import Budget
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.ragged import from_lengths

EXAMPLES, FEATURES, MEAN, BATCH = 100_000, 32, 16, 1024


def table(seed: int = 0) -> Table:
  """Draw random examples of one modality, with a binary target."""
  rng = np.random.default_rng(seed)
  lengths = rng.geometric(1 / MEAN, EXAMPLES)
  values = rng.standard_normal((lengths.sum(), FEATURES), np.float32)
  return Table(
    schema=Schema({"element": Modality("vectors", FEATURES)}, Target("binary", 1)),
    modalities={"element": from_lengths(values, lengths)},
    targets=rng.integers(0, 2, EXAMPLES).astype(np.float32),
    ids=np.arange(EXAMPLES).astype(np.str_),
  )


def examples_per_second(data: Table, steps: int = 200) -> float:
  """Measure the rate of the training iterator, after ten steps that are not timed."""
  budget = Budget(BATCH, budgets.propose({"train": data}, BATCH))
  batches = loader.train_batches(data, budget, 1, seed=0, total_steps=steps + 10)
  for _ in range(10):
    next(batches)
  start, examples = time.perf_counter(), 0
  for batch in batches:
    examples += int(batch.weights.sum())
  return examples / (time.perf_counter() - start)


def main() -> None:
  """Prints the median of five runs."""
  data = table()
  rates = [examples_per_second(data) for _ in range(5)]
  print(f"{np.median(rates):,.0f} examples/s (median of {len(rates)})")


if __name__ == "__main__":
  main()
