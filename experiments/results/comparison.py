"""Comparisons of models: from the results of runs to a table and a picture."""

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
from deepsets_jax.training import costs as summary
from experiments.results.runs import plus_minus


@dataclasses.dataclass(frozen=True)
class Model:
  """A config under comparison.

  Attributes:
    name: In tables, in pictures, and of the folder of its runs.
    source: The path of the config, and its argument after a colon.
    config: Its seed is of no account.
  """

  name: str
  source: str
  config: ml_collections.ConfigDict

  def seeded(self, seed: int) -> ml_collections.ConfigDict:
    """The config with another seed."""
    config = self.config.copy_and_resolve_references()
    config.seed = seed
    return config


@dataclasses.dataclass
class Runs:
  """The runs of a model, by seed: what `results.json` holds, or why it failed."""

  finished: dict[int, Mapping[str, Any]]
  failed: dict[int, str]


def spread(values: Mapping[int, float]) -> dict[str, Any]:
  """Mean and sample standard deviation of values by seed; None where there is none."""
  numbers = list(values.values())
  return {
    "mean": statistics.mean(numbers) if numbers else None,
    "sd": statistics.stdev(numbers) if len(numbers) > 1 else None,
    "values": dict(values),
  }


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> dict:
  """How two models differ where both have a value with the same seed.

  Returns:
    "n" of these seeds, "mean" and "sd" of the differences, and "p", two-sided, of the
    paired t-test; None where there are too few, "p" also where all differ by the same.
  """
  seeds = [seed for seed in values if seed in baseline]
  result = spread({seed: values[seed] - baseline[seed] for seed in seeds})
  del result["values"]
  a, b = ([x[seed] for seed in seeds] for x in (values, baseline))
  # What is left of equal differences after rounding is no spread.
  if result["sd"] and result["sd"] > 1e-9 * max(map(abs, a + b)):
    result["p"] = float(stats.ttest_rel(a, b).pvalue)
  return {"n": len(seeds), "p": None} | result


def rows(
  models: Sequence[Model], runs: Mapping[str, Runs], names: Sequence[str], baseline: str
) -> list[dict[str, Any]]:
  """What compare.json holds of each model: means over the seeds that finished.

  A metric of a run that is not defined, as ROC AUC without positives, is left out.

  Args:
    models: In the order of the rows.
    runs: By name of the model.
    names: Of metrics.
    baseline: Name of the model that the others are tested against, on test.
  """

  def values(name: str, split: str, metric: str) -> dict[int, float]:
    found = {seed: x[split][metric] for seed, x in runs[name].finished.items()}
    return {k: v for k, v in found.items() if v is not None and math.isfinite(v)}

  table = []
  for model in models:
    results = list(runs[model.name].finished.values())
    costs = {
      "parameters": [r["parameters"] for r in results],
      "flops_per_example": [r["summary"]["flops_per_example"] for r in results],
      "examples_per_second": [r["examples_per_second"] for r in results],
    }
    row = {"name": model.name, "config": model.source}
    row["failed"] = dict(runs[model.name].failed)
    for key, numbers in costs.items():
      known = [number for number in numbers if number is not None]
      row[key] = statistics.mean(known) if known else None
    for split in ("validation", "test"):
      row[split] = {name: spread(values(model.name, split, name)) for name in names}
    row["against_baseline"] = {
      name: paired(values(model.name, "test", name), values(baseline, "test", name))
      for name in names
      if model.name != baseline
    }
    table.append(row)
  return table


def markdown(table: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
  """The rows as a table, and what failed below it.

  Args:
    table: See `rows`.
    names: Of metrics.
  """
  head = ["model", "parameters", "FLOPs per example", "examples/s"]
  for name in names:
    head += [name, f"{name}, difference"]
  lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
  failures = []
  for row in table:
    count = len(row["failed"])
    label = f"{row['name']} ({count} failed)" if count else row["name"]
    cells = [
      label,
      _cell(row["parameters"], "{:,.0f}".format),
      _cell(row["flops_per_example"], summary.short),
      _cell(row["examples_per_second"], "{:,.0f}".format),
    ]
    for name in names:
      test = row["against_baseline"].get(name, {"mean": None, "p": None})
      p = _cell(test["p"], lambda p: f", p {p:.3f}" if p >= 0.001 else ", p < 0.001")
      cells += [plus_minus(row["test"][name]), plus_minus(test, sign="+") + p]
    lines.append("| " + " | ".join(cells) + " |")
    failures += [
      f"- {row['name']}, seed {seed}, failed: {why}"
      for seed, why in row["failed"].items()
    ]
  return "\n".join([*lines, *([""] if failures else []), *failures])


def _cell(value: float | None, form: Callable[[float], str]) -> str:
  return "" if value is None else form(value)


def draw(
  table: Sequence[Mapping[str, Any]], names: Sequence[str], baseline: str
) -> Figure:
  """The picture of the rows: see `figures.quality_against_cost`."""
  return figures.quality_against_cost(
    [row["name"] for row in table],
    {
      "parameters": [row["parameters"] for row in table],
      "FLOPs per example": [row["flops_per_example"] for row in table],
    },
    {
      f"{name} on test": [
        (row["test"][name]["mean"], row["test"][name]["sd"]) for row in table
      ]
      for name in names
    },
    baseline,
  )
