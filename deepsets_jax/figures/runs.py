"""Pictures of a run, as matplotlib figures without a window or global state."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colors as mcolors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

# Two colours that are told apart whatever one's eyes.
_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#8c8c8c"
_LIGHT_BLUE = "#9ccfee"


def save(figure: Figure, path: str | pathlib.Path) -> None:
  """Writes a PNG to a temporary name and renames it."""
  path = pathlib.Path(path)
  temporary = path.with_name(f".{path.name}.tmp")
  figure.savefig(temporary, format="png", dpi=150)
  temporary.replace(path)


def learning_curves(
  records: Sequence[Mapping[str, Any]], metric: str, best_step: int
) -> Figure:
  """Loss of both splits, and a validation metric with the best step marked.

  Args:
    records: Lines of `metrics.jsonl`.
    metric: Of validation.
    best_step: Of the checkpoint that is kept.
  """
  figure = Figure(figsize=(9, 3.5), layout="constrained")
  left, right = figure.subplots(1, 2)
  for split, color in (("train", _GREY), ("validation", _BLUE)):
    left.plot(*_series(records, split, "loss"), color=color, label=split, lw=1.5)
  left.set(title="loss", xlabel="step")
  left.legend(frameon=False)
  right.plot(*_series(records, "validation", metric), color=_BLUE, marker=".")
  right.axvline(
    best_step, color=_ORANGE, lw=1, ls="--", label=f"best, step {best_step}"
  )
  right.set(title=f"validation {metric}", xlabel="step")
  right.legend(frameon=False)
  _clean(left, right)
  return figure


def label_f1(names: Sequence[str], f1: np.ndarray, support: np.ndarray) -> Figure:
  """A bar per label, best first, with its number of positives."""
  order = np.argsort(f1, kind="stable")
  height = 1.2 + 0.17 * len(names)
  figure = Figure(figsize=(7, height), layout="constrained")
  axes = figure.subplots()
  rows = np.arange(len(names))
  axes.barh(rows, f1[order], color=_BLUE, height=0.7)
  for row, label in enumerate(order):
    axes.text(f1[label] + 0.01, row, f"{f1[label]:.2f}", va="center", fontsize=6.5)
  labels = [f"{names[i]}  ({int(support[i])})" for i in order]
  # A "$" in a name is no formula.
  axes.set_yticks(rows, labels, fontsize=7, parse_math=False)
  axes.axvline(f1.mean(), color=_ORANGE, lw=1, ls="--", label=f"mean {f1.mean():.3f}")
  axes.set(title="F1 by label (positives)", xlabel="F1 on test", xlim=(0, 1.05))
  axes.set_ylim(-0.7, len(names) - 0.3)
  axes.legend(frameon=False, loc="lower right")
  _clean(axes)
  return figure


def set_sizes(
  lengths: Mapping[str, np.ndarray],
  budgets: Mapping[str, int],
  fills: Mapping[str, float],
) -> Figure:
  """Per modality how many elements examples have, and how full the slots are.

  Args:
    lengths: Elements of each example, by modality: `[b]`.
    budgets: Slots of a shard, by modality.
    fills: Share of the slots that hold an element, by modality.
  """
  figure = Figure(figsize=(9, 0.6 + 1.1 * len(lengths)), layout="constrained")
  grid = figure.subplots(len(lengths), 2, width_ratios=(3, 1), squeeze=False)
  for row, (name, length) in enumerate(lengths.items()):
    left, right = grid[row]
    bins = np.unique(np.geomspace(1, max(length.max(), 2) + 1, 30).astype(int))
    left.hist(length[length > 0], bins=bins, color=_BLUE)
    left.set(xscale="log", ylabel="examples", ylim=(0, None))
    left.xaxis.set_major_formatter("{x:g}")
    left.xaxis.set_minor_formatter("")
    left.set_title(
      f"{name}: {(length == 0).mean():.0%} without, mean {length.mean():.1f},"
      f" largest {length.max()}",
      loc="left",
      fontsize=9,
    )
    right.barh([0], [1], color="#e6e6e6")
    right.barh([0], [fills[name]], color=_LIGHT_BLUE)
    right.text(
      0.5, 0, f"{fills[name]:.0%} of {budgets[name]}", ha="center", va="center"
    )
    right.set(xlim=(0, 1), yticks=[], xticks=[])
  grid[0, 1].set_title("slots filled", fontsize=9)
  grid[-1, 0].set_xlabel("elements per example")
  _clean(*grid.ravel())
  return figure


def _series(
  records: Sequence[Mapping[str, Any]], split: str, name: str
) -> tuple[list[int], list[float]]:
  points = [(r["step"], r[name]) for r in records if r["split"] == split and name in r]
  return [step for step, _ in points], [np.nan if v is None else v for _, v in points]


def _clean(*axes: Axes) -> None:
  for one in axes:
    one.spines[["top", "right"]].set_visible(False)


def quality_against_cost(
  names: Sequence[str],
  costs: Mapping[str, Sequence[float | None]],
  quality: Mapping[str, Sequence[tuple[float | None, float | None]]],
  baseline: str | None = None,
) -> Figure:
  """Each model as a labelled point: a row per metric, a column per cost.

  Args:
    names: Of the models.
    costs: By name of the axis, a number of each model; the axis is logarithmic.
    quality: By metric, mean and standard deviation of each model. A model is left out
      where its mean or cost is None; a deviation that is None has no bar.
    baseline: The model in another colour.
  """
  size = (5.8 * len(costs), 4.0 * len(quality))
  figure = Figure(figsize=size, layout="constrained")
  grid = figure.subplots(len(quality), len(costs), squeeze=False, sharey="row")
  for row, (metric, spreads) in zip(grid, quality.items(), strict=True):
    row[0].set_ylabel(metric)
    for axes, (cost, numbers) in zip(row, costs.items(), strict=True):
      points = [
        (name, x, *spread)
        for name, x, spread in zip(names, numbers, spreads, strict=True)
        if x and spread[0] is not None
      ]
      axes.set(xlabel=cost)
      _clean(axes)
      _log_scale(axes, [x for _, x, _, _ in points])
      for name, x, mean, deviation in points:
        color = _ORANGE if name == baseline else _BLUE
        bar = mcolors.to_rgba(color, 0.4)
        axes.errorbar(
          x, mean, deviation, color=color, ecolor=bar, marker="o", ms=5, label=name
        )
  figure.draw_without_rendering()  # Only now it is known where the points are.
  for axes in grid.ravel():
    _label_points(axes)
  return figure


def _log_scale(axes: Axes, numbers: Sequence[float]) -> None:
  """Limits around the numbers that leave room for labels; ticks as 1 M, 2 M, 5 M."""
  low, high = (min(numbers), max(numbers)) if numbers else (1.0, 1.0)
  # A factor of two at least: models made to be of one size look as if they were.
  room = max((high / low) ** 0.15, 1.45)
  axes.set(xscale="log", xlim=(low / room, high * room))
  subs = "all" if high <= 4 * low else (1, 2, 5) if high <= 100 * low else (1,)
  axes.xaxis.set_major_locator(LogLocator(subs=subs))
  axes.xaxis.set_major_formatter(EngFormatter())
  axes.xaxis.set_minor_formatter(NullFormatter())
  axes.margins(y=0.12)


def _label_points(axes: Axes) -> None:
  """Writes each point's name where the least is in the way, near if it can be."""
  pixels = axes.figure.dpi / 72
  points, taken = [], []
  for container in axes.containers:
    line, _, bars = container.lines
    (point,) = line.get_xydata()
    points.append((container.get_label(), point))
    taken.append(Bbox([axes.transData.transform(point)] * 2).padded(5 * pixels))
    for bar in bars:
      ends = axes.transData.transform(bar.get_segments()[0])
      taken.append(Bbox(ends).padded(pixels))
  frame = axes.get_window_extent()
  for name, point in sorted(points, key=lambda x: x[1][1]):
    style = dict(textcoords="offset points", fontsize=8, parse_math=False)
    text = axes.annotate(name, point, xytext=(0, 0), **style)
    box = text.get_window_extent()
    text.remove()
    places = [
      (_boxes(box, (x * pixels, y * pixels), anchor), (x, y), anchor)
      for x, y, anchor in _offsets(box.width / pixels)
    ]
    boxes, offset, anchor = min(
      places, key=lambda place: sum(_in_the_way(b, taken, frame) for b in place[0])
    )
    taken += boxes
    leader = dict(arrowstyle="-", color=_GREY, lw=0.6, shrinkA=0, shrinkB=3)
    arrow = None if anchor is None else leader | {"relpos": (anchor, 0.5)}
    text = axes.annotate(name, point, xytext=offset, arrowprops=arrow, **style)
    text.set_in_layout(False)
    text.set_path_effects([withStroke(linewidth=2, foreground="white")])


