"""The sections on missing data, on larger sets, and on small modalities."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from configs import debian_programs, digits_planted, multiple_features
from deepsets_jax import figures
from deepsets_jax.analysis import attribution
from deepsets_jax.analysis import robustness as analysis_robustness
from deepsets_jax.data.datasets import digits
from deepsets_jax.data.datasets.multiple_features import VIEWS
from deepsets_jax.data.tables.table import Table
from deepsets_jax.tasks.trained import Trained
from experiments import robustness
from experiments.results import robustness_tables, runs, tables

_DRAWS = 3
# Models differ less than splits do, so that three splits would be too few.
_VIEW_SEEDS = (0, 1, 2, 3, 4)
# Sizes of the largest test sets; the first is that of training.
_SIZES = (10, 20, 50, 100)


def debian_section() -> runs.Section:
  """Measure robustness on debian_programs, and draw the picture."""
  models = _runs(debian_programs, runs.SEEDS)
  table = _rows(models)
  picture = robustness_tables.draw_curves(table, "f1_micro")
  figures.save(picture, pathlib.Path("docs/missing.png"))
  text = _tables(table, "f1_micro", len(debian_programs.MODELS))
  return runs.Section(text, models["set_pool"][0].results())


def larger_section() -> runs.Section:
  """Evaluate models on planted digit sets that are larger than those of training."""
  rows = []
  for name in digits_planted.MODELS:
    seeds = [run.load() for run in runs.seeded_runs(digits_planted, f"{name},{{}}")]
    cells = [
      tables.mean_and_sd(
        [analysis_robustness.measure(one, _larger(one, size)) for one in seeds]
      )
      for size in _SIZES
    ]
    rows.append([name, *cells])
  head = ["model", *(f"1 to {size}" for size in _SIZES)]
  results = runs.seeded_runs(digits_planted, "max,{}")[0].results()
  return runs.Section(tables.markdown_table(head, rows), results)


def _larger(trained: Trained, size: int) -> Table:
  """Sets of up to `size` digits, from the images of the run's test part."""
  rate = trained.run.config.data.digits.misread_rate
  parts, _ = digits.planted(
    trained.run.config.seed, train_examples=1, max_size=size, misread_rate=rate
  )
  return parts["test"]


def views_section() -> runs.Section:
  """Measure robustness and attribution on Multiple Features, six views of 6 to 240."""
  models = _runs(multiple_features, _VIEW_SEEDS)
  table = _rows(models)
  shares = {name: [_shares(run) for run in seeds] for name, seeds in models.items()}
  blocks = [
    _tables(table, "accuracy", len(multiple_features.MODELS)),
    "Mean attribution share by view (number of features):",
    _shares_table(shares),
  ]
  results = models["set_pool"][0].results()
  return runs.Section("\n\n".join(blocks), results, _VIEW_SEEDS)


def _runs(configs: ModuleType, seeds: Sequence[int]) -> dict[str, list[runs.Run]]:
  """The runs of every model, on the data as it is and with modality dropout."""
  return {
    f"{name}, {training}" if training else name: runs.seeded_runs(
      configs, f"{name},{{}},{training}", seeds
    )
    for training in ("", "dropout")
    for name in configs.MODELS
  }


def _rows(models: Mapping[str, Sequence[runs.Run]]) -> list[dict[str, Any]]:
  """Measure the robustness of each run on its test part."""

  def measured(run: runs.Run) -> robustness_tables.Measured:
    run.results()
    return robustness.measure(robustness.read(str(run.folder)), "test", _DRAWS, 0)

  return robustness_tables.rows(
    {name: [measured(run) for run in seeds] for name, seeds in models.items()}
  )


def _tables(table: Sequence[Mapping[str, Any]], metric: str, complete: int) -> str:
  """Curves of all models; single modalities of the first `complete` ones."""
  return "\n\n".join(
    [
      robustness_tables.curves(table, metric),
      f"{metric} with each modality alone, and with all but it:",
      robustness_tables.modalities(table[:complete], metric),
    ]
  )


def _shares(run: runs.Run) -> dict[str, dict[str, float]]:
  """Method -> view -> share of the attribution on the test part."""
  trained = run.load()
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
  return tables.markdown_table(
    ["model", "method", *(f"{v} ({VIEWS[v]})" for v in views)], rows
  )
