"""What a finished run leaves to read: `results.json` and pictures."""

from __future__ import annotations

import importlib.metadata
import pathlib
import platform
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import PyTree

import deepsets_jax
from deepsets_jax import figures
from deepsets_jax.data.tables import budgets
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.files import write_json
from deepsets_jax.tasks.supervised.run import Run
from deepsets_jax.training import evaluation, metrics, sharding
from deepsets_jax.training.checkpoints import LoopState
from deepsets_jax.training.writers import read_metrics

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def write_report(
  run: Run,
  workdir: pathlib.Path,
  params: PyTree,
  position: LoopState,
  summary: dict[str, Any],
) -> dict[str, Any]:
  """Evaluates every split but the training one and writes the run's results.

  The threshold of a multi-label or binary task is chosen on validation, and used on
  all splits; see `evaluate.choose_threshold`.

  Args:
    run: The run.
    workdir: Its folder.
    params: Of the best checkpoint.
    position: At the end of training.
    summary: See `summary`.

  Returns:
    What `results.json` holds: per split the metrics by name, and the run's facts.
  """
  splits = [name for name in run.tables if name != "train"]
  for name in splits:
    _warn_of_undefined(name, run.tables[name])
  logits = {name: run.logits(params, name) for name in splits}
  threshold = evaluation.choose_threshold(
    run.tables["validation"], logits["validation"]
  )
  results = {
    name: evaluation.evaluate(run.tables[name], logits[name], run.loss, threshold)
    for name in splits
  }
  results |= facts(params, position) | {"threshold": threshold}
  results["summary"] = summary
  if not sharding.is_main_process():
    return results
  _draw(run, workdir, logits["test"], threshold, position.best_step)
  write_json(workdir / "results.json", results)
  return results


def _warn_of_undefined(split: str, table: Table) -> None:
  names = evaluation.undefined(table)
  if names and sharding.is_main_process():
    logging.warning(
      "%s: %s say nothing of its %d examples, which are too few or all of one class",
      split, ", ".join(names), len(table),
    )  # fmt: skip


def environment() -> dict[str, Any]:
  """The versions of what a run depends on, and its devices."""
  device = jax.devices()[0]
  return {
    "versions": {
      "deepsets_jax": deepsets_jax.__version__,
      "python": platform.python_version(),
    }
    | {name: importlib.metadata.version(name) for name in _PACKAGES},
    "device": {
      "platform": device.platform,
      "kind": device.device_kind,
      "count": jax.device_count(),
    },
  }


def facts(params: PyTree, position: LoopState) -> dict[str, Any]:
  """What is known of a run besides its metrics."""
  rate = position.examples / position.step_seconds if position.step_seconds else None
  return {
    "best_step": position.best_step,
    "parameters": sum(int(np.size(p)) for p in jax.tree.leaves(params)),
    "seconds": position.seconds,
    "examples_per_second": rate,
    **environment(),
  }


def _draw(
  run: Run, workdir: pathlib.Path, logits: np.ndarray, threshold: float, best_step: int
) -> None:
  train, test = run.tables["train"], run.tables["test"]
  usage = budgets.usage(train, run.budget)
  pictures = {
    "learning_curves": figures.learning_curves(
      read_metrics(workdir), run.config.train.metric, best_step
    ),
    "set_sizes": figures.set_sizes(
      {name: train.lengths(name) for name in train.modalities},
      {name: u.slots for name, u in usage.items()},
      {name: u.fill for name, u in usage.items()},
    ),
  }
  if test.schema.target.kind == "multilabel":
    pictures["label_f1"] = _label_f1(test, logits, threshold)
  for name, figure in pictures.items():
    figures.save(figure, workdir / f"{name}.png")


def _label_f1(table: Table, logits: np.ndarray, threshold: float) -> Any:
  target = table.schema.target
  f1, support = metrics.label_f1(logits, table.targets, threshold)
  names = target.names or [str(i) for i in range(target.size)]
  return figures.label_f1(names, f1, support)
