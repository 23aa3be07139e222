"""The report of a finished run: `results.json` and pictures."""

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
  loop_state: LoopState,
  costs: dict[str, Any],
) -> dict[str, Any]:
  """Evaluate every split but the training split and write the results of a run.

  The threshold of a multi-label or binary target is chosen on the validation split (see
  `evaluation.choose_threshold`) and applied to all splits.

  Args:
    run: Parts of the run.
    workdir: The run's folder.
    params: Parameters of the best checkpoint.
    loop_state: Loop state at the end of training.
    costs: Costs of the run, see `training.costs`.

  Returns:
    The contents of `results.json`: metrics by split and name, and facts of the run.
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
  results |= facts(params, loop_state) | {"threshold": threshold, "summary": costs}
  if not sharding.is_main_process():
    return results
  _draw(run, workdir, logits["test"], threshold, loop_state.best_step)
  write_json(workdir / "results.json", results)
  return results


def _warn_of_undefined(split: str, table: Table) -> None:
  names = evaluation.undefined(table)
  if names and sharding.is_main_process():
    logging.warning(
      "%s: not defined on its %d examples, too few or all of one class: %s",
      split, len(table), ", ".join(names),
    )  # fmt: skip


def environment() -> dict[str, Any]:
  """Versions of Python and of the packages that a run depends on, and its devices."""
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


def facts(params: PyTree, loop_state: LoopState) -> dict[str, Any]:
  """Facts of a run besides its metrics: best step, parameters, speed, environment."""
  seconds = loop_state.step_seconds
  rate = loop_state.examples / seconds if seconds else None
  return {
    "best_step": loop_state.best_step,
    "parameters": sum(int(np.size(p)) for p in jax.tree.leaves(params)),
    "seconds": loop_state.seconds,
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
