"""What all pictures share: colours, and how a figure is cleaned and saved."""

from __future__ import annotations

import pathlib

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Colours that are told apart whatever one's eyes (Okabe and Ito, 2008).
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#8c8c8c"
LIGHT_BLUE = "#9ccfee"
COLORS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", GREY)


def save(figure: Figure, path: str | pathlib.Path) -> None:
  """Writes a PNG to a temporary name and renames it."""
  path = pathlib.Path(path)
  temporary = path.with_name(f".{path.name}.tmp")
  figure.savefig(temporary, format="png", dpi=150)
  temporary.replace(path)


def clean(*axes: Axes) -> None:
  """Takes away the frame lines that say nothing."""
  for one in axes:
    one.spines[["top", "right"]].set_visible(False)
