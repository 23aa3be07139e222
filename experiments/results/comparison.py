"""Comparison of models: statistics over seeds, a paired test, a table and a picture."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
from matplotlib.figure import Figure
from scipy import stats

from deepsets_jax import figures
from deepsets_jax.training import costs
from experiments.results import tables


@dataclasses.dataclass(frozen=True)
class Model:
  """A config under comparison.

  Attributes:
    name: Unique name, in tables and pictures, and the folder of its runs.
    source: The path of the config, and its argument after a colon.
    config: The config; its seed is replaced.
  """

  name: str
  source: str
  config: ml_collections.ConfigDict

  def seeded(self, seed: int) -> ml_collections.ConfigDict:
    """Return a copy of the config with this seed."""
    config = self.config.copy_and_resolve_references()
    config.seed = seed
    return config


@dataclasses.dataclass
class Outcomes:
  """The runs of a model.

  Attributes:
    finished: Seed -> what `results.json` holds.
    failed: Seed -> the error message.
  """

  finished: dict[int, Mapping[str, Any]]
  failed: dict[int, str]


def paired_difference(
  values: Mapping[int, float], baseline: Mapping[int, float]
) -> dict:
  """Compare two models on the seeds that both have.

  Args:
    values: Seed -> metric of the model.
    baseline: Seed -> metric of the model to compare with.

  Returns:
    "n", the number of these seeds; "mean" and "sd" of the differences, see
    `tables.seed_statistics`; "p" of the two-sided paired t-test, None with fewer than
    two seeds or without a spread.
  """
  seeds = [seed for seed in values if seed in baseline]
  result = tables.seed_statistics(
    {seed: values[seed] - baseline[seed] for seed in seeds}
  )
  del result["values"]
  a, b = ([x[seed] for seed in seeds] for x in (values, baseline))
  # Rounding leaves a tiny deviation of differences that are equal.
  if result["sd"] and result["sd"] > 1e-9 * max(map(abs, a + b)):
    result["p"] = float(stats.ttest_rel(a, b).pvalue)
  return {"n": len(seeds), "p": None} | result


def summary_rows(
  models: Sequence[Model],
  outcomes: Mapping[str, Outcomes],
  metrics: Sequence[str],
  baseline: str,
) -> list[dict[str, Any]]:
  """Summarise each model as compare.json holds it: means over the finished seeds.

  Undefined metrics, such as ROC AUC without positives, are left out of the means.

  Args:
    models: In the order of the rows.
    outcomes: Name of a model -> its runs.
    metrics: Names of metrics of "validation" and "test".
    baseline: Name of the model that the others are tested against, on test.
  """

  def values(name: str, split: str, metric: str) -> dict[int, float]:
    found = {seed: x[split][metric] for seed, x in outcomes[name].finished.items()}
    return {k: v for k, v in found.items() if v is not None and math.isfinite(v)}

  rows = []
  for model in models:
    results = list(outcomes[model.name].finished.values())
    numbers = {
      "parameters": [r["parameters"] for r in results],
      "flops_per_example": [r["summary"]["flops_per_example"] for r in results],
      "examples_per_second": [r["examples_per_second"] for r in results],
    }
    row = {"name": model.name, "config": model.source}
    row["failed"] = dict(outcomes[model.name].failed)
    for key, found in numbers.items():
      known = [number for number in found if number is not None]
      row[key] = statistics.mean(known) if known else None
    for split in ("validation", "test"):
      row[split] = {
        name: tables.seed_statistics(values(model.name, split, name))
        for name in metrics
      }
    row["against_baseline"] = {
      name: paired_difference(
        values(model.name, "test", name), values(baseline, "test", name)
      )
      for name in metrics
      if model.name != baseline
    }
    rows.append(row)
  return rows


def summary_table(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
  """Format the rows as a Markdown table, with a list of failed runs below it.

  Args:
    rows: See `summary_rows`.
    metrics: Names of metrics to show.
  """
  head = ["model", "parameters", "FLOPs per example", "examples/s"]
  for name in metrics:
    head += [name, f"{name}, difference"]
  lines, failures = [], []
  for row in rows:
    count = len(row["failed"])
    cells = [
      f"{row['name']} ({count} failed)" if count else row["name"],
      _cell(row["parameters"], "{:,.0f}".format),
      _cell(row["flops_per_example"], costs.short),
      _cell(row["examples_per_second"], "{:,.0f}".format),
    ]
    for name in metrics:
      test = row["against_baseline"].get(name, {"mean": None, "p": None})
      p = _cell(test["p"], lambda p: f", p {p:.3f}" if p >= 0.001 else ", p < 0.001")
      cells.append(tables.format_statistics(row["test"][name]))
      cells.append(tables.format_statistics(test, "+") + p)
    lines.append(cells)
    failures += [
      f"- {row['name']}, seed {seed}, failed: {why}"
      for seed, why in row["failed"].items()
    ]
  table = tables.markdown_table(head, lines)
  return "\n".join([table, *([""] if failures else []), *failures])


def _cell(value: float | None, form: Callable[[float], str]) -> str:
  return "" if value is None else form(value)


def cost_figure(
  rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], baseline: str
) -> Figure:
  """Draw the rows with `figures.quality_against_cost`."""
  return figures.quality_against_cost(
    [row["name"] for row in rows],
    {
      "parameters": [row["parameters"] for row in rows],
      "FLOPs per example": [row["flops_per_example"] for row in rows],
    },
    {
      f"{name} on test": [
        (row["test"][name]["mean"], row["test"][name]["sd"]) for row in rows
      ]
      for name in metrics
    },
    baseline,
  )
