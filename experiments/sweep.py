"""Trains a config with every setting of a sweep, over seeds, and ranks the settings.

  python -m experiments.sweep --config=configs/debian_programs.py:concat \
    --sweep=configs.sweeps.debian_programs --seeds=0,1,2

Settings are ranked by the mean of the chosen validation metrics over the seeds; test
metrics are not shown. Finished runs are not repeated.
"""

from __future__ import annotations

import importlib
import pathlib
import statistics
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from deepsets_jax.tasks import fit
from deepsets_jax.training import run_folder

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_SWEEP = flags.DEFINE_string(
  "sweep", None, "Module with overrides(), which yields dicts."
)
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds of the runs of every setting.")
_METRICS = flags.DEFINE_list(
  "metrics",
  ["f1_micro", "f1_macro"],
  "Validation metrics; their mean ranks the settings.",
)
_WORKDIR = flags.DEFINE_string("workdir", "runs/sweep", "Folder of the runs.")


def validation_metrics(
  overrides: dict[str, Any], folder: pathlib.Path
) -> dict[str, float]:
  """Return the chosen validation metrics under these overrides, as seed means."""
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
  """Prints the settings, the best one last."""
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments {argv[1:]}")
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
  app.run(main)
