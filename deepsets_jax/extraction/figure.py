"""What extractors found in pictures: the paper's first figure, for real.

The one in the README, of three pictures that scikit-image has (with the extra
`extract`):

  python -m deepsets_jax.extraction.figure --output=docs/extract.png
"""

from __future__ import annotations

import argparse
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from deepsets_jax.figures import style
from deepsets_jax.figures.style import COLORS, GREY
from deepsets_jax.foundation.files import replacing

if TYPE_CHECKING:
  from deepsets_jax.extraction.protocol import Extraction

# In inches: of a picture with its margins, of a margin, of a line of text.
_WIDTH, _MARGIN, _LINE = 4.4, 0.14, 0.19
_LONGEST = 54  # Characters of a line.
_MOST = 8  # Elements of a modality that are listed.


class _Entry(NamedTuple):
  """A line under a picture."""

  text: str
  color: str
  heading: bool


def draw(image: np.ndarray, found: Mapping[str, Extraction]) -> Figure:
  """A picture with the boxes of what was found, and under it a list by modality.

  Args:
    image: `[h, w, 3]` uint8.
    found: By modality. An element's number is at its box and in the list.
  """
  return draw_all([(image, found)])


def draw_all(samples: Sequence[tuple[np.ndarray, Mapping[str, Extraction]]]) -> Figure:
  """Several pictures side by side, each as in `draw`; a modality has one colour."""
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
  """The image, a rectangle for each box, and its number beside the top left."""
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
  """A heading for each modality with its number of elements, and a line for each."""
  for name, elements in found.items():
    count, dimension = elements.vectors.shape
    kind = f"{count} x {dimension} numbers" if count else "none"
    yield _Entry(f"{name}: {kind}", colors[name] if count else GREY, True)
    for i in range(min(count, _MOST)):
      yield _Entry(_describe(elements, i), colors[name], False)
    if count > _MOST:
      yield _Entry(f"and {count - _MOST} more", colors[name], False)


def _describe(elements: Extraction, i: int) -> str:
  """An element's number, its string and score, where it has these."""
  parts = [f"{i + 1}"]
  if elements.strings is not None:
    string = elements.strings[i]
    parts.append(f"{string[:_LONGEST]}..." if len(string) > _LONGEST else string)
  if elements.scores is not None:
    parts.append(f"{elements.scores[i]:.2f}")
  return "  ".join(parts)


def main(output: str) -> None:
  """Writes the figure of three pictures of scikit-image's."""
  import skimage.data

  from deepsets_jax.extraction import registry

  extractors = [
    registry.build_extractor("image"),
    registry.build_extractor("faces"),
    registry.build_extractor("regions", count=4),
    registry.build_extractor("lines"),
  ]
  page = np.repeat(skimage.data.page()[..., None], 3, axis=2)
  samples = []
  for image in (skimage.data.astronaut(), page, skimage.data.chelsea()):
    found = {extractor.name: extractor([image])[0] for extractor in extractors}
    samples.append((image, found))
  _save_small(draw_all(samples), pathlib.Path(output))


def _save_small(figure: Figure, path: pathlib.Path) -> None:
  """Writes a PNG of 256 colours, to a temporary name first.

  Photographs as they are would take four times as much. The colours of the modalities
  are among the 256: a method that counts pixels forgets those of letters.
  """
  import PIL.Image

  buffer = io.BytesIO()
  style.write_png(figure, buffer, dpi=110)
  image = PIL.Image.open(buffer).convert("RGB")
  ours = [round(255 * x) for color in (*COLORS, "white") for x in to_rgb(color)]
  theirs = image.quantize(255 - len(COLORS)).getpalette()
  palette = PIL.Image.new("P", (1, 1))
  palette.putpalette(ours + theirs[: 768 - len(ours)])
  with replacing(path) as temporary:
    image.quantize(palette=palette).save(temporary, format="png", optimize=True)


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument("--output", required=True, help="PNG file")
  main(parser.parse_args().output)
