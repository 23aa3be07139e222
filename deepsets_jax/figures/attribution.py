"""Figures of attributions: of a data set, of removal curves, and of single examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from deepsets_jax.figures.style import COLORS, GREY, clean

_LONGEST = 26  # Most characters of a label.
_MARKS = "os^DvPX"


class Bar(NamedTuple):
  """A bar for one element, or one modality, of an example.

  Attributes:
    text: Label of the bar.
    modality: Name of the modality, which sets the colour.
    score: Attribution score.
    error: Standard error of the score, or None.
  """

  text: str
  modality: str
  score: float
  error: float | None = None


class Line(NamedTuple):
  """A metric as elements are removed or inserted, `[q]` each; see `RemovalCurve`.

  `lower` and `upper` are None if there is no band.
  """

  fractions: Sequence[float]
  values: Sequence[float]
  lower: Sequence[float] | None = None
  upper: Sequence[float] | None = None


def draw(summary: Mapping[str, Any]) -> dict[str, Figure]:
  """All figures for an explanation's summary: of the data set, and "example_1" etc."""
  methods, random = summary["methods"], summary["random"]
  tests = ("deletion", "insertion")
  drawn = {
    "importance": shares({k: v["shares"] for k, v in methods.items()}),
    "removal": removal(
      summary["metric"],
      {test: {k: _line(v[test]) for k, v in methods.items()} for test in tests},
      {test: _line(random[test]) for test in tests},
      f"mean of {random['orders']} random orders",
    ),
  }
  if len(methods) > 1:
    correlations = np.array(summary["agreement"], float)  # None becomes NaN.
    drawn["agreement"] = agreement(list(methods), correlations)
  modalities = list(next(iter(methods.values()))["shares"])
  for number, example in enumerate(summary["chosen"], 1):
    panels = {method: _groups(example, method) for method in methods}
    drawn[f"example_{number}"] = ranked_elements(panels, modalities)
  return drawn


def _line(curve: Mapping[str, Any]) -> Line:
  return Line(**{name: curve[name] for name in Line._fields if name in curve})


def _groups(example: Mapping[str, Any], method: str) -> list[list[Bar]]:
  """The bars of a method: elements, or modalities if it does not score elements."""
  if method not in example["elements"]:
    scores = example["modalities"][method]
    there = [k for k, number in example["num_elements"].items() if number]
    ranked = sorted(there, key=lambda name: -scores[name])
    return [[Bar(name, name, scores[name]) for name in ranked]]
  return [
    [Bar(e["text"], e["modality"], e["score"], e["error"]) for e in group]
    for group in example["elements"][method].values()
    if group
  ]


def shares(found: Mapping[str, Mapping[str, float]]) -> Figure:
  """A bar per modality and a panel per method.

  Args:
    found: Mean share of attribution by method and modality.
  """
  modalities = list(next(iter(found.values())))
  rows, columns = _grid(len(found), 4)
  size = (2.2 + 2.1 * columns, rows * (0.8 + 0.22 * len(modalities)))
  figure = Figure(figsize=size, layout="constrained")
  grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
  largest = max(max(each.values()) for each in found.values())
  places = np.arange(len(modalities))
  for axes, (method, each) in zip(grid.flat, found.items(), strict=False):
    values = [each[name] for name in modalities]
    axes.barh(places, values, color=_colors(modalities), height=0.75)
    for place, value in zip(places, values, strict=True):
      axes.text(value, place, f" {value:.2f}", va="center", fontsize=7)
    axes.set_title(method, fontsize=9)
    axes.tick_params(labelsize=8)
  labels = [_short(name) for name in modalities]
  for axes in grid.flat:
    # A "$" in a name is not a formula. Shared axes share labels, but not this option.
    axes.set_yticks(places, labels, fontsize=8, parse_math=False)
  grid[0, 0].set(xlim=(0, max(1.25 * largest, 1e-6)))
  grid[0, 0].set_ylim(len(modalities) - 0.4, -0.6)
  for axes in grid.flat[len(found) :]:
    axes.set_visible(False)
  for axes in grid.flat[max(len(found) - columns, 0) : len(found)]:
    axes.tick_params(labelbottom=True)
    axes.set_xlabel("mean share of attribution", fontsize=8)
  clean(*grid.ravel())
  return figure


