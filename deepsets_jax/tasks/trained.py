"""Finished runs: loading them with their best parameters, and evaluating any table."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
from jaxtyping import PyTree

from deepsets_jax.data.datasets import registry
from deepsets_jax.data.tables.batching import Budget
from deepsets_jax.data.tables.schema import Schema
from deepsets_jax.data.tables.table import Table, blank
from deepsets_jax.foundation import extensions
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Batch
from deepsets_jax.tasks import defaults
from deepsets_jax.tasks.supervised import encodings
from deepsets_jax.tasks.supervised import run as runs
from deepsets_jax.training import evaluation, metrics, run_folder
from deepsets_jax.training.checkpoints import Checkpoints
from deepsets_jax.training.step import State

_SPLITS = ("train", "validation", "test")
# How to use a run, by its task.
_USED_BY = {
  "supervised": (
    "use experiments.predict or experiments.explain, and"
    " deepsets_jax.tasks.trained.load"
  ),
  "retrieval": (
    "use experiments.search or experiments.embed, and"
    " deepsets_jax.serving.searcher.Searcher"
  ),
}


@dataclasses.dataclass(frozen=True)
class Trained:
  """A run at its best checkpoint.

  Attributes:
    run: Data, model and compiled functions of the run.
    params: Parameters of the best checkpoint (the moving average if there is one).
    threshold: Probability above which a label is predicted. It is chosen on validation
      for multi-label and binary targets, and 0.5 for others.
  """

  run: runs.Run
  params: PyTree
  threshold: float
  _steps: dict[Any, Callable[..., Any]] = dataclasses.field(
    default_factory=dict, repr=False, compare=False
  )

  def logits(self, table: Table) -> np.ndarray:
    """Compute the logits `[b, k]` of any table with the run's schema.

    Examples that are larger than the run's budget are evaluated with a larger one.
    """
    return self.per_example(self.run.predict, table)

  def per_example(self, step: Callable[..., Any], table: Table) -> np.ndarray:
    """Compute a vector per example of a table, see `evaluation.predict`."""
    run, budget = self.run, enlarged_budget(self.run.budget, table)
    return evaluation.predict(step, self.params, table, budget, run.shards, run.mesh)

  def per_element(
    self, step: Callable[..., Any], table: Table
  ) -> dict[str, np.ndarray]:
    """Compute a value per element of a table, see `evaluation.predict_elements`."""
    run, budget = self.run, enlarged_budget(self.run.budget, table)
    return evaluation.predict_elements(
      step, self.params, table, budget, run.shards, run.mesh
    )

  def step(
    self, key: Any, shard_fn: Callable[[PyTree, Batch], PyTree]
  ) -> Callable[..., Any]:
    """Compile a function with `evaluation.shard_map_jit`, once per key."""
    if key not in self._steps:
      self._steps[key] = evaluation.shard_map_jit(shard_fn, self.run.mesh)
    return self._steps[key]

  def untrained(self, seed: int) -> Trained:
    """The same run with the random parameters that training with a seed starts from."""
    return dataclasses.replace(self, params=self.run.init(seed).eval_params)


def load_trained(workdir: str | pathlib.Path, schema: Schema | None = None) -> Trained:
  """Load a finished supervised run at its best checkpoint.

  Args:
    workdir: The run's folder.
    schema: Schema of the run's data. If it is given, the data is not read: each split
      holds one `blank` example, the threshold comes from `results.json`, and the shards
      are adapted to the number of devices.

  Raises:
    ConfigError: The folder holds no supervised run, or one without a checkpoint.
    DataError: The data of the run has changed.
  """
  workdir = pathlib.Path(workdir)
  config = read_config(workdir, "supervised")
  tables = None
  if schema is not None:
    tables = dict.fromkeys(_SPLITS, blank(schema))
    fit_devices(config)
  run = runs.build_run(config.lock(), tables)
  if schema is None and (found := registry.encoding(config.data, config.seed)):
    encodings.keep(found, workdir)  # Raises if the file has changed.
  higher = metrics.higher_is_better(run.config.train.metric)
  params = best_params(workdir, run.abstract_state, higher_is_better=higher)
  if schema is None:
    logits = run.logits(params, "validation")
    threshold = evaluation.choose_threshold(run.tables["validation"], logits)
  else:
    threshold = _threshold(workdir)
  return Trained(run, params, threshold)


def read_config(
  workdir: pathlib.Path, task: str | None = None
) -> ml_collections.ConfigDict:
  """Read the config of a run that has a checkpoint.

  Args:
    workdir: The run's folder.
    task: Task that the run must have, a value of `config.task`; None for any.

  Raises:
    ConfigError: There is no run, it has another task, or it has no checkpoint.
  """
  config, _ = defaults.upgrade(run_folder.read_config(workdir))
  config.unlock()
  found = _base_task(config.task)
  if task is not None and found != task:
    raise ConfigError(
      f"{workdir} is a run of task {found!r}, and task {task!r} is needed here:"
      f" {_USED_BY.get(found, 'use deepsets_jax.tasks.load')}"
    )
  folder = _checkpoints(workdir)
  if not folder.is_dir() or not any(folder.iterdir()):
    raise ConfigError(
      f"{workdir} has a config but no checkpoint: its run stopped before the first"
      " evaluation. Resume it with python -m experiments.main --config=FILE"
      f" --workdir={workdir}"
    )
  return config


def _base_task(name: str) -> str:
  """The task of the package that a task is, or that a task of a user's own extends."""
  if ":" not in name:
    return name
  return getattr(extensions.find("config.task", name, {}), "name", name)


def fit_devices(config: ml_collections.ConfigDict) -> None:
  """Fit the number of shards to the devices, with the same examples per shard."""
  shards = math.lcm(config.data.shards, jax.device_count())
  examples = config.data.batch_size // config.data.shards
  config.data.update(shards=shards, batch_size=examples * shards)


def best_params(
  workdir: pathlib.Path, state: State, *, higher_is_better: bool
) -> PyTree:
  """Load the parameters to evaluate from a run's best checkpoint.

  Args:
    workdir: The run's folder.
    state: Shapes, types and shardings of its state.
    higher_is_better: Whether a larger value of its metric is better.
  """
  folder = _checkpoints(workdir)
  with Checkpoints(folder, higher_is_better=higher_is_better) as checkpoints:
    _, loop_state = checkpoints.restore(state)
    best, _ = checkpoints.restore(state, loop_state.best_step)
  return best.eval_params


def _checkpoints(workdir: pathlib.Path) -> pathlib.Path:
  return workdir / "checkpoints"


def _threshold(workdir: pathlib.Path) -> float:
  """Read the threshold from the results of a finished run."""
  try:
    return float(json.loads((workdir / "results.json").read_text())["threshold"])
  except (OSError, ValueError, KeyError) as error:
    raise ConfigError(
      f"{workdir} has no results ({error}): its training has not ended. Resume it with"
      f" python -m experiments.main --config=FILE --workdir={workdir}"
    ) from error


def enlarged_budget(budget: Budget, table: Table) -> Budget:
  """The budget, with more slots for modalities whose largest example does not fit.

  Their numbers of slots are powers of two, so that few shapes are compiled.
  """
  slots = {}
  for name, room in budget.slots.items():
    largest = int(table.lengths(name).max())
    slots[name] = room if largest <= room else 1 << (largest - 1).bit_length()
  return Budget(budget.examples, slots)
