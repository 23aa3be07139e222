"""What all pictures share: colours, and how a figure is cleaned and saved."""

from __future__ import annotations

import functools
import pathlib
from typing import IO

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from deepsets_jax.foundation.files import replacing

# Colours that are told apart whatever one's eyes (Okabe and Ito, 2008).
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#8c8c8c"
LIGHT_BLUE = "#9ccfee"
COLORS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", GREY)


def save(figure: Figure, path: str | pathlib.Path) -> None:
  """Writes a figure as PNG, replacing the file."""
  with replacing(path) as temporary:
    write_png(figure, temporary, dpi=150)


def write_png(figure: Figure, file: str | pathlib.Path | IO[bytes], dpi: int) -> None:
  """Writes a figure, in fonts that have its characters.

  Of a character that no installed font has, such as one of Chinese on a server, the
  escape is drawn, not a box.
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
  """The text, with the escape of each character that no installed font has."""
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
  """The first font that has a character, the usual one before all others."""
  usual = font_manager.findfont(font_manager.FontProperties())
  # The last resort has a box for every character.
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
      continue  # A font that cannot be read.
  return None


def clean(*axes: Axes) -> None:
  """Takes away the frame lines that say nothing."""
  for one in axes:
    one.spines[["top", "right"]].set_visible(False)
