"""The page of an explanation is complete, self-contained, and escapes the data."""

import base64
import copy
import html.parser
import re

import numpy as np
import pytest

from deepsets_jax.analysis import attribution, page
from deepsets_jax.figures.attribution import draw

NASTY = "<script>alert('x') & \"y\"</script> http://example.org"
VOID = {"img", "meta", "br", "rect"}


def curve(*values):
  return {
    "fractions": [0.0, 0.5, 1.0],
    "values": list(values),
    "lower": [value - 0.1 for value in values],
    "upper": [value + 0.1 for value in values],
    "area": float(np.trapezoid(values, [0, 0.5, 1])),
    "area_band": [0.1, 0.2],
  }


def element(text, score, modality="word", error=None):
  where = {"modality": modality, "position": 3, "text": text}
  return where | {"score": score, "error": error}


SUMMARY = {
  "run": f"runs/{NASTY}",
  "config": {"data": {"name": "tables", "path": None, "x": [1, 2]}, "rate": 0.1 + 0.2},
  "split": "test",
  "label": None,
  "examples": 17,
  "examples_of_split": 1521,
  "permutations": 8,
  "seed": 5,
  "metric": "accuracy",
  "methods": {
    "argmax": {
      "tells_elements": True,
      "shares": {"word": 0.6, NASTY: 0.4},
      "columns": {NASTY: {f"x{i}": i / 300 for i in range(24)} | {NASTY: 0.0801}},
      "notes": [f"argmax: {NASTY} is zero."],
      "deletion": curve(0.987, 0.4, 0.1),
      "insertion": curve(0.1, 0.8, 0.987),
    },
    "shapley": {
      "tells_elements": False,
      "shares": {"word": 0.123, NASTY: 0.877},
      "columns": {},
      "notes": [],
      "deletion": curve(0.987, 0.3, 0.1),
      "insertion": curve(0.1, 0.9, 0.987),
    },
  },
  "random": {
    "orders": 5,
    "deletion": curve(0.987, 0.5, 0.1),
    "insertion": curve(0.1, 0.5, 0.987),
  },
  "agreement": [[1.0, None], [None, 1.0]],
  "chosen": [
    {
      "id": NASTY,
      "num_elements": {"word": 2, NASTY: 1},
      "true": [NASTY],
      "predicted": [{"name": NASTY, "value": 0.25}],
      "explained": NASTY,
      "value": 1.5,
      "modalities": {
        "argmax": {"word": 0.75, NASTY: 0.25},
        "shapley": {"word": 0.5, NASTY: -1.0},
      },
      "elements": {
        "argmax": {
          "top": [element("editor", 0.7654), element(NASTY, 0.05)],
          "bottom": [element("x", -0.25, NASTY, 0.1)],
        }
      },
      "pictures": {"image": [[[0.0, 1.0], [0.5, 2.0]]]},
    },
    {
      "id": "empty",
      "num_elements": {"word": 0, NASTY: 0},
      "true": [],
      "predicted": [],
      "explained": "x",
      "value": 0.0,
      "modalities": {
        "argmax": {"word": 0.0, NASTY: 0.0},
        "shapley": {"word": 0.0, NASTY: 0.0},
      },
      "elements": {"argmax": {"top": [], "bottom": []}},
      "pictures": {},
    },
  ],
}


class Reader(html.parser.HTMLParser):
  """Tags with their attributes, and the text; raises where tags do not balance."""

  def __init__(self, document):
    super().__init__()
    self.tags, self.words, self._open = [], [], []
    self.feed(document)
    self.close()
    assert not self._open

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in VOID:
      self._open.append(tag)

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_data(self, data):
    self.words.append(data)

  @property
  def text(self):
    return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  folder = tmp_path_factory.mktemp("page") / "new" / "explain"
  page.write_page(folder, SUMMARY, draw(SUMMARY))
  return folder


@pytest.fixture(scope="module")
def read(written):
  return Reader((written / "index.html").read_text())


def test_writes_the_page_and_the_pictures_and_nothing_else(written):
  names = ["importance", "removal", "agreement", "example_1", "example_2"]
  want = {"index.html", *(f"{name}.png" for name in names)}
  assert {path.name for path in written.iterdir()} == want


def test_loads_nothing_from_anywhere(read):
  sources = [a.get("src") or a.get("href") for _, a in read.tags]
  assert all(s.startswith("data:image/png;base64,") for s in sources if s)
  assert not {"script", "link", "iframe"} & {tag for tag, _ in read.tags}
  assert "url(" not in read.text and "@import" not in read.text


