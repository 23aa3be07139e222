"""Models with random parameters on digit sets, for tests of the analysis."""

import dataclasses
import functools

import numpy as np

from configs import smoke
from deepsets_jax.data.tables.ablation import keep_modalities
from deepsets_jax.data.tables.table import Table
from deepsets_jax.ragged import Ragged
from deepsets_jax.tasks.supervised import run as runs
from deepsets_jax.tasks.trained import Trained

POOLS = ("sum", "mean", "max", "min", "logsumexp", "softmax", "var", "std")
MODELS = {
  "max": ("set_pool", {"pools": ("max",)}),
  "mean": ("set_pool", {"pools": ("mean",)}),
  "every pool": (
    "set_pool",
    {"pools": POOLS, "normalize": True, "use_size": True},
  ),
  "concat": ("concat", {"placeholder": "learned"}),
  "mil": ("mil", {}),
  "set_transformer": ("set_transformer", {"layers": 1}),
  "single_stream": ("single_stream", {"layers": 1}),
}


@functools.cache
def untrained(name: str) -> Trained:
  """One of the models, at random parameters."""
  fusion, settings = MODELS[name]
  config = smoke.get_config(fusion)
  config.data.digits.update(train_examples=64, max_size=5)
  config.data.update(batch_size=64, shards=8)
  config.model.update(features=8)
  config.model.dense.hidden = (8,)
  config.model.head.hidden = (8,)
  config.model[fusion].update(settings)
  run = runs.build_run(config)
  return Trained(run, run.init(1).eval_params, 0.5)


def few(trained: Trained, rows: int = 12) -> Table:
  """Some test examples, the last of them without any element."""
  table = trained.run.tables["test"].select(np.arange(rows))
  return emptied(table, rows - 1)


def emptied(table: Table, row: int) -> Table:
  """The table with one example emptied of all elements."""
  keep = np.ones((len(table), len(table.schema.modalities)), bool)
  keep[row] = False
  return keep_modalities(table, keep)


def weighted(table: Table, weights: dict[str, np.ndarray]) -> Table:
  """The table with these weights on its elements, though none are declared."""
  modalities = {
    name: Ragged(ragged.values, ragged.offsets, weights[name].astype(np.float32))
    for name, ragged in table.modalities.items()
  }
  return dataclasses.replace(table, modalities=modalities)
