"""Figures of the loss of models when data is missing, wrong or repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.figure import Figure

from deepsets_jax.figures.style import COLORS, clean

# Line styles and hatches of models after all colours are used.
_DASHES, _HATCHES = ("-", "--", ":"), ("", "///", "...")
# Heights of a bar and of a legend line, in inches.
_BAR, _LINE = 0.13, 0.2

# Mean and standard deviation; None where not available.
Spread = tuple[float | None, float | None]


def robustness_curves(
  metric: str,
  levels: Mapping[str, Sequence[float]],
  curves: Mapping[str, Mapping[str, np.ndarray]],
) -> Figure:
  """A panel per corruption, with a line per model and a band of ± sd over its runs.

  The panels share the y axis unless one of them would flatten the curves of the others.

  Args:
    metric: Name of the metric.
    levels: Levels by title of the panel, `[q]`. Rates up to 1 are shown in per cent,
      others as numbers of repetitions on a logarithmic axis.
    curves: The metric of each run by model and title: `[runs, q]`.
  """
  legend = len(curves) > 1
  size = (4.1 * len(levels), 3.4 + legend * (0.2 + _LINE * -(-len(curves) // 4)))
  figure = Figure(figsize=size, layout="constrained")
  share = _comparable([[one[name] for one in curves.values()] for name in levels])
  (grid,) = figure.subplots(1, len(levels), squeeze=False, sharey=share)
  for axes, (name, x) in zip(grid, levels.items(), strict=True):
    for index, of_model in enumerate(curves.values()):
      _line(axes, np.asarray(x), np.asarray(of_model[name]), index)
    axes.set(title=name)
    _level_axis(axes, x)
  grid[0].set_ylabel(metric)
  clean(*grid)
  if legend:
    _legend(figure, grid[0].lines, list(curves))
  else:
    figure.suptitle(_as_text(next(iter(curves))), fontsize=10)
  return figure


def _comparable(panels: Sequence[Sequence[np.ndarray]]) -> bool:
  """Whether no panel's values span more than five times those of every other."""
  flat = [np.concatenate([np.ravel(values) for values in panel]) for panel in panels]
  *_, second, most = sorted([0.0, *(values.max() - values.min() for values in flat)])
  return len(panels) < 2 or most <= 5 * second


def _line(axes: Axes, x: np.ndarray, values: np.ndarray, index: int) -> None:
  """The mean of a model's runs `[runs, q]`, with a band if there are several."""
  color, dash = COLORS[index % len(COLORS)], _DASHES[index // len(COLORS) % 3]
  mean = values.mean(axis=0)
  axes.plot(x, mean, color=color, ls=dash, lw=1.6, marker="o", ms=3)
  if len(values) > 1:
    sd = values.std(axis=0, ddof=1)
    axes.fill_between(x, mean - sd, mean + sd, color=color, alpha=0.18, lw=0)


def _level_axis(axes: Axes, levels: Sequence[float]) -> None:
  if max(levels) <= 1:
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    axes.set(xlabel="probability of each")
  else:
    axes.set_xscale("log", base=2)
    axes.set_xticks(levels, [f"{level:g}" for level in levels])
    axes.minorticks_off()
    axes.set(xlabel="repetitions")


def modality_bars(
  metric: str,
  alone: Mapping[str, Mapping[str, Spread]],
  cost: Mapping[str, Mapping[str, Spread]],
) -> Figure:
  """The metric with each modality alone, and the loss without it: a bar per model.

  Args:
    metric: Name of the metric.
    alone: The metric with only this modality, by model and modality. There may be other
      rows, such as "all modalities". Rows are drawn in the order of the first model.
    cost: Loss of the metric without the modality, by model and modality; positive means
      worse.
  """
  rows = list(next(iter(alone.values())))
  height = 1.3 + len(rows) * (0.14 + _BAR * len(alone)) + (len(alone) > 1) * 0.3
  figure = Figure(figsize=(9.5, max(height, 2.6)), layout="constrained")
  left, right = figure.subplots(1, 2, sharey=True)
  bars = _bars(left, rows, alone)
  _bars(right, rows, cost)
  left.set_yticks(range(len(rows)), [_as_text(row) for row in rows])
  left.set(title="this modality alone", xlabel=metric, ylim=(len(rows) - 0.5, -0.5))
  right.set(title="without this modality", xlabel=f"loss of {metric}")
  right.axvline(0, color="black", lw=0.8)
  right.spines["left"].set_visible(False)
  right.tick_params(left=False)
  clean(left, right)
  if len(alone) > 1:
    _legend(figure, bars, list(alone))
  else:
    figure.suptitle(_as_text(next(iter(alone))), fontsize=10)
  return figure


def _bars(
  axes: Axes, rows: Sequence[str], numbers: Mapping[str, Mapping[str, Spread]]
) -> list[Container]:
  """A group of bars in each row, one per model; no bar without a number."""
  height, groups = 0.8 / len(numbers), []
  for index, of_model in enumerate(numbers.values()):
    spreads = [of_model.get(row, (None, None)) for row in rows]
    places = np.arange(len(rows)) - 0.4 + (index + 0.5) * height
    # NaN is not drawn.
    means, errors = np.array(spreads, float).T
    bars = axes.barh(
      places,
      means,
      height * 0.9,
      xerr=None if np.isnan(errors).all() else errors,
      color=COLORS[index % len(COLORS)],
      hatch=_HATCHES[index // len(COLORS) % 3],
      error_kw={"lw": 0.8, "ecolor": "#404040"},
    )
    groups.append(bars)
  return groups


def _legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
  """Put the legend below the panels, where it hides nothing."""
  figure.legend(
    handles,
    [_as_text(name) for name in names],
    loc="outside lower center",
    ncols=min(len(names), 4),
    frameon=False,
  )


def _as_text(name: str) -> str:
  """A name with "$" escaped, so that matplotlib does not read it as a formula."""
  return name.replace("$", r"\$")
