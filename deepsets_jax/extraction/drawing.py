"""Drawing of what extractors found in pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from deepsets_jax.extraction.protocol import Extraction
from deepsets_jax.figures.style import COLORS, GREY

# Widths of a picture with margins and of a margin, and height of a line, in inches.
_WIDTH, _MARGIN, _LINE = 4.4, 0.14, 0.19
_LONGEST = 54  # Most characters of a line.
_MOST = 8  # Most elements to list of a modality.


class _Entry(NamedTuple):
  """A line of text under a picture."""

  text: str
  color: str
  heading: bool


def draw_extractions(
  samples: Sequence[tuple[np.ndarray, Mapping[str, Extraction]]],
) -> Figure:
  """Draw pictures side by side with boxes, and below each a list of its elements.

  Args:
    samples: For each picture, its pixels `[h, w, 3]` uint8 and extractions by modality.
      A modality has one colour in all pictures. The number of an element is at its box
      and in the list.
  """
  names = list(dict.fromkeys(name for _, found in samples for name in found))
  colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(names)}
  listed = [list(_entries(found, colors)) for _, found in samples]
  inner = _WIDTH - 2 * _MARGIN
  tall = [image.shape[0] / image.shape[1] * inner for image, _ in samples]
  height = max(t + (len(x) + 1) * _LINE for t, x in zip(tall, listed, strict=True))
  width = len(samples) * _WIDTH
  figure = Figure(figsize=(width, height))
  for i, ((image, found), entries) in enumerate(zip(samples, listed, strict=True)):
    left = i * _WIDTH + _MARGIN
    place = (left / width, 1 - tall[i] / height, inner / width, tall[i] / height)
    _picture(figure.add_axes(place), image, found, colors)
    for row, entry in enumerate(entries):
      figure.text(
        (left + (0 if entry.heading else _MARGIN)) / width,
        1 - (tall[i] + (row + 0.5) * _LINE) / height,
        entry.text,
        color=entry.color,
        weight="bold" if entry.heading else "normal",
        fontsize=8.7,
        va="top",
        parse_math=False,
      )
  return figure


def _picture(
  axes: Axes,
  image: np.ndarray,
  found: Mapping[str, Extraction],
  colors: Mapping[str, str],
) -> None:
  """Draw the image, a rectangle per box, and its number at the top left corner."""
  height, width = image.shape[:2]
  axes.imshow(image)
  axes.set_axis_off()
  for name, elements in found.items():
    for i, box in enumerate([] if elements.boxes is None else elements.boxes):
      left, top, right, bottom = box * [width, height, width, height]
      corner, size = (left, top), (right - left, bottom - top)
      edge = dict(fill=False, edgecolor=colors[name], linewidth=1.5)
      axes.add_patch(Rectangle(corner, *size, **edge))
      tag = dict(facecolor=colors[name], edgecolor="none", pad=1.2)
      style = dict(color="white", fontsize=7, weight="bold", ha="right", va="top")
      axes.text(left, top, f"{i + 1}", bbox=tag, **style)
  axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def _entries(
  found: Mapping[str, Extraction], colors: Mapping[str, str]
) -> Iterator[_Entry]:
  """A heading for each modality with its number of elements, then its elements."""
  for name, elements in found.items():
    count, dimension = elements.vectors.shape
    kind = f"{count} x {dimension} numbers" if count else "none"
    yield _Entry(f"{name}: {kind}", colors[name] if count else GREY, True)
    for i in range(min(count, _MOST)):
      yield _Entry(_describe(elements, i), colors[name], False)
    if count > _MOST:
      yield _Entry(f"and {count - _MOST} more", colors[name], False)


def _describe(elements: Extraction, i: int) -> str:
  """The number of an element, with its string and score if it has them."""
  parts = [f"{i + 1}"]
  if elements.strings is not None:
    string = elements.strings[i]
    parts.append(f"{string[:_LONGEST]}..." if len(string) > _LONGEST else string)
  if elements.scores is not None:
    parts.append(f"{elements.scores[i]:.2f}")
  return "  ".join(parts)
