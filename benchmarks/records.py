"""Measures the rates of reading records, examples of a table, and batches of a table.

  python -m benchmarks.records

Three ways to read the same 5,000 programs in shuffled batches of 128: TFDS records that
are parsed one by one, Grain over the examples of a table, and Grain over batches of a
table, as in training. All of them return flat arrays and offsets of every modality.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np
import tensorflow_datasets as tfds

from deepsets_jax.data.datasets import builders, debian_programs
from deepsets_jax.data.tables import budgets, loader
from deepsets_jax.data.tables.batching import Budget
from deepsets_jax.data.tables.table import Table
from deepsets_jax.ragged import from_lengths

BATCH, REPEATS = 128, 5


def records(folder: str) -> Iterator[Any]:
  """Yield batches of TFDS records in random order; each record is parsed when read."""
  assert "debian_programs" in builders.BUILDERS  # Importing them registers them.
  source = tfds.data_source("debian_programs/seed0", split="train", data_dir=folder)
  names = [n for n, f in source[0].items() if isinstance(f, np.ndarray) and f.ndim]
  order = np.random.default_rng(0).permutation(len(source))
  for begin in range(0, len(order) - BATCH, BATCH):
    found = [source[int(row)] for row in order[begin : begin + BATCH]]
    yield {name: _flat([example[name] for example in found]) for name in names}


def examples(table: Table) -> Iterator[Any]:
  """Yield batches of Grain over the examples of a table."""

  def example(row: int) -> dict[str, np.ndarray]:
    return {
      name: column.values[column.offsets[row] : column.offsets[row + 1]]
      for name, column in table.modalities.items()
    }

  def batch(found: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    return {name: _flat([each[name] for each in found]) for name in found[0]}

  dataset = grain.MapDataset.range(len(table)).shuffle(seed=0).map(example)
  yield from dataset.batch(BATCH, drop_remainder=True, batch_fn=batch)


def batches(table: Table) -> Iterator[Any]:
  """Yield batches as in training."""
  budget = Budget(BATCH, budgets.propose({"train": table}, BATCH))
  steps = len(table) // BATCH
  yield from loader.train_batches(table, budget, 1, seed=0, total_steps=steps)


def _flat(arrays: list[np.ndarray]) -> Any:
  return from_lengths(np.concatenate(arrays), np.array([len(a) for a in arrays]))


def rate(read: Callable[[], Iterator[Any]]) -> float:
  """Measure examples per second, the median of several passes."""
  found = []
  for _ in range(REPEATS):
    start = time.perf_counter()
    number = sum(1 for _ in read())
    found.append(number * BATCH / (time.perf_counter() - start))
  return float(np.median(found))


def main() -> None:
  """Prints the three rates, and their ratios to the slowest."""
  table = debian_programs.load_debian_programs(0, text="bag")["train"]
  with tempfile.TemporaryDirectory() as folder:
    builder = tfds.builder("debian_programs/seed0", data_dir=folder)
    with contextlib.redirect_stdout(sys.stderr):
      builder.download_and_prepare()
    rates = {
      "records of TFDS": rate(lambda: records(folder)),
      "Grain, examples": rate(lambda: examples(table)),
      "Grain, batches (ours)": rate(lambda: batches(table)),
    }
  slowest = min(rates.values())
  for name, found in rates.items():
    print(f"{name:22} {found:12,.0f} examples/s  {found / slowest:6.1f}x")


if __name__ == "__main__":
  main()