def _boxes(box: Bbox, offset: tuple[float, float], anchor: float | None) -> list[Bbox]:
  """What a label takes up: its words, and spots of the line that leads to them.

  Args:
    box: Of the words, were they at their point.
    offset: Of the words from their point, in pixels.
    anchor: Where along the words the line ends, 0 to 1; None for no line.
  """
  words = box.translated(*offset)
  boxes = [words.padded(2)]
  if anchor is not None:
    start = np.array([box.x0, box.y0])
    end = (words.x0 + anchor * words.width, (words.y0 + words.y1) / 2)
    for part in (0.4, 0.6, 0.8):
      boxes.append(Bbox([start + part * (end - start)] * 2).padded(3))
  return boxes


def _offsets(width: float) -> Iterator[tuple[float, float, float | None]]:
  """Where a label of this width may begin, from its point, in points; nearest first.

  And where along it a line from the point ends, if it is so far that there is one.
  """
  for distance in (7, 14, 22, 32, 44, 58):
    far = distance > 7
    heights = (distance / 2, -distance / 2, 0, distance, -distance) if far else (0,)
    for x, anchor in ((distance, 0.0), (-distance - width, 1.0)):
      yield from ((x, y - 3, anchor if far else None) for y in heights)
    for y in (distance + 3, -distance - 3):
      yield -width / 2, y - 3, 0.5 if far else None


def _in_the_way(place: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
  """Area of a place that is taken or outside of the frame."""
  overlaps = [Bbox.intersection(place, other) for other in (*taken, frame)]
  *inside, within = [0.0 if o is None else o.width * o.height for o in overlaps]
  return sum(inside) + place.width * place.height - within