def removal(
  metric: str,
  panels: Mapping[str, Mapping[str, Line]],
  random: Mapping[str, Line],
  random_name: str,
) -> Figure:
  """The metric as elements are removed or inserted, with a line per method.

  Args:
    metric: Name of the metric.
    panels: "deletion" and "insertion", each with a line by method.
    random: The line of random orders, by panel.
    random_name: Its name in the legend.
  """
  figure = Figure(figsize=(10.5, 3.8), layout="constrained")
  grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
  for axes, (panel, lines) in zip(grid, panels.items(), strict=True):
    for index, (method, line) in enumerate(lines.items()):
      color = COLORS[index % (len(COLORS) - 1)]  # The last is grey, for random orders.
      # Lines may coincide, so each has its own markers at its own fractions.
      marks = dict(marker=_MARKS[index % len(_MARKS)], ms=6, markevery=(index + 1, 7))
      axes.plot(line.fractions, line.values, color=color, label=method, **marks)
      if line.lower is not None:
        band = dict(color=color, alpha=0.1, lw=0)
        axes.fill_between(line.fractions, line.lower, line.upper, **band)
    line = random[panel]
    style = dict(color=GREY, ls="--", lw=1.6, label=random_name)
    axes.plot(line.fractions, line.values, **style)
    verb = {"deletion": "removed", "insertion": "inserted"}.get(panel, panel)
    axes.set(title=panel, xlabel=f"share of elements {verb}, highest score first")
    axes.set(xlim=(0, 1))
  grid[0].set_ylabel(metric)
  handles, labels = grid[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
  clean(*grid)
  return figure


def agreement(methods: Sequence[str], values: np.ndarray) -> Figure:
  """Rank correlations of methods as a matrix `[m, m]`; a dash for NaN."""
  side = 0.62 * len(methods)
  figure = Figure(figsize=(side + 2.3, side + 1.4), layout="constrained")
  axes = figure.subplots()
  picture = axes.imshow(values, cmap="RdBu", vmin=-1, vmax=1)
  for (row, column), value in np.ndenumerate(values):
    text = "–" if np.isnan(value) else f"{value:.2f}"  # noqa: RUF001
    color = "white" if abs(value) > 0.65 else "black"
    axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
  places = range(len(methods))
  axes.set_xticks(places, methods, rotation=40, ha="right", fontsize=8)
  axes.set_yticks(places, methods, fontsize=8)
  axes.spines[:].set_visible(False)
  axes.tick_params(length=0)
  bar = figure.colorbar(picture, shrink=0.8)
  bar.set_label("rank correlation", fontsize=8)
  bar.ax.tick_params(labelsize=7)
  return figure


def ranked_elements(
  panels: Mapping[str, Sequence[Sequence[Bar]]], modalities: Sequence[str]
) -> Figure:
  """The extreme scores of one example: a panel per method, a bar per element.

  Args:
    panels: Groups of bars by method, such as highest and lowest scores; groups are
      drawn with a gap between them.
    modalities: All modalities; their order sets the colours, the same in all figures.
  """
  rows, columns = _grid(len(panels), 3)
  heights = [sum(len(g) + 1 for g in groups) for groups in panels.values()]
  tallest = max(*heights, 4)
  colors = dict(zip(modalities, _colors(modalities), strict=True))
  shown = {b.modality for groups in panels.values() for g in groups for b in g}
  names = [name for name in modalities if name in shown]
  longest = max((len(_short(name)) for name in names), default=0)
  ncols = max(1, int(36 * columns / (longest + 8)))  # About ten characters per inch.
  height = rows * (0.7 + 0.17 * tallest) + 0.2 + 0.19 * math.ceil(len(names) / ncols)
  figure = Figure(figsize=(3.6 * columns, height), layout="constrained")
  grid = figure.subplots(rows, columns, squeeze=False)
  for axes, (method, groups) in zip(grid.flat, panels.items(), strict=False):
    _bars(axes, groups, colors)
    axes.set_title(method, fontsize=9)
    axes.set_ylim(tallest - 1.2, -0.8)
    clean(axes)
  for axes in grid.flat[len(panels) :]:
    axes.set_visible(False)
  if names:
    handles = [Patch(color=colors[name], label=_short(name)) for name in names]
    style = dict(loc="outside lower center", frameon=False, fontsize=8)
    legend = figure.legend(handles=handles, ncols=ncols, **style)
    for text in legend.get_texts():
      text.set_parse_math(False)
  return figure


def _bars(
  axes: Axes, groups: Sequence[Sequence[Bar]], colors: Mapping[str, str]
) -> None:
  """Draw the bars of one method from top to bottom."""
  bars, places, place = [], [], 0
  for group in groups:
    bars += group
    places += range(place, place + len(group))
    place += len(group) + 1
  if not bars:
    axes.text(0.5, 0.5, "no elements", transform=axes.transAxes, ha="center")
    axes.set(xticks=[], yticks=[])
    return
  axes.barh(
    places,
    [bar.score for bar in bars],
    xerr=[bar.error or 0 for bar in bars] if any(bar.error for bar in bars) else None,
    color=[colors[bar.modality] for bar in bars],
    height=0.75,
    error_kw={"elinewidth": 0.8, "ecolor": "black"},
  )
  axes.axvline(0, color="black", lw=0.6)
  labels = [_short(bar.text) for bar in bars]
  axes.set_yticks(places, labels, fontsize=7.5, parse_math=False)
  axes.tick_params(axis="y", length=0)
  axes.tick_params(axis="x", labelsize=7)
  axes.locator_params(axis="x", nbins=5)
  axes.ticklabel_format(axis="x", scilimits=(-3, 4))
  axes.xaxis.get_offset_text().set_fontsize(7)


def _grid(panels: int, most: int) -> tuple[int, int]:
  """Numbers of rows and columns, at most `most` columns, the last row nearly full."""
  rows = math.ceil(panels / most)
  return rows, math.ceil(panels / rows)


def _colors(modalities: Sequence[str]) -> list[str]:
  return [COLORS[index % len(COLORS)] for index in range(len(modalities))]


def _short(text: str) -> str:
  return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
