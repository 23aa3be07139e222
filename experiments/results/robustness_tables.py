"""Tables and pictures of the robustness of runs, from what was measured of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from deepsets_jax import figures
from deepsets_jax.analysis.robustness import CORRUPTIONS, RobustnessCurve
from deepsets_jax.training import metrics
from experiments.results.tables import (
  format_statistics,
  markdown_table,
  seed_statistics,
)

# Number of subsets of modalities that are listed per model.
_BEST = 5
# Corruption -> levels at which the loss is listed, and the title of its picture.
_LEVELS = {"missing": (0.5, 0.9), "noise": (0.5, 0.9), "repeated": (16,)}
_TITLES = {
  "missing": "modalities missing",
  "noise": "elements replaced by others",
  "repeated": "elements repeated",
}

Subset = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Measured:
  """The measurements of one run.

  Attributes:
    workdir: The folder of the run.
    seed: The seed of its config.
    whole: The metric on unchanged data.
    curves: Corruption -> curve of the metric.
    subsets: Modalities, in the schema's order -> the metric with only these; empty
      where there are too many subsets to measure.
  """

  workdir: str
  seed: int
  whole: float
  curves: Mapping[str, RobustnessCurve]
  subsets: Mapping[Subset, float]


def rows(models: Mapping[str, Sequence[Measured]]) -> list[dict[str, Any]]:
  """Summarise each model as robustness.json holds it: statistics over its runs.

  Args:
    models: Name of a model -> its runs, one per seed.
  """
  return [
    {
      "name": name,
      "workdirs": {run.seed: run.workdir for run in runs},
      "whole": seed_statistics({run.seed: run.whole for run in runs}),
      "curves": {kind: _curve_statistics(runs, kind) for kind in _LEVELS},
      "subsets": [
        {"modalities": subset}
        | seed_statistics({run.seed: run.subsets[subset] for run in runs})
        for subset in runs[0].subsets
      ],
    }
    for name, runs in models.items()
  ]


def _curve_statistics(runs: Sequence[Measured], kind: str) -> dict[str, Any]:
  """Summarise the curves of one corruption over the runs."""
  curves = {run.seed: run.curves[kind] for run in runs}
  return {
    "levels": runs[0].curves[kind].levels,
    "values": {seed: curve.values for seed, curve in curves.items()},
    "area": seed_statistics({seed: curve.area for seed, curve in curves.items()}),
    "loss_at": {
      level: seed_statistics(
        {seed: curve.loss_at(level) for seed, curve in curves.items()}
      )
      for level in _LEVELS[kind]
    },
  }


def markdown(table: Sequence[Mapping[str, Any]], metric: str) -> str:
  """Format three tables: curves, best subsets, each modality alone and left out.

  Args:
    table: See `rows`.
    metric: The name of the metric.
  """
  parts = [curves(table, metric)]
  if table[0]["subsets"]:
    parts += [_best(table, metric), modalities(table, metric)]
  return "\n\n".join(parts)


def curves(table: Sequence[Mapping[str, Any]], metric: str) -> str:
  """Tabulate the metric, areas and losses of each model."""
  head = ["model", metric]
  cells = [[row["name"], format_statistics(row["whole"])] for row in table]
  for kind, levels in _LEVELS.items():
    rates = CORRUPTIONS[kind].by_chance
    head += [f"area, {kind}"] if rates else []
    head += [
      f"loss at {q:.0%} {kind}" if rates else f"loss at {q}x {kind}" for q in levels
    ]
    for line, row in zip(cells, table, strict=True):
      found = row["curves"][kind]
      line += [format_statistics(found["area"])] if rates else []
      line += [format_statistics(found["loss_at"][level]) for level in levels]
  return markdown_table(head, cells)


def _best(table: Sequence[Mapping[str, Any]], metric: str) -> str:
  """Tabulate the most useful subsets of each model."""
  sign = -1 if metrics.higher_is_better(metric) else 1
  names = max((one["modalities"] for one in table[0]["subsets"]), key=len)
  cells = [
    [row["name"], _subset_text(one["modalities"], names), format_statistics(one)]
    for row in table
    for one in sorted(row["subsets"], key=lambda one: sign * one["mean"])[:_BEST]
  ]
  return markdown_table(["model", f"its {_BEST} most useful subsets", metric], cells)


def _subset_text(subset: Sequence[str], names: Sequence[str]) -> str:
  """List the modalities of a subset, or those it lacks, whichever is shorter."""
  absent = [name for name in names if name not in subset]
  if not absent:
    return "all"
  if len(absent) < len(subset):
    return "all but " + ", ".join(absent)
  return ", ".join(subset) or "none"


def modalities(table: Sequence[Mapping[str, Any]], metric: str) -> str:
  """Tabulate the metric with each modality alone and without it.

  The last row, "none", has the metric without any modality and with all of them.
  """
  models = {row["name"]: _alone_and_without(row) for row in table}
  head = ["modality"]
  for name in models:
    prefix = f"{name}, " if len(models) > 1 else f"{metric}, "
    head += [f"{prefix}alone", f"{prefix}all but it"]
  cells = [
    [
      modality,
      *(format_statistics(one) for found in models.values() for one in found[modality]),
    ]
    for modality in next(iter(models.values()))
  ]
  return markdown_table(head, cells)


def _alone_and_without(row: Mapping[str, Any]) -> dict[str, tuple[dict, dict]]:
  """Modality -> the metric with it alone and without it; "none" comes last."""
  found = {tuple(one["modalities"]): one for one in row["subsets"]}
  names = max(found, key=len)
  result = {
    name: (found[(name,)], found[tuple(other for other in names if other != name)])
    for name in names
  }
  return result | {"none": (found[()], found[names])}


def draw_curves(table: Sequence[Mapping[str, Any]], metric: str) -> Figure:
  """Draw the curves with `figures.robustness_curves`."""
  return figures.robustness_curves(
    metric,
    {title: table[0]["curves"][kind]["levels"] for kind, title in _TITLES.items()},
    {
      row["name"]: {
        title: np.stack(list(row["curves"][kind]["values"].values()))
        for kind, title in _TITLES.items()
      }
      for row in table
    },
  )


def draw_subsets(table: Sequence[Mapping[str, Any]], metric: str) -> Figure:
  """Draw single modalities with `figures.modality_bars`."""
  sign = 1 if metrics.higher_is_better(metric) else -1
  alone, cost = {}, {}
  for row in table:
    found = _alone_and_without(row)
    none, whole = found.pop("none")
    ranked = sorted(found, key=lambda name: -sign * found[name][0]["mean"])
    shown = {"all": whole} | {name: found[name][0] for name in ranked} | {"none": none}
    alone[row["name"]] = {name: (x["mean"], x["sd"]) for name, x in shown.items()}
    cost[row["name"]] = {
      name: _loss(whole["values"], without["values"], sign)
      for name, (_, without) in found.items()
    }
  return figures.modality_bars(metric, alone, cost)


def _loss(
  whole: Mapping[int, float], part: Mapping[int, float], sign: int
) -> tuple[float, float | None]:
  """Mean and standard deviation of the loss of each run."""
  losses = seed_statistics({seed: sign * (whole[seed] - part[seed]) for seed in whole})
  return losses["mean"], losses["sd"]