def test_its_pictures_are_the_files(read, written):
  inline = [base64.b64decode(a["src"][22:]) for tag, a in read.tags if tag == "img"]
  names = ("importance", "removal", "agreement", "example_1", "example_2")
  assert inline == [(written / f"{name}.png").read_bytes() for name in names]
  assert all(data.startswith(b"\x89PNG") for data in inline)


def test_every_picture_has_a_text_of_its_own(read):
  told = [a.get("alt") for tag, a in read.tags if tag == "img"]
  assert len(told) == 5 and all(told) and len(set(told)) == 5
  assert all(a.get("aria-label") for tag, a in read.tags if tag == "svg")


def test_text_of_the_data_is_escaped(read):
  one = " ".join(NASTY.split())
  # Run, id, true, predicted, explained, and modality and element in tables.
  assert read.text.count(one) >= 8
  assert f"Bars: elements of {NASTY} by their scores, by method" in [
    a.get("alt") for _, a in read.tags
  ]


def test_notes_on_the_scores_are_there_as_text(read):
  assert f"argmax: {' '.join(NASTY.split())} is zero." in read.text


def test_states_the_sample_and_the_settings(read):
  assert "17 random examples of the 1521 of the split test (seed 5)" in read.text
  assert "accuracy is 0.987" in read.text
  assert "mean of 5 random orders" in read.text
  assert "tables, x [1, 2]" in read.text and "path" not in read.text
  assert "0.3 " in read.text and "0.30000" not in read.text


def test_has_every_number_of_its_tables(read):
  for number in ("0.600", "0.400", "0.123", "0.877", "0.765", "-0.25", "0.05"):
    assert number in read.text
  for method in SUMMARY["methods"].values():
    for test in ("deletion", "insertion"):
      assert f"{method[test]['area']:.3f} (0.100 to 0.200)" in read.text


def test_columns_are_the_first_twenty_by_share(read):
  words = read.text.split()
  for i in range(24):
    assert (f"x{i}" in words) == (i >= 5)
  assert words.index("x23") < words.index("x22") and "0.080" in words


def test_says_what_each_method_means():
  assert set(page.MEANINGS) == set(attribution.METHODS)
  body = Reader(page.fragment(SUMMARY, page.pictures(draw(SUMMARY)))).text
  for method in SUMMARY["methods"]:
    assert page.MEANINGS[method].text in body
  assert "argmax does not depend on the explained output" in body
  assert "shapley does not depend" not in body


def test_small_pictures_have_a_square_for_each_pixel(read):
  squares = [(a["x"], a["y"], a["fill"]) for tag, a in read.tags if tag == "rect"]
  assert squares == [
    ("0", "0", "#000000"),
    ("1", "0", "#ffffff"),
    ("0", "1", "#808080"),
    ("1", "1", "#ffffff"),
  ]
  assert "image[0]" in read.text


def test_for_an_error_the_better_areas_are_swapped():
  changed = SUMMARY | {"metric": "mae", "label": "nine"}
  body = Reader(page.fragment(changed, page.pictures(draw(changed)))).text
  assert (
    "if the area under the deletion curve is higher and the area under the insertion"
    " curve is lower." in body
  )
  assert "The explained output is the label nine." in body


def test_a_single_method_has_no_agreement(tmp_path):
  changed = copy.deepcopy(SUMMARY)
  del changed["methods"]["argmax"]
  changed["chosen"] = []
  drawn = draw(changed)
  assert list(drawn) == ["importance", "removal"]
  page.write_page(tmp_path, changed, drawn)
  document = (tmp_path / "index.html").read_text()
  assert "agree" not in Reader(document).text


def test_old_pictures_of_examples_are_removed(tmp_path):
  (tmp_path / "example_3.png").write_text("old")
  (tmp_path / "notes.txt").write_text("mine")
  page.write_page(tmp_path, SUMMARY, draw(SUMMARY))
  names = {path.name for path in tmp_path.iterdir()}
  assert "example_3.png" not in names and {"example_2.png", "notes.txt"} <= names


def test_characters_missing_in_the_font_can_be_drawn():
  changed = copy.deepcopy(SUMMARY)
  changed["chosen"][0]["elements"]["argmax"]["top"][0]["text"] = "\U0001f4a1 編集"
  assert page.pictures(draw(changed))["example_1"].startswith(b"\x89PNG")
  assert re.search("編集", page.fragment(changed, page.pictures(draw(changed))))
