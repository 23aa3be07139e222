"""Training and evaluation of a config, from its data to the files of its run."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import ml_collections

from deepsets_jax import tasks
from deepsets_jax.data.datasets import registry
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
  return loop.train(tasks.build_task(_adopted(config, workdir)), workdir)


def train_once(
  config: ml_collections.ConfigDict, workdir: str | pathlib.Path
) -> dict[str, Any]:
  """Like `train_and_evaluate`, but only read the results of a finished run."""
  workdir = pathlib.Path(workdir)
  if (workdir / "results.json").exists():
    _adopted(config, workdir)  # Refuses another config.
    return json.loads((workdir / "results.json").read_text())
  return train_and_evaluate(config, workdir)


def _adopted(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> ml_collections.ConfigDict:
  """The config with its open settings filled in from the data and the folder."""
  return run_folder.adopt(
    registry.resolve_columns(config), workdir, registry.upgrade_columns
  )
