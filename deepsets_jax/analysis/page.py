"""What decided, as a page: one HTML file that opens without a network or scripts.

Everything here is made of the plain values of `explain.json`.
"""

from __future__ import annotations

import base64
import html
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from deepsets_jax.figures import style
from deepsets_jax.foundation.files import write_bytes, write_text

# By method what it tells, and whether it knows what is explained.
MEANINGS = {
  "argmax": ("share of the max- and min-pooled features that an element won", False),
  "attention": ("weight of an element in the model's attention", False),
  "shapley": (
    "what a modality adds to the output, over all orders in which modalities may come",
    True,
  ),
  "element_shapley": (
    "what an element adds to the output, over orders in which elements may come",
    True,
  ),
  "leave_one_out": ("what the output loses when the part is not there", True),
  "gradient_x_input": ("the gradient of the output at an element, times it", True),
  "integrated_gradients": (
    "the gradient along the path from zero vectors to the elements, times them",
    True,
  ),
}

# Rows of a table of columns.
_MOST_COLUMNS = 20

_STYLE = """
.explanation {font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 1080px; margin: 0 auto; padding: 1em}
.explanation :is(h1, h2, h3) {line-height: 1.2; margin: 1.4em 0 .5em}
.explanation img {max-width: 100%; height: auto; display: block; margin: .5em 0}
.explanation table {border-collapse: collapse; margin: .5em 0; font-size: 13px}
.explanation :is(th, td) {padding: .2em .7em .2em 0; text-align: left;
  vertical-align: top; border-bottom: 1px solid #ddd; background: #fff; color: #222}
.explanation .wide {overflow-x: auto}
.explanation figure {display: inline-block; margin: 0 .6em .4em 0; text-align: center;
  font-size: 11px}
.explanation summary {cursor: pointer}
"""


def pictures(drawn: Mapping[str, Figure]) -> dict[str, bytes]:
  """The figures as PNG files."""
  found = {}
  for name, figure in drawn.items():
    file = io.BytesIO()
    style.write_png(figure, file, dpi=130)
    found[name] = file.getvalue()
  return found


def write_page(
  folder: pathlib.Path, summary: Mapping[str, Any], drawn: Mapping[str, Figure]
) -> None:
  """Writes `index.html` and a PNG per figure; removes those of examples of before."""
  folder.mkdir(parents=True, exist_ok=True)
  images = pictures(drawn)
  for path in folder.glob("example_*.png"):
    if path.stem not in images:
      path.unlink()
  for name, image in images.items():
    write_bytes(folder / f"{name}.png", image)
  title = html.escape(f"What decided: {summary['run'] or 'a model'}")
  document = (
    f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    f"<title>{title}</title>\n</head>\n<body>\n{fragment(summary, images)}\n</body>\n"
    "</html>\n"
  )
  write_text(folder / "index.html", document)


