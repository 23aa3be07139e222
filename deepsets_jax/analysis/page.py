"""The page of an explanation: one HTML file that needs no network and no scripts.

The template `page.html.jinja` takes the plain values of `explain.json` and PNG
pictures.
"""

from __future__ import annotations

import base64
import functools
import io
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
from matplotlib.figure import Figure

from deepsets_jax.figures import style
from deepsets_jax.foundation.files import write_bytes, write_text

# Most rows of a table of columns.
_MOST_COLUMNS = 20


class Meaning(NamedTuple):
  """The text of the page about a method.

  Attributes:
    text: The meaning of its scores.
    uses_output: Whether the scores depend on the explained output.
  """

  text: str
  uses_output: bool


MEANINGS = {
  "argmax": Meaning(
    "share of the max- and min-pooled features that the element wins", False
  ),
  "attention": Meaning("weight of the element in the model's attention", False),
  "shapley": Meaning(
    "mean gain of output when the modality is added, over all orders of modalities",
    True,
  ),
  "element_shapley": Meaning(
    "mean gain of output when the element is added, over orders of elements", True
  ),
  "leave_one_out": Meaning("loss of output when the element is removed", True),
  "gradient_x_input": Meaning(
    "gradient of the output at the element, times the element", True
  ),
  "integrated_gradients": Meaning(
    "mean gradient on the path from zero vectors to the elements, times the element",
    True,
  ),
}


def write_page(
  folder: pathlib.Path, summary: Mapping[str, Any], drawn: Mapping[str, Figure]
) -> None:
  """Write `index.html` and a PNG per figure, and remove old pictures of examples.

  Args:
    folder: Where to write; created if it does not exist.
    summary: The values of `explain.json`.
    drawn: The figures of `figures.attribution.draw`, by name.
  """
  folder.mkdir(parents=True, exist_ok=True)
  images = pictures(drawn)
  for path in folder.glob("example_*.png"):
    if path.stem not in images:
      path.unlink()
  for name, image in images.items():
    write_bytes(folder / f"{name}.png", image)
  page = _template().render(**_context(summary, images), document=True)
  write_text(folder / "index.html", page)


def fragment(summary: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
  """The content of the page as a style and a section, for a notebook."""
  return _template().render(**_context(summary, images), document=False)


def pictures(drawn: Mapping[str, Figure]) -> dict[str, bytes]:
  """The figures as PNG files."""
  images = {}
  for name, figure in drawn.items():
    file = io.BytesIO()
    style.write_png(figure, file, dpi=130)
    images[name] = file.getvalue()
  return images


@functools.cache
def _template() -> jinja2.Template:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader(__package__, "."),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters |= {
    "base64": lambda data: base64.b64encode(data).decode(),
    "color": _color,
    "element_rows": _element_rows,
    "setting": _setting,
  }
  return environment.get_template("page.html.jinja")


def _context(summary: Mapping[str, Any], images: Mapping[str, bytes]) -> dict[str, Any]:
  methods = summary["methods"]
  return {
    **summary,
    "images": images,
    "meanings": MEANINGS,
    "shares": {name: method["shares"] for name, method in methods.items()},
    "column_tables": list(_column_tables(methods)),
  }


def _column_tables(
  methods: Mapping[str, Any],
) -> Iterator[tuple[str, dict[str, Mapping[str, float]], int, list[str]]]:
  """For each modality of columns: name, shares, number of columns, those to show.

  The shares are by method and column; the columns to show have the largest shares.
  """
  scored = {name: m["columns"] for name, m in methods.items() if m["columns"]}
  for modality in next(iter(scored.values()), {}):
    shares = {name: columns[modality] for name, columns in scored.items()}
    columns = list(next(iter(shares.values())))
    columns.sort(key=lambda c: -max(share[c] for share in shares.values()))
    yield modality, shares, len(columns), columns[:_MOST_COLUMNS]


def _element_rows(
  elements: Mapping[str, Mapping[str, Sequence[Any]]],
) -> Iterator[tuple[Mapping[str, Any] | None, ...]]:
  """Rows of a table with a column of elements per method; None below its last."""
  columns = [
    [element for group in groups.values() for element in group]
    for groups in elements.values()
  ]
  return itertools.zip_longest(*columns)


def _setting(value: Any) -> str:
  """A setting of the config as text, or a group of settings without the unset ones."""
  if isinstance(value, Mapping):
    given = [f"{k} {_setting(v)}" for k, v in value.items() if v is not None]
    return ", ".join(given).removeprefix("name ")
  if isinstance(value, list | tuple):
    return f"[{', '.join(map(_setting, value))}]"
  return f"{value:.4g}" if isinstance(value, float) else str(value)


def _color(value: float | Sequence[float]) -> str:
  """The hexadecimal colour of a grey value, or of red, green and blue, each 0 to 1."""
  rgb = value if isinstance(value, Sequence) else [value] * 3
  return "#" + "".join(f"{round(255 * min(max(part, 0), 1)):02x}" for part in rgb)
