"""Train a config with every setting of a sweep over seeds, and rank the settings.

  python -m experiments.sweep --config=configs/debian_programs.py:concat \
    --sweep=configs.sweeps.debian_programs --seeds=0,1,2

Settings are ranked by the mean of the chosen validation metrics over the seeds (larger
is better). Test metrics are not shown. Finished runs are not repeated.
"""

from __future__ import annotations

import importlib
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags, logging
from ml_collections import config_flags

from deepsets_jax.tasks import fit
from deepsets_jax.training import run_folder
from experiments import command


def validation_metrics(
  config: ml_collections.ConfigDict,
  overrides: Mapping[str, Any],
  seeds: Sequence[int],
  metrics: Sequence[str],
  folder: pathlib.Path,
) -> dict[str, float]:
  """Train a config on every seed, and return validation metrics as seed means.

  Args:
    config: The config; it is not changed.
    overrides: Dotted names of settings -> values.
    seeds: Seeds, one run each; finished runs are read.
    metrics: Names of validation metrics.
    folder: The folder of the runs.
  """
  results = []
  for seed in seeds:
    setting = config.copy_and_resolve_references()
    setting.update_from_flattened_dict(overrides)
    setting.seed = seed
    results.append(fit.train_once(setting, folder / f"seed_{seed}")["validation"])
  return {name: statistics.mean(values[name] for values in results) for name in metrics}


def main(argv: list[str]) -> None:
  """Train and print the settings, the best one last."""
  command.reject_arguments(argv)
  logging.set_verbosity(logging.WARNING)
  given = flags.FLAGS
  name = run_folder.default_workdir(given["config"].config_filename).name
  seeds = [int(seed) for seed in given.seeds]
  rows = []
  for overrides in importlib.import_module(given.sweep).overrides():
    label = ",".join(f"{k}={v}" for k, v in overrides.items()) or "as it is"
    folder = pathlib.Path(given.workdir) / name / label
    values = validation_metrics(given.config, overrides, seeds, given.metrics, folder)
    rows.append((statistics.mean(values.values()), label, values))
  for _, label, values in sorted(rows, key=lambda row: row[0]):
    print("  ".join(f"{k} {v:.4f}" for k, v in values.items()), "", label)


def define_flags() -> None:
  """Define the flags; a function, so that importing the module defines none."""
  config_flags.DEFINE_config_file("config", lock_config=True)
  flags.DEFINE_string(
    "sweep", None, "Module with overrides(), which yields {setting: value} of each run."
  )
  flags.DEFINE_list("seeds", ["0"], "Seeds; each setting has one run per seed.")
  flags.DEFINE_list(
    "metrics",
    ["f1_micro", "f1_macro"],
    "Validation metrics; their mean ranks the settings.",
  )
  flags.DEFINE_string("workdir", "runs/sweep", "Folder of the runs.")
  flags.mark_flags_as_required(["config", "sweep"])


if __name__ == "__main__":
  define_flags()
  command.run(main)
