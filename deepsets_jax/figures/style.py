"""Shared style of all figures: colours, and how a figure is saved."""

from __future__ import annotations

import functools
import pathlib
from typing import IO

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from deepsets_jax.foundation.files import replacing

# Colours that are distinct for all kinds of colour vision (Okabe and Ito, 2008).
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#8c8c8c"
LIGHT_BLUE = "#9ccfee"
COLORS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", GREY)


def save(figure: Figure, path: str | pathlib.Path) -> None:
  """Write a figure as PNG, replacing the file."""
  with replacing(path) as temporary:
    write_png(figure, temporary, dpi=150)


def write_png(figure: Figure, file: str | pathlib.Path | IO[bytes], dpi: int) -> None:
  """Write a figure as PNG, in fonts that have its characters.

  A character that no installed font has, such as a Chinese one on a server, is drawn as
  its escape and not as a box.
  """
  for axes in figure.axes:
    for axis in (axes.xaxis, axes.yaxis):
      labels = [label.get_text() for label in axis.get_ticklabels()]
      if any(_legible(label) != label for label in labels):
        axis.set_ticks(axis.get_ticklocs(), [_legible(label) for label in labels])
  for text in figure.findobj(Text):
    text.set_text(_legible(text.get_text()))
    if not text.get_text().isascii():
      text.set_fontfamily([*text.get_fontfamily(), *_families(text.get_text())])
  figure.savefig(file, format="png", dpi=dpi)


def _legible(text: str) -> str:
  """The text with characters that no installed font has replaced by their escapes."""
  if text.isascii():
    return text
  return "".join(
    c if c.isascii() or _family(c) is not None else c.encode("unicode_escape").decode()
    for c in text
  )


def _families(text: str) -> list[str]:
  """The fonts that have the characters of a text."""
  found = (_family(c) for c in text if not c.isascii())
  return list(dict.fromkeys(family for family in found if family is not None))


@functools.cache
def _family(character: str) -> str | None:
  """The first font that has a character, the default font before all others."""
  usual = font_manager.findfont(font_manager.FontProperties())
  # The last-resort font has a box for every character.
  fonts = [
    font
    for font in font_manager.fontManager.ttflist
    if not font.name.startswith(("Last Resort", "LastResort"))
  ]
  for font in sorted(fonts, key=lambda font: font.fname != usual):
    try:
      if font_manager.get_font(font.fname).get_char_index(ord(character)):
        return font.name
    except (OSError, RuntimeError):
      continue  # The font cannot be read.
  return None


def clean(*axes: Axes) -> None:
  """Remove the top and right frame lines."""
  for one in axes:
    one.spines[["top", "right"]].set_visible(False)
