"""Figure of several models: quality against cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib import colors as mcolors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from deepsets_jax.figures.style import BLUE, GREY, ORANGE, clean


def quality_against_cost(
  names: Sequence[str],
  costs: Mapping[str, Sequence[float | None]],
  quality: Mapping[str, Sequence[tuple[float | None, float | None]]],
  baseline: str | None = None,
) -> Figure:
  """Models as labelled points, with a row of panels per metric and a column per cost.

  Args:
    names: Names of the models.
    costs: One number per model, by axis label; the axis is logarithmic.
    quality: Mean and standard deviation of each model, by metric. A model without a
      mean or a cost (None) is left out; without a deviation (None) it has no error bar.
    baseline: Name of the model to draw in another colour.
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
      clean(axes)
      _log_scale(axes, [x for _, x, _, _ in points])
      for name, x, mean, deviation in points:
        color = ORANGE if name == baseline else BLUE
        bar = mcolors.to_rgba(color, 0.4)
        axes.errorbar(
          x, mean, deviation, color=color, ecolor=bar, marker="o", ms=5, label=name
        )
  figure.draw_without_rendering()  # Fixes the layout, and so the points' places.
  for axes in grid.ravel():
    _label_points(axes)
  return figure


def _log_scale(axes: Axes, numbers: Sequence[float]) -> None:
  """Set limits that leave room for labels, and ticks such as 1 M, 2 M, 5 M."""
  low, high = (min(numbers), max(numbers)) if numbers else (1.0, 1.0)
  # At least a factor of two, so that models of about one size appear close.
  room = max((high / low) ** 0.15, 1.45)
  axes.set(xscale="log", xlim=(low / room, high * room))
  subs = "all" if high <= 4 * low else (1, 2, 5) if high <= 100 * low else (1,)
  axes.xaxis.set_major_locator(LogLocator(subs=subs))
  axes.xaxis.set_major_formatter(EngFormatter())
  axes.xaxis.set_minor_formatter(NullFormatter())
  axes.margins(y=0.12)


def _label_points(axes: Axes) -> None:
  """Write each point's name where it overlaps least, as near as possible."""
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
    leader = dict(arrowstyle="-", color=GREY, lw=0.6, shrinkA=0, shrinkB=3)
    arrow = None if anchor is None else leader | {"relpos": (anchor, 0.5)}
    text = axes.annotate(name, point, xytext=offset, arrowprops=arrow, **style)
    text.set_in_layout(False)
    text.set_path_effects([withStroke(linewidth=2, foreground="white")])


def _boxes(box: Bbox, offset: tuple[float, float], anchor: float | None) -> list[Bbox]:
  """The area of a label: its text, and three spots on the line to it.

  Args:
    box: Box of the text if it were at its point.
    offset: Offset of the text from its point, in pixels.
    anchor: Where the line meets the text, 0 (left) to 1 (right); None for no line.
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
  """Candidate offsets of a label from its point, in points, nearest first.

  Yields:
    The offsets in x and y, and where the line from the point meets the label, 0 to 1;
    None for a label that is near enough to need no line.
  """
  for distance in (7, 14, 22, 32, 44, 58):
    far = distance > 7
    heights = (distance / 2, -distance / 2, 0, distance, -distance) if far else (0,)
    for x, anchor in ((distance, 0.0), (-distance - width, 1.0)):
      yield from ((x, y - 3, anchor if far else None) for y in heights)
    for y in (distance + 3, -distance - 3):
      yield -width / 2, y - 3, 0.5 if far else None


def _in_the_way(place: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
  """Area of `place` that is taken or outside of the frame."""
  overlaps = [Bbox.intersection(place, other) for other in (*taken, frame)]
  *inside, within = [0.0 if o is None else o.width * o.height for o in overlaps]
  return sum(inside) + place.width * place.height - within
