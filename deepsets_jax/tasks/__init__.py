"""What a run may be for: labels of sets, or finding the items of users."""

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
  """The task of a config, its data loaded and its functions built.

  Raises:
    ConfigError: A setting names nothing, or does not fit the data or the devices.
    DataError: Bad data.
  """
  if ":" not in config.task and config.task not in TASKS:
    defaults.check_task(config.task)
  task = extensions.find("config.task", config.task, TASKS)
  return task.build(defaults.complete(config))


def load_task(
  workdir: str | pathlib.Path, task: str | None = None
) -> tuple[Task, PyTree]:
  """The task of a run's folder, with the parameters of its best checkpoint.

  Its data is read. There are enough shards for any number of devices.

  Args:
    workdir: The folder.
    task: What it must be for, a key of `TASKS`; None for any.

  Raises:
    ConfigError: No run there, one that is for something else, one without a checkpoint,
      or one whose config lacks a setting that there is by now.
    DataError: Its data is not as it was.
  """
  workdir = pathlib.Path(workdir)
  config = trained.read_config(workdir, task)
  with trained.same_version(workdir):
    trained.fit_devices(config)
    found = build_task(config.lock())
  found.keep(workdir)  # Or raises.
  params = trained.best_params(
    workdir, found.abstract_state, higher_is_better=found.higher_is_better
  )
  return found, params
