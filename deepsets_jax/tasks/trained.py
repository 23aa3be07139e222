"""A finished run, ready to be asked: its parts and its best parameters."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from jaxtyping import PyTree

from deepsets_jax.data.datasets import registry
from deepsets_jax.data.tables.batching import Budget
from deepsets_jax.data.tables.schema import Schema
from deepsets_jax.data.tables.table import Table, blank
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Batch
from deepsets_jax.tasks import defaults
from deepsets_jax.tasks.supervised import encodings
from deepsets_jax.tasks.supervised import run as runs
from deepsets_jax.training import evaluation, metrics, run_folder
from deepsets_jax.training.checkpoints import Checkpoints
from deepsets_jax.training.step import State

_SPLITS = ("train", "validation", "test")
# What to do with a run that was for something else, by its task.
_ASKED_BY = {
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
    run: Its parts.
    params: The parameters that are evaluated.
    threshold: Of multi-label and binary tasks, chosen on validation; 0.5 for others.
  """

  run: runs.Run
  params: PyTree
  threshold: float
  _steps: dict[Any, Callable[..., Any]] = dataclasses.field(
    default_factory=dict, repr=False, compare=False
  )

  def logits(self, table: Table) -> np.ndarray:
    """The logits of any table of the run's schema, `[b, k]`.

    A table with an example larger than the run's budget gets a larger one.
    """
    return self.per_example(self.run.predict, table)

  def per_example(self, step: Callable[..., Any], table: Table) -> np.ndarray:
    """A vector for every example of a table, see `evaluation.predict`."""
    run, budget = self.run, fitting(table, self.run.budget)
    return evaluation.predict(step, self.params, table, budget, run.shards, run.mesh)

  def per_element(
    self, step: Callable[..., Any], table: Table
  ) -> dict[str, np.ndarray]:
    """A number for every element of a table, see `evaluation.predict_elements`."""
    run, budget = self.run, fitting(table, self.run.budget)
    return evaluation.predict_elements(
      step, self.params, table, budget, run.shards, run.mesh
    )

  def step(
    self, key: Any, of_shard: Callable[[PyTree, Batch], PyTree]
  ) -> Callable[..., Any]:
    """The jitted function of `evaluation.shard_map_jit`, kept by key.

    So that what is asked twice is compiled once.
    """
    if key not in self._steps:
      self._steps[key] = evaluation.shard_map_jit(of_shard, self.run.mesh)
    return self._steps[key]

  def untrained(self, seed: int) -> Trained:
    """The same with random parameters of a seed, as before training."""
    return dataclasses.replace(self, params=self.run.init(seed).eval_params)


def load_trained(workdir: str | pathlib.Path, schema: Schema | None = None) -> Trained:
  """The run in a folder, at its best checkpoint.

  Args:
    workdir: The folder.
    schema: Of the run's data; the data itself is then not read, and of its splits there
      is one `blank` example. The threshold is that of `results.json`, and there are
      enough shards for any number of devices.

  Raises:
    ConfigError: The folder holds no supervised run, or one without a checkpoint.
    DataError: Its data is not as it was.
  """
  workdir = pathlib.Path(workdir)
  config = read_config(workdir, "supervised")
  with same_version(workdir):
    tables = None
    if schema is not None:
      tables = dict.fromkeys(_SPLITS, blank(schema))
      fit_devices(config)
    run = runs.build_run(config.lock(), tables)
  if schema is None and (found := registry.encoding(config.data, config.seed)):
    encodings.keep(found, workdir)  # Or raises.
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
  """The config of a run that has a checkpoint.

  Args:
    workdir: Its folder.
    task: What it must be for, a value of `config.task`; None for any.

  Raises:
    ConfigError: No run there, one that is for something else, or no checkpoint.
  """
  config, _ = defaults.upgrade(run_folder.read_config(workdir))
  config.unlock()
  found = config.task
  if task is not None and found != task:
    raise ConfigError(
      f"{workdir} is a run of task {found!r}, and this is for {task!r}:"
      f" {_ASKED_BY.get(found, 'use deepsets_jax.tasks.load')}"
    )
  folder = _checkpoints(workdir)
  if not folder.is_dir() or not any(folder.iterdir()):
    raise ConfigError(
      f"{workdir} has a config and no checkpoint: its run did not come to its first"
      " evaluation; go on with python -m experiments.main --config=FILE"
      f" --workdir={workdir}"
    )
  return config


@contextlib.contextmanager
def same_version(workdir: pathlib.Path) -> Iterator[None]:
  """Says so where the config of a run lacks a setting that there is by now."""
  try:
    yield
  except (AttributeError, KeyError) as error:  # By config.name or config["name"].
    raise ConfigError(
      f"{workdir} is of another version of this package: its config has no"
      f" {error.args[0]}; train it anew"
    ) from error


def fit_devices(config: ml_collections.ConfigDict) -> None:
  """Gives the config enough shards for the devices here, each as it was."""
  shards = math.lcm(config.data.shards, jax.device_count())
  examples = config.data.batch_size // config.data.shards
  config.data.update(shards=shards, batch_size=examples * shards)


def best_params(
  workdir: pathlib.Path, state: State, *, higher_is_better: bool
) -> PyTree:
  """The parameters that are evaluated, of a run's best checkpoint.

  Args:
    workdir: Folder of the run.
    state: Shapes of its state.
    higher_is_better: Of its metric.
  """
  folder = _checkpoints(workdir)
  with Checkpoints(folder, higher_is_better=higher_is_better) as checkpoints:
    _, position = checkpoints.restore(state)
    best, _ = checkpoints.restore(state, position.best_step)
  return best.eval_params


def _checkpoints(workdir: pathlib.Path) -> pathlib.Path:
  return workdir / "checkpoints"


def _threshold(workdir: pathlib.Path) -> float:
  """The threshold that a finished run has written."""
  try:
    return float(json.loads((workdir / "results.json").read_text())["threshold"])
  except (OSError, ValueError, KeyError) as error:
    raise ConfigError(
      f"{workdir} has no results ({error}): its training has not ended; go on with"
      f" python -m experiments.main --config=FILE --workdir={workdir}"
    ) from error


def fitting(table: Table, budget: Budget) -> Budget:
  """The budget, with more slots where an example has more elements.

  They are powers of two, so that few shapes are compiled.
  """
  slots = {}
  for name, room in budget.slots.items():
    largest = int(table.lengths(name).max())
    slots[name] = room if largest <= room else 1 << (largest - 1).bit_length()
  return Budget(budget.examples, slots)
