"""Runs a config with every override of a sweep, over seeds, and ranks them.

  python -m experiments.sweep --config=configs/debian_programs.py:concat \
    --sweep=configs.sweeps.debian_programs --seeds=0,1,2

Ranks by the mean over the seeds of the chosen metrics on validation; test metrics are
not shown. A finished run is not repeated.
"""

from __future__ import annotations

import importlib
import pathlib
import statistics
from typing import Any

from absl import flags, logging
from ml_collections import config_flags

from deepsets_jax.tasks import fit
from deepsets_jax.training import run_folder
from experiments import command

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_SWEEP = flags.DEFINE_string("sweep", None, "A module with overrides().")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds, each a run of every override.")
_METRICS = flags.DEFINE_list(
  "metrics", ["f1_micro", "f1_macro"], "Of validation; ranked by their mean."
)
_WORKDIR = flags.DEFINE_string("workdir", "runs/sweep", "Folder of the runs' folders.")


def validation_metrics(
  overrides: dict[str, Any], folder: pathlib.Path
) -> dict[str, float]:
  """The mean over seeds of the chosen validation metrics, with these overrides."""
  results = []
  for seed in _SEEDS.value:
    config = _CONFIG.value.copy_and_resolve_references()
    config.update_from_flattened_dict(overrides)
    config.seed = int(seed)
    results.append(fit.train_once(config, folder / f"seed_{seed}")["validation"])
  return {
    name: statistics.mean(values[name] for values in results) for name in _METRICS.value
  }


def main(argv: list[str]) -> None:
  """Prints the overrides, the best last."""
  command.no_arguments(argv)
  logging.set_verbosity(logging.WARNING)
  name = run_folder.default_workdir(flags.FLAGS["config"].config_filename).name
  rows = []
  for overrides in importlib.import_module(_SWEEP.value).overrides():
    label = ",".join(f"{k}={v}" for k, v in overrides.items()) or "as it is"
    folder = pathlib.Path(_WORKDIR.value) / name / label
    values = validation_metrics(overrides, folder)
    rows.append((statistics.mean(values.values()), label, values))
  for _, label, values in sorted(rows, key=lambda row: row[0]):
    print("  ".join(f"{k} {v:.4f}" for k, v in values.items()), "", label)


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "sweep"])
  command.run(main)
