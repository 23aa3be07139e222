"""Robustness of runs: from their measurements to numbers, tables and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from deepsets_jax import figures
from deepsets_jax.analysis.robustness import CORRUPTIONS, Curve
from deepsets_jax.training import metrics
from experiments.results.comparison import spread
from experiments.results.runs import plus_minus
from experiments.results.runs import table as markdown_table

# Of the subsets of modalities, how many are told.
_BEST = 5
# By corruption, at which levels the loss is told, and the title of its picture.
_LEVELS = {"missing": (0.5, 0.9), "noise": (0.5, 0.9), "repeated": (16,)}

_TITLES = {
  "missing": "modalities missing",
  "noise": "elements replaced by others",
  "repeated": "elements repeated",
}

Subset = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Measured:
  """What was measured of one run.

  Attributes:
    workdir: Its folder.
    seed: Of its config.
    whole: The metric of the table as it is.
    curves: By corruption.
    subsets: The metric with only these modalities, in the schema's order; empty where
      there are too many.
  """

  workdir: str
  seed: int
  whole: float
  curves: Mapping[str, Curve]
  subsets: Mapping[Subset, float]


def rows(models: Mapping[str, Sequence[Measured]]) -> list[dict[str, Any]]:
  """What robustness.json holds of each model: means over its runs, by seed.

  Args:
    models: The runs of each, by its name.
  """
  return [
    {
      "name": name,
      "workdirs": {run.seed: run.workdir for run in runs},
      "whole": spread({run.seed: run.whole for run in runs}),
      "curves": {kind: _numbers(runs, kind) for kind in _LEVELS},
      "subsets": [
        {"modalities": subset} | spread({run.seed: run.subsets[subset] for run in runs})
        for subset in runs[0].subsets
      ],
    }
    for name, runs in models.items()
  ]


def _numbers(runs: Sequence[Measured], kind: str) -> dict[str, Any]:
  """What is told of the curves of one corruption."""
  curves = {run.seed: run.curves[kind] for run in runs}
  return {
    "levels": runs[0].curves[kind].levels,
    "values": {seed: curve.values for seed, curve in curves.items()},
    "area": spread({seed: curve.area for seed, curve in curves.items()}),
    "loss_at": {
      level: spread({seed: curve.loss_at(level) for seed, curve in curves.items()})
      for level in _LEVELS[kind]
    },
  }


def markdown(table: Sequence[Mapping[str, Any]], metric: str) -> str:
  """The rows as tables: the curves; the best subsets; each modality with and without.

  Args:
    table: See `rows`.
    metric: Its name.
  """
  parts = [curves(table, metric)]
  if table[0]["subsets"]:
    parts += [_best(table, metric), modalities(table, metric)]
  return "\n\n".join(parts)


def curves(table: Sequence[Mapping[str, Any]], metric: str) -> str:
  """The metric, areas and losses of each model, as a table."""
  head = ["model", metric]
  for kind, levels in _LEVELS.items():
    rates = CORRUPTIONS[kind].by_chance
    head += [f"area, {kind}"] if rates else []
    head += [
      f"loss at {q:.0%} {kind}" if rates else f"loss at {q}x {kind}" for q in levels
    ]
  cells = []
  for row in table:
    cells.append([row["name"], plus_minus(row["whole"])])
    for kind, levels in _LEVELS.items():
      found = row["curves"][kind]
      if CORRUPTIONS[kind].by_chance:
        cells[-1].append(plus_minus(found["area"]))
      cells[-1] += [plus_minus(found["loss_at"][level]) for level in levels]
  return markdown_table(head, cells)


def _best(table: Sequence[Mapping[str, Any]], metric: str) -> str:
  """The most useful subsets of each model."""
  sign = -1 if metrics.higher_is_better(metric) else 1
  names = max((one["modalities"] for one in table[0]["subsets"]), key=len)
  cells = []
  for row in table:
    best = sorted(row["subsets"], key=lambda one: sign * one["mean"])[:_BEST]
    cells += [
      [row["name"], _words(one["modalities"], names), plus_minus(one)] for one in best
    ]
  return markdown_table(["model", f"its {_BEST} most useful subsets", metric], cells)


def _words(subset: Sequence[str], names: Sequence[str]) -> str:
  """A subset of modalities, by what is in it or by what is not, whichever is less."""
  absent = [name for name in names if name not in subset]
  if not absent:
    return "all"
  if len(absent) < len(subset):
    return "all but " + ", ".join(absent)
  return ", ".join(subset) or "none"


def modalities(table: Sequence[Mapping[str, Any]], metric: str) -> str:
  """Each modality alone and without it; with none, and so without none, at the end."""
  models = {row["name"]: _alone_and_without(row) for row in table}
  head = ["modality"]
  for name in models:
    prefix = f"{name}, " if len(models) > 1 else f"{metric}, "
    head += [f"{prefix}alone", f"{prefix}all but it"]
  cells = []
  for modality in next(iter(models.values())):
    cells.append([modality])
    for found in models.values():
      cells[-1] += [plus_minus(spread) for spread in found[modality]]
  return markdown_table(head, cells)


def _alone_and_without(row: Mapping[str, Any]) -> dict[str, tuple[dict, dict]]:
  """The metric with each modality alone and with all others; last those of "none"."""
  found = {tuple(one["modalities"]): one for one in row["subsets"]}
  names = max(found, key=len)
  result = {
    name: (found[(name,)], found[tuple(other for other in names if other != name)])
    for name in names
  }
  return result | {"none": (found[()], found[names])}


def draw_curves(table: Sequence[Mapping[str, Any]], metric: str) -> Figure:
  """The picture of the curves: see `figures.robustness_curves`."""
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
  """The picture of single modalities: see `figures.modality_bars`."""
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
  """Mean and standard deviation of what each run loses."""
  losses = spread({seed: sign * (whole[seed] - part[seed]) for seed in whole})
  return losses["mean"], losses["sd"]
