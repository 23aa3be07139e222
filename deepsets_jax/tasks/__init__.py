"""What a run may be for: labels of sets, or finding the items of users."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import ml_collections

from deepsets_jax.tasks.base import Task
from deepsets_jax.tasks.labels import Labels

# By config.task.
TASKS: Mapping[str, Callable[[ml_collections.ConfigDict], Task]] = {
  "labels": Labels.build,
}


def build(config: ml_collections.ConfigDict) -> Task:
  """The task of a config, its data loaded and its functions built.

  Raises:
    ValueError: A setting names nothing, or does not fit the data or the devices.
    DataError: Bad data.
  """
  if config.task not in TASKS:
    raise ValueError(f"unknown config.task {config.task!r}; one of {sorted(TASKS)}")
  return TASKS[config.task](config)
