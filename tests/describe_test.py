"""What a file is taken for, and what a person reads of it."""

import datetime
import json
import sys

import films
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepsets_jax.data.columns import proposal, spec
from deepsets_jax.data.columns.facts import gather
from deepsets_jax.data.columns.images import Image
from deepsets_jax.data.columns.tokens import Tokens
from deepsets_jax.data.files import opening
from deepsets_jax.data.table import DataError
from experiments import describe


def proposed(tmp_path, columns, **arguments):
  pq.write_table(pa.table(columns), tmp_path / "a.parquet")
  source = opening.open_source(str(tmp_path / "a.parquet"))
  return proposal.propose(gather(source), "a.parquet", **arguments)


ROWS = 40
LABEL = {"label": ["a", "b"] * (ROWS // 2)}
WORDS = [f"one two three {i} five" for i in range(ROWS)]


@pytest.mark.parametrize(
  ("column", "want"),
  [
    (np.arange(ROWS) * 1.5, {"kind": "number", "scale": "standard"}),
    (np.append(np.ones(ROWS - 1), 1e6), {"kind": "number", "scale": "log"}),
    ([True, False] * (ROWS // 2), {"kind": "category"}),
    (["fr", "us"] * (ROWS // 2), {"kind": "category", "hash": None}),
    (WORDS, {"kind": "text"}),
    (["War|Drama", "Love"] * (ROWS // 2), {"kind": "tokens", "separator": "|"}),
    (["a, b", "b, c", "c, a", "a"] * (ROWS // 4), {"kind": "tokens", "separator": ","}),
    ([f"Doe {i}, Jane" for i in range(ROWS)], {"kind": "text"}),
    ([f"we saw {i} of it; not more" for i in range(ROWS)], {"kind": "text"}),
    (["3,5", "1,234.5"] * (ROWS // 2), {"kind": "category"}),
    ([f"z{i // 4 * 3 + i % 4 % 3}" for i in range(ROWS)], {"kind": "category"}),
    ([f"p/{i}.JPG" for i in range(ROWS)], {"kind": "image"}),
    ([b"\x89PNG"] * ROWS, {"kind": "image"}),
    ([["a", "b"], ["c"]] * (ROWS // 2), {"kind": "tokens"}),
    (
      [["we saw it twice, then we left", "a word"], None] * (ROWS // 2),
      {"kind": "text"},
    ),
    ([["libc6-dev-1.2.3", "a"], None] * (ROWS // 2), {"kind": "tokens"}),
    ([[1, 2], [3]] * (ROWS // 2), {"kind": "tokens"}),
    ([[0.5, 2.5], [3.5]] * (ROWS // 2), {"kind": "numbers"}),
    ([[0.5, 2.5], None] * (ROWS // 2), {"kind": "vector"}),
    ([[[0.5], [2.5]], []] * (ROWS // 2), {"kind": "vectors"}),
    ([datetime.date(2000, 1, i % 9 + 1) for i in range(ROWS)], {"kind": "number"}),
  ],
)
def test_a_column_is_taken_for_what_it_looks_like(tmp_path, column, want):
  found, unused = proposed(tmp_path, LABEL | {"the col-umn": column})
  (name, kind), *_ = found.modalities.items()
  assert name == "the_col_umn" and kind.column == "the col-umn" and not unused
  settings = found.to_json()["modalities"][name]
  assert {key: settings[key] for key in want} == want


@pytest.mark.parametrize(
  ("column", "reason"),
  [
    (pa.nulls(ROWS), "nothing in it"),
    (np.arange(1, ROWS + 1), "numbers the rows"),
    ([f"n{i}" for i in range(ROWS - 1)] + [None], "another value"),
    ([3] * ROWS, "same in every row"),
    (["x"] * ROWS, "same in every row"),
    ([[{"a": 1}]] * ROWS, "no kind takes"),
  ],
)
def test_what_tells_nothing_is_left_out(tmp_path, column, reason):
  found, unused = proposed(tmp_path, LABEL | {"x": np.arange(ROWS) / 3, "y2": column})
  assert list(found.modalities) == ["x"] and reason in unused["y2"]


def test_what_stands_beside_vectors_is_left_out(tmp_path):
  faces = [[[1.0, 2.0]]] * ROWS
  columns = {"faces": faces, "faces.boxes": faces, "faces.scores": [[0.5]] * ROWS}
  found, unused = proposed(tmp_path, LABEL | columns)
  assert list(found.modalities) == ["faces"] and len(unused) == 2


def test_ids_splits_and_groups(tmp_path):
  columns = {
    "film_id": np.arange(ROWS),
    "director_id": np.arange(ROWS) % 7,
    "split": ["train", "val", "test", "train"] * (ROWS // 4),
    "x": np.arange(ROWS) / 3,
  }
  found, _ = proposed(tmp_path, LABEL | columns, group="director_id")
  assert (found.id, found.split, found.group) == ("film_id", "split", "director_id")
  assert list(found.modalities) == ["x"]
  found, _ = proposed(tmp_path, LABEL | columns)
  assert found.modalities["director_id"].kind == "category" and found.group is None


def test_texts_are_no_ids(tmp_path):
  keys = [f"0f{i:02}-77b2-a1b2-c3d4" for i in range(ROWS)]
  columns = {"title": [f"Film {i}" for i in range(ROWS)], "标题": [*"甲乙丙丁" * 10]}
  columns["标题"] = [f"{a}{chr(0x4E00 + i)}" for i, a in enumerate(columns["标题"])]
  found, _ = proposed(tmp_path, LABEL | columns | {"key": keys})
  assert (
    found.id == "key" and [k.kind for k in found.modalities.values()] == ["text"] * 2
  )
  found, _ = proposed(tmp_path, LABEL | columns)
  assert found.id is None


def test_what_repeats_before_counting_ends_is_no_id(tmp_path, monkeypatch):
  monkeypatch.setattr("deepsets_jax.data.columns.facts.MOST_DISTINCT", 20)
  monkeypatch.setattr("deepsets_jax.data.files.source.BATCH_ROWS", 8)
  items = np.append(np.arange(1, 19) ** 2, [4, *np.arange(19, ROWS)])
  columns = {"item_id": items, "row_id": np.arange(ROWS) ** 2}
  found, _ = proposed(tmp_path, LABEL | columns)
  assert found.id == "row_id" and list(found.modalities) == ["item_id"]


@pytest.mark.parametrize(
  ("column", "kind"),
  [
    (["a", "b"] * (ROWS // 2), "multiclass"),
    ([0, 1, None, 1] * (ROWS // 4), "binary"),
    ([True, False] * (ROWS // 2), "binary"),
    ([1, 2, 3, 4] * (ROWS // 4), "multiclass"),
    (np.arange(ROWS) / 3, "regression"),
    (np.arange(400) % 200, "regression"),
    ([["a"], []] * (ROWS // 2), "multilabel"),
    (["a|b", "c"] * (ROWS // 2), "multilabel"),
    (["a, b", "a, b, c", "c, a", "b, a", "b"] * (ROWS // 5), "multilabel"),
    (["Paris, France", "Rome, Italy"] * (ROWS // 2), "multiclass"),
    ([["a"], None] * (ROWS // 2), "multilabel"),
    ([[1, 2], [3]] * (ROWS // 2), "multilabel"),
    ([[5.0, 2.0], [3.0, 4.0]] * (ROWS // 2), "regression"),
    ([[5.0, 2.0], None] * (ROWS // 2), "regression"),
    ([[0, 1, 0], [1, 1, 0]] * (ROWS // 2), "regression"),
  ],
)
def test_a_label_is_taken_for_what_it_looks_like(tmp_path, column, kind):
  x = np.arange(len(column)) / 3
  found, _ = proposed(tmp_path, {"x": x, "what": column}, label="what")
  assert found.label.kind == kind
  missing = isinstance(column, list) and None in column
  assert found.label.missing == ("drop" if missing else "error")


@pytest.mark.parametrize(
  ("column", "want"),
  [
    (["a.jpg", "b.PNG"], Image("x")),
    (["a, b.jpg", "b.png"], Image("x")),
    (["a.jpg;b c.jpg", "b.png"], Image("x", separator=";")),
    ([["a.jpg", "b.jpg"], []], Image("x")),
    ([[b"a", b"b"], []], Image("x")),
    ([[{"bytes": b"a", "path": "a.png"}], []], Image("x")),
    ([["a.jpg is a file", "b"], []], Tokens("x")),
  ],
)
def test_pictures_of_a_row_are_one_modality(tmp_path, column, want):
  y = LABEL["label"]
  found, _ = proposed(tmp_path, {"x": column * (ROWS // 2), "label": y})
  assert found.modalities["x"] == want


def test_the_names_of_pictures_that_are_there_as_bytes_are_left_out(tmp_path):
  column = [{"bytes": b"a", "path": f"{i}.png"} for i in range(ROWS)]
  found, unused = proposed(tmp_path, {"x": column} | LABEL)
  assert found.modalities == {"x_bytes": Image("x.bytes")}
  assert unused == {"x.path": "names the pictures of 'x.bytes'"}


@pytest.mark.parametrize(("empty", "want"), [(1, "drop"), (4, "none")])
def test_many_empty_cells_of_several_labels_mean_none_of_them(tmp_path, empty, want):
  column = ["a|b", "c"] * (ROWS // 2)
  column[:empty] = [""] * empty
  x = np.random.default_rng(0).normal(size=ROWS).tolist()
  found, _ = proposed(tmp_path, {"x": x, "label": column})
  assert (found.label.kind, found.label.missing) == ("multilabel", want)


@pytest.mark.parametrize(
  ("columns", "arguments", "message"),
  [
    ({"x": [1.0]}, {}, "no column is called label, .*--label=COLUMN, one of .'x'"),
    ({"x": [1.0]}, {"label": "y"}, "no column 'y'; there are .'x'"),
    ({"x": [1.0], "y": [1]}, {"group": "z"}, "no column 'z'"),
    ({"x": [[{"a": 1}]], "y": [1]}, {}, "no column beside the label can be"),
    ({"x": [1], "y": [b"a"]}, {}, "'y' is binary, which cannot be a label"),
  ],
)
def test_what_cannot_be_proposed_is_named(tmp_path, columns, arguments, message):
  with pytest.raises(DataError, match=message):
    proposed(tmp_path, columns, **arguments)


def test_facts_are_those_of_a_loop(tmp_path):
  table = films.table(rows=50)
  pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
  found = {f.name: f for f in gather(opening.open_source(str(tmp_path / "a.parquet")))}
  for name, fact in found.items():
    cells = table[name].to_pylist()
    if name in ("cast", "faces", "genres"):
      sizes = [len(cell or []) for cell in cells]
    elif name == "plot":
      sizes = [len((cell or "").split()) for cell in cells]
    elif name != "film_id":
      sizes = [int(cell is not None) for cell in cells]
    else:
      continue
    assert fact.missing == sizes.count(0) and fact.rows == 50
    assert fact.max_size == max(sizes)
    assert fact.quantile(0.99) == sorted(sizes)[49]
    assert fact.mean_size == pytest.approx(sum(sizes) / (50 - sizes.count(0)))
  assert found["faces"].widths.keys() == {4}
  assert len(found["country"].distinct) == 2


def test_slots_have_room_for_a_batch(tmp_path):
  pq.write_table(films.table(rows=50), tmp_path / "a.parquet")
  found = {f.name: f for f in gather(opening.open_source(str(tmp_path / "a.parquet")))}
  slots = proposal.budget(found["cast"], 16)
  assert slots % 8 == 0 and 3 * 16 * 0.8 <= slots <= 3 * 16 + 7


def run(monkeypatch, *arguments):
  """The command, in this process, with flags of its own."""
  from absl import flags

  values = flags.FlagValues()
  monkeypatch.setattr(flags, "FLAGS", values)
  describe.define_flags(values)
  describe.main(values([sys.executable, *arguments]))


def test_the_command_prints_the_columns_and_writes_the_spec(
  tmp_path, monkeypatch, capsys
):
  path = tmp_path / "films.parquet"
  pq.write_table(films.table(), path)
  run(monkeypatch, str(path))
  printed = capsys.readouterr().out
  for line in ("film_id", "label, multilabel", "2 labels: Drama 60", "train 48,"):
    assert line in printed
  assert f"--config.data.path={path}" in printed
  found = spec.read(tmp_path / "films.spec.json")
  assert list(found.modalities) == [
    "plot",
    "cast",
    "faces",
    "year",
    "country",
    "poster",
  ]
  assert json.loads((tmp_path / "films.spec.json").read_text())["id"] == "film_id"
  assert "at most: plot " in printed and ", 128 of each other\n" in printed
  with pytest.raises(Exception, match="exists; edit it.*--overwrite"):
    run(monkeypatch, str(path))
  run(monkeypatch, str(path), "--overwrite", "--label=country")
  assert spec.read(tmp_path / "films.spec.json").label.column == "country"


def test_a_spec_that_nothing_can_be_learned_by_is_there_to_be_edited(
  tmp_path, monkeypatch, capsys
):
  path = tmp_path / "one.parquet"
  pq.write_table(pa.table({"x": [1.0, 2.0], "label": ["a", "a"]}), path)
  with pytest.raises(SystemExit, match="only value is .'a'.*\n.*edited: .*one.spec.js"):
    run(monkeypatch, str(path))
  assert spec.read(tmp_path / "one.spec.json").label.column == "label"
  with pytest.raises(SystemExit, match="error: .*no column 'z'"):
    run(monkeypatch, str(path), "--overwrite", "--label=z")


def test_rows_that_are_left_out_and_many_columns_are_told(
  tmp_path, monkeypatch, capsys
):
  columns = {f"x{i}": np.random.default_rng(i).normal(size=ROWS) for i in range(61)}
  label = [None, "a", "b", "a"] * (ROWS // 4)
  pq.write_table(pa.table(columns | {"label": label}), tmp_path / "wide.parquet")
  run(monkeypatch, str(tmp_path / "wide.parquet"))
  printed = capsys.readouterr().out
  assert "; 10 rows without a label are left out" in printed
  assert f"at most: fields {61 * 128:,}\n" in printed
  assert "x60     double" in printed and "number (fields)" in printed
