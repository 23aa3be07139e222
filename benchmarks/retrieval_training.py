"""Measures the training rate of two towers, up to a million items.

  python -m benchmarks.retrieval_training

Clicks are random, and more frequent for popular items. Items have five tokens each and,
in a second measurement, ids, whose embeddings the optimizer updates at every step.
Batches of 512 users are gathered during the previous step, as in training. The first
steps, which compile, are not timed. It takes about two minutes on two cores.
"""

from __future__ import annotations

import time

import jax
import numpy as np

from benchmarks.timing import peak_memory_gb
from configs import movielens_retrieval
from deepsets_jax.data.interactions import histories
from deepsets_jax.data.interactions.catalog import ItemCatalog
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.ragged import Ragged, from_lengths
from deepsets_jax.tasks.retrieval.task import RetrievalTask
from deepsets_jax.training import sharding

ITEMS = (1_682, 10_000, 100_000, 1_000_000)
USERS, EVENTS, TOKENS, VOCABULARY = 2_000, 60, 5, 10_000
WARM_UP, STEPS = 2, 8


def clicks(items: int) -> ItemCatalog:
  """Draw random users, items and events."""
  rng = np.random.default_rng(0)
  nothing = Target("none", 0)
  empty = Ragged(np.zeros(0, np.int32), np.zeros(USERS + 1, np.int64))
  users = Table(
    Schema({"field": Modality("tokens", 1)}, nothing),
    {"field": empty},
    np.zeros((USERS, 0), np.float32),
    np.arange(USERS).astype(str),
  )
  tokens = rng.integers(0, VOCABULARY, items * TOKENS).astype(np.int32)
  ids = np.arange(items).astype(str)
  table = Table(
    Schema({"token": Modality("tokens", VOCABULARY)}, nothing),
    {"token": from_lengths(tokens, np.full(items, TOKENS))},
    np.zeros((items, 0), np.float32),
    ids,
  )
  rows = (items * rng.random(USERS * EVENTS) ** 3).astype(np.int64)
  found, _ = histories.of_events(
    users,
    table,
    np.repeat(np.arange(USERS), EVENTS),
    rows,
    np.arange(USERS * EVENTS),
    where="benchmark",
  )
  return ItemCatalog(found, ids, {})


def measure(source: ItemCatalog, ids: bool) -> dict[str, float]:
  """Train for a few steps, with or without item ids.

  Returns:
    The number of "parameters", "examples" per second, and "peak_gb", the peak memory of
    the process so far.
  """
  config = movielens_retrieval.get_config("text")
  config.total_steps = WARM_UP + STEPS
  config.optim.warmup_steps = 1
  config.data.histories.update(
    user_fields=(), item_fields=("token",), id_events=1 if ids else None
  )
  task = RetrievalTask.build(config.lock(), source)
  state = task.init()
  batches, step = task.train_batches(), task.compile_step()
  for number, batch in enumerate(batches):
    if number == WARM_UP:
      begin = time.perf_counter()
    state, metrics = step(state, sharding.put(batch, task.mesh))
    jax.block_until_ready(metrics)
  seconds = time.perf_counter() - begin
  return {
    "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    "examples": STEPS * config.data.batch_size / seconds,
    "peak_gb": peak_memory_gb(),
  }


def main() -> None:
  """Prints a Markdown table."""
  print("| items | item features | parameters | examples/s | peak memory, GB |")
  print("|---|---|---|---|---|")
  for items in ITEMS:
    source = clicks(items)
    for ids, label in ((False, "tokens"), (True, "tokens and ids")):
      row = measure(source, ids)
      print(
        f"| {items:,} | {label} | {row['parameters']:,} | {row['examples']:,.0f} |"
        f" {row['peak_gb']:.2f} |"
      )


if __name__ == "__main__":
  main()
