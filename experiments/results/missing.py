"""The parts on missing data: what models lose, and whether a small view drowns."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from configs import debian_programs, digits_planted, multiple_features
from deepsets_jax import figures
from deepsets_jax.analysis import attribution
from deepsets_jax.analysis import robustness as robustness_of_runs
from deepsets_jax.data.datasets import digits
from deepsets_jax.data.datasets.multiple_features import VIEWS
from deepsets_jax.data.tables.table import Table
from deepsets_jax.tasks.trained import Trained
from experiments import robustness
from experiments.results import robustness_tables, runs

_DRAWS = 3
# Three splits of so few errors are too few: models differ less than splits do.
_VIEW_SEEDS = (0, 1, 2, 3, 4)
# Largest sets of digits; in training it is the first.
_SIZES = (10, 20, 50, 100)


def debian_part() -> tuple[str, dict[str, Any]]:
  """debian_programs, trained as it is and with modality dropout; draws the picture."""
  measured = {}
  for training in ("", "dropout"):
    for name in debian_programs.MODELS:
      label = f"{name}, {training}" if training else name
      measured[label] = [
        _measure(
          debian_programs.get_config(f"{name},{seed},{training}"),
          _folder("debian_programs", name, seed, training),
        )
        for seed in runs.SEEDS
      ]
  table = robustness_tables.rows(measured)
  picture = robustness_tables.draw_curves(table, "f1_micro")
  figures.save(picture, pathlib.Path("docs/missing.png"))
  text = _tables(table, "f1_micro", len(debian_programs.MODELS))
  return text, runs.facts("debian_programs_set_pool_0")


def larger_part() -> tuple[str, dict[str, Any]]:
  """Planted digit sets of more elements than any in training, by model."""
  rows = []
  for name in digits_planted.MODELS:
    seeds = [
      runs.loaded(
        digits_planted.get_config(f"{name},{seed}"), f"digits_planted_{name}_{seed}"
      )
      for seed in runs.SEEDS
    ]
    cells = []
    for size in _SIZES:
      accuracies = [
        robustness_of_runs.measure(trained, _larger(trained, size)) for trained in seeds
      ]
      cells.append(runs.spread(accuracies))
    rows.append([name, *cells])
  head = ["model", *(f"1 to {size}" for size in _SIZES)]
  return runs.table(head, rows), runs.facts("digits_planted_max_0")


def _larger(trained: Trained, size: int) -> Table:
  """Test sets of up to `size` digits, of the images of the run's test part."""
  rate = trained.run.config.data.digits.misread_rate
  tables, _ = digits.planted(
    trained.run.config.seed, train_examples=1, max_size=size, misread_rate=rate
  )
  return tables["test"]


def views_part() -> tuple[str, dict[str, Any]]:
  """Multiple Features: robustness, and the importance of views of 6 to 240 features."""
  measured, shares = {}, {}
  for training in ("", "dropout"):
    for name in multiple_features.MODELS:
      label = f"{name}, {training}" if training else name
      measured[label], shares[label] = [], []
      for seed in _VIEW_SEEDS:
        config = multiple_features.get_config(f"{name},{seed},{training}")
        folder = _folder("multiple_features", name, seed, training)
        measured[label].append(_measure(config, folder))
        shares[label].append(_shares(config, folder))
  table = robustness_tables.rows(measured)
  text = "\n\n".join(
    [
      _tables(table, "accuracy", len(multiple_features.MODELS)),
      "Mean share of importance, by view (features):",
      _shares_table(shares),
    ]
  )
  return text, runs.facts("multiple_features_set_pool_0") | {"seeds": _VIEW_SEEDS}


def _tables(table: Sequence[Mapping[str, Any]], metric: str, complete: int) -> str:
  """Curves of all models; single modalities of those trained on complete data."""
  return "\n\n".join(
    [
      robustness_tables.curves(table, metric),
      f"Each modality alone, and all but it, {metric}:",
      robustness_tables.modalities(table[:complete], metric),
    ]
  )


def _folder(data: str, name: str, seed: int, training: str) -> str:
  return "_".join(part for part in (data, name, str(seed), training) if part)


def _measure(
  config: ml_collections.ConfigDict, folder: str
) -> robustness_tables.Measured:
  runs.once(config, folder)
  run = robustness.read(str(runs.RUNS / folder))
  return robustness.measure(run, "test", _DRAWS, 0)


def _shares(
  config: ml_collections.ConfigDict, folder: str
) -> dict[str, dict[str, float]]:
  """By method, the share of each view."""
  trained = runs.loaded(config, folder)
  table = trained.run.tables["test"]
  methods = [m for m in ("argmax", "shapley") if m in attribution.possible(trained)]
  return {m: attribution.compute(m, trained, table).shares() for m in methods}


def _shares_table(shares: Mapping[str, Sequence[dict[str, dict[str, float]]]]) -> str:
  views = multiple_features.MODALITIES
  rows = []
  for label, seeds in shares.items():
    for method in seeds[0]:
      cells = [
        f"{statistics.mean(one[method][view] for one in seeds):.3f}" for view in views
      ]
      rows.append([label, method, *cells])
  return runs.table(["model", "method", *(f"{v} ({VIEWS[v]})" for v in views)], rows)
