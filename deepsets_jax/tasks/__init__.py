"""Tasks: supervised learning on sets, retrieval of items, ranking of candidates."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import ml_collections
from jaxtyping import PyTree

from deepsets_jax.foundation import extensions
from deepsets_jax.tasks import defaults, trained
from deepsets_jax.tasks.ranking.task import RankingTask
from deepsets_jax.tasks.retrieval.task import RetrievalTask
from deepsets_jax.tasks.supervised.task import SupervisedTask
from deepsets_jax.training.task import Task

# By config.task.
TASKS: Mapping[str, type[Task]] = {
  "supervised": SupervisedTask,
  "ranking": RankingTask,
  "retrieval": RetrievalTask,
}


def build_task(config: ml_collections.ConfigDict) -> Task:
  """Build the task of a config: load its data and build its functions.

  Raises:
    ConfigError: A setting is unknown, or does not fit the data or the devices.
    DataError: The data is bad.
  """
  if ":" not in config.task and config.task not in TASKS:
    defaults.check_task(config.task)
  task = extensions.find("config.task", config.task, TASKS)
  return task.build(defaults.complete(config))


def load_task(
  workdir: str | pathlib.Path, task: str | None = None
) -> tuple[Task, PyTree]:
  """Load the task of a finished run, and the parameters of its best checkpoint.

  Its data is read again, and its shards are adapted to the number of devices.

  Args:
    workdir: The run's folder.
    task: Task that the run must have, a key of `TASKS`; None for any.

  Raises:
    ConfigError: There is no run, it has another task or no checkpoint, or its config
      lacks a setting of this version.
    DataError: The data of the run has changed.
  """
  workdir = pathlib.Path(workdir)
  config = trained.read_config(workdir, task)
  trained.fit_devices(config)
  found = build_task(config.lock())
  found.keep(workdir)  # Or raises.
  params = trained.best_params(
    workdir, found.abstract_state, higher_is_better=found.higher_is_better
  )
  return found, params
