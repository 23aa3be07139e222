"""Training and evaluation of a config, from its data to the files of its run."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import ml_collections
from absl import logging

from deepsets_jax import tasks
from deepsets_jax.data.datasets import registry
from deepsets_jax.tasks import defaults
from deepsets_jax.training import loop, run_folder


def train_and_evaluate(
  config: ml_collections.ConfigDict, workdir: str | pathlib.Path
) -> dict[str, Any]:
  """Train a config, or resume its training, and evaluate its best checkpoint.

  Args:
    config: The config, see `configs`.
    workdir: The run's folder, which is created. If it holds a run of the same config,
      the run is resumed from its latest checkpoint.

  Returns:
    The contents of `results.json`.

  Raises:
    ConfigError: A setting is bad, or the folder holds a run of another config.
    DataError: The data is bad.
    NonFiniteError: The loss or the gradient is not finite.
  """
  workdir = pathlib.Path(workdir)
  return loop.train(tasks.build_task(adopted(config, workdir)), workdir)


def train_once(
  config: ml_collections.ConfigDict, workdir: str | pathlib.Path
) -> dict[str, Any]:
  """Like `train_and_evaluate`, but only read the results of a finished run."""
  workdir = pathlib.Path(workdir)
  if (workdir / "results.json").exists():
    adopted(config, workdir)  # Refuses another config.
    return json.loads((workdir / "results.json").read_text())
  return train_and_evaluate(config, workdir)


def adopted(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> ml_collections.ConfigDict:
  """The config with what it leaves open filled in: defaults, columns, shapes of a run.

  Args:
    config: The config to train.
    workdir: The run's folder, which need not be there.

  Raises:
    ConfigError: A setting does not exist, or the folder holds a run of another config.
    DataError: The table has no spec of its columns.
  """
  config = registry.resolve_columns(defaults.complete(config))
  return run_folder.adopt(config, workdir, _upgraded)


def _upgraded(stored: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """A stored config under today's names, with today's settings."""
  config, dropped = defaults.upgrade(stored)
  if dropped:
    logging.warning(
      "the run was begun with settings that no longer exist: %s", ", ".join(dropped)
    )
  with config.unlocked():
    registry.upgrade_columns(config)
  return config