def fragment(summary: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
  """The page's content, as a notebook shows it: a style and a section."""
  parts = [
    *_header(summary),
    *_methods(summary),
    *_data_set(summary, images),
    *_columns_of(summary),
    *_faithfulness(summary, images),
    "<h2>Examples</h2>",
  ]
  for number, example in enumerate(summary["chosen"], 1):
    parts += _example(example, images[f"example_{number}"])
  body = "\n".join(parts)
  return f'<style>{_STYLE}</style>\n<section class="explanation">\n{body}\n</section>'


def _header(summary: Mapping[str, Any]) -> list[str]:
  first = next(iter(summary["methods"].values()))["deletion"]["values"][0]
  what = "what speaks for the prediction"
  if summary["label"] is not None:
    what = f"the label {summary['label']}"
  config = [[_text(k), _text(_setting(v))] for k, v in summary["config"].items()]
  return [
    f"<h1>What decided: {_text(summary['run'] or 'a model')}</h1>",
    _table([], config),
    f"<p>Numbers of the data set are of {summary['examples']} random examples of the"
    f" {summary['examples_of_split']} of the split {_text(summary['split'])} (seed"
    f" {summary['seed']}), where the model's {_text(summary['metric'])} is"
    f" {first:.3f}. Explained is {_text(what)}.</p>",
  ]


def _setting(value: Any) -> str:
  """A setting, or a group of them by name; those that are unset are left out."""
  if isinstance(value, Mapping):
    given = [f"{k} {_setting(v)}" for k, v in value.items() if v is not None]
    return ", ".join(given).removeprefix("name ")
  if isinstance(value, list | tuple):
    return f"[{', '.join(map(_setting, value))}]"
  return f"{value:.4g}" if isinstance(value, float) else str(value)


def _methods(summary: Mapping[str, Any]) -> list[str]:
  methods = summary["methods"]
  rows = [
    [
      _text(name),
      MEANINGS[name][0],
      "elements" if facts["tells_elements"] else "modalities",
      "the output" if MEANINGS[name][1] else "nothing of the output",
    ]
    for name, facts in methods.items()
  ]
  blind = [name for name in methods if not MEANINGS[name][1]]
  notes = [
    f"<p>{name} is the same whatever is explained: a part may stand high though the"
    " head makes nothing of it.</p>"
    for name in blind
  ]
  for facts in methods.values():
    notes += [f"<p>{_text(note)}</p>" for note in facts["notes"]]
  if "element_shapley" in methods:
    notes.append(
      f"<p>element_shapley is a mean over {summary['permutations']} random orders in"
      " examples of more than 12 elements, whose bars have standard errors.</p>"
    )
  head = ["method", "what its scores are", "tells", "knows"]
  return ["<h2>Methods</h2>", _table(head, rows), *notes]


def _data_set(summary: Mapping[str, Any], images: Mapping[str, bytes]) -> list[str]:
  shares = {name: facts["shares"] for name, facts in summary["methods"].items()}
  modalities = list(next(iter(shares.values())))
  rows = [
    [_text(name), *(_number(each[name]) for each in shares.values())]
    for name in modalities
  ]
  return [
    "<h2>Importance by modality</h2>",
    "<p>The mean share of each modality in an example's scores, without their sign; a"
    " column adds up to 1, or is 0 where all scores are.</p>",
    _table(["modality", *shares], rows),
    _image(images["importance"], "Bars: mean share of each modality, by method"),
  ]


def _columns_of(summary: Mapping[str, Any]) -> list[str]:
  """A table for each modality of several columns: the first of them by their shares."""
  found = {name: facts["columns"] for name, facts in summary["methods"].items()}
  found = {name: columns for name, columns in found.items() if columns}
  parts = []
  for modality in next(iter(found.values()), {}):
    shares = {name: columns[modality] for name, columns in found.items()}
    names = next(iter(shares.values()))
    largest = {name: max(each[name] for each in shares.values()) for name in names}
    shown = sorted(largest, key=lambda name: -largest[name])[:_MOST_COLUMNS]
    parts += [
      f"<h3>Columns of {_text(modality)}</h3>",
      "<p>The mean share of each column in the scores of an example's elements of"
      f" this modality, without their sign: {len(shown)} of {len(names)} columns, those"
      " with the largest shares.</p>",
      _table(
        ["column", *shares],
        [[_text(c), *(_number(each[c]) for each in shares.values())] for c in shown],
      ),
    ]
  return parts


def _faithfulness(summary: Mapping[str, Any], images: Mapping[str, bytes]) -> list[str]:
  tests, random = ("deletion", "insertion"), summary["random"]
  rows = [
    [_text(name), *(_area(facts[test]) for test in tests)]
    for name, facts in summary["methods"].items()
  ]
  name = f"mean of {random['orders']} random orders"
  rows.append([name, *(_number(random[test]["area"]) for test in tests)])
  better = "lower", "higher"
  if summary["metric"] == "mae":  # An error: it rises as what matters is removed.
    better = "higher", "lower"
  parts = [
    "<h2>Is it true?</h2>",
    "<p>The elements of each example are taken away, the highest score first"
    " (deletion), or put into empty sets (insertion), and the model is measured on"
    f" what is left: {_text(summary['metric'])} against the true labels. The truer the"
    f" scores, the {better[0]} the area under deletion, and the {better[1]} that under"
    " insertion. Of empty sets the model says the same for all. Bands hold 95 % of"
    " resampled examples. Where a method tells modalities only, an element has the"
    " score of its modality.</p>",
    _table(["method", "area, deletion", "area, insertion"], rows),
    _image(images["removal"], "Curves: the metric as elements are removed or put in"),
  ]
  if "agreement" in images:
    parts += [
      "<p>How far the methods agree: the mean rank correlation of the elements' scores"
      " within an example.</p>",
      _image(images["agreement"], "Matrix: rank correlation between methods"),
    ]
  return parts


def _example(example: Mapping[str, Any], image: bytes) -> list[str]:
  predicted = [f"{p['name']} ({p['value']:.2f})" for p in example["predicted"]]
  facts = [
    ["predicted", _text(", ".join(predicted) or "none")],
    ["true", _text(", ".join(example["true"]) or "none")],
    ["explained", f"{_text(example['explained'])} (output {example['value']:.4g})"],
    [
      "elements",
      _text(", ".join(f"{n} {k}" for k, n in example["num_elements"].items() if n)),
    ],
  ]
  strips = [
    f"<figure>{_pixels(pixels)}<figcaption>{_text(f'{name}[{place}]')}</figcaption>"
    "</figure>"
    for name, each in example["pictures"].items()
    for place, pixels in enumerate(each)
  ]
  elements = {
    name: [_told(e) for group in groups.values() for e in group]
    for name, groups in example["elements"].items()
  }
  modalities = example["modalities"]
  rows = [
    [_text(name), *(f"{scores[name]:.3g}" for scores in modalities.values())]
    for name, number in example["num_elements"].items()
    if number
  ]
  return [
    f"<h3>{_text(example['id'])}</h3>",
    _table([], facts),
    *([f"<div>{''.join(strips)}</div>"] if strips else []),
    _image(image, f"Bars: elements of {example['id']} by their scores, by method"),
    "<details><summary>In numbers</summary>",
    _table(["modality", *modalities], rows),
    _table(list(elements), _columns(list(elements.values()))),
    "</details>",
  ]


def _columns(columns: Sequence[Sequence[str]]) -> list[list[str]]:
  """Columns as rows; those that end early have empty cells."""
  longest = max(map(len, columns), default=0)
  return [
    [column[row] if row < len(column) else "" for column in columns]
    for row in range(longest)
  ]


def _told(element: Mapping[str, Any]) -> str:
  return f"{_text(element['text'])} {element['score']:.3g}"


def _pixels(pixels: Sequence[Sequence[Any]]) -> str:
  """A small picture of greys or colours as inline SVG; 0 is black."""
  height, width = len(pixels), len(pixels[0])
  squares = [
    f'<rect x="{x}" y="{y}" width="1.05" height="1.05" fill="{_colour(value)}"/>'
    for y, row in enumerate(pixels)
    for x, value in enumerate(row)
  ]
  return (
    f'<svg role="img" aria-label="picture" width="{6 * width}" height="{6 * height}"'
    f' viewBox="0 0 {width} {height}">{"".join(squares)}</svg>'
  )


def _colour(value: float | Sequence[float]) -> str:
  """Of a grey or of red, green and blue, 0 to 1."""
  three = value if isinstance(value, Sequence) else [value] * 3
  return "#" + "".join(f"{round(255 * min(max(part, 0), 1)):02x}" for part in three)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """A table of cells that are HTML already; the names in its head are not."""
  top = f"<tr>{''.join(f'<th>{_text(name)}</th>' for name in head)}</tr>\n"
  body = "\n".join(
    f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows
  )
  return f'<div class="wide"><table>\n{top if head else ""}{body}\n</table></div>'


def _image(png: bytes, alt: str) -> str:
  data = base64.b64encode(png).decode()
  return f'<img src="data:image/png;base64,{data}" alt="{_text(alt)}">'


def _area(curve: Mapping[str, Any]) -> str:
  low, high = curve["area_band"]
  return f"{curve['area']:.3f} ({low:.3f} to {high:.3f})"


def _number(value: float) -> str:
  return f"{value:.3f}"


def _text(value: Any) -> str:
  return html.escape(str(value))
