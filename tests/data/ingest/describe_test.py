"""What a file is taken for, and what a person reads of it."""

import collections
import datetime
import json
import sys

import films
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepsets_jax.data.ingest.columns import leaks, proposal, spec
from deepsets_jax.data.ingest.columns.images import ImageColumn
from deepsets_jax.data.ingest.columns.profiling import profile_columns
from deepsets_jax.data.ingest.columns.tokens import Tokens
from deepsets_jax.data.ingest.files import opening
from deepsets_jax.foundation.errors import DataError
from experiments import command, describe


def proposed(tmp_path, columns, **arguments):
  pq.write_table(pa.table(columns), tmp_path / "a.parquet")
  source = opening.open_source(str(tmp_path / "a.parquet"))
  return proposal.propose(profile_columns(source), "a.parquet", **arguments)


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
    (pa.nulls(ROWS), "it is empty"),
    (np.arange(1, ROWS + 1), "numbers the rows"),
    ([f"n{i}" for i in range(ROWS - 1)] + [None], "another value"),
    ([3] * ROWS, "same value in every row"),
    (["x"] * ROWS, "same value in every row"),
    ([[{"a": 1}]] * ROWS, "no kind of modality can"),
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
  monkeypatch.setattr("deepsets_jax.data.ingest.columns.profiling.MOST_DISTINCT", 20)
  monkeypatch.setattr("deepsets_jax.data.ingest.files.source.BATCH_ROWS", 8)
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
    (["a.jpg", "b.PNG"], ImageColumn("x")),
    (["a, b.jpg", "b.png"], ImageColumn("x")),
    (["a.jpg;b c.jpg", "b.png"], ImageColumn("x", separator=";")),
    ([["a.jpg", "b.jpg"], []], ImageColumn("x")),
    ([[b"a", b"b"], []], ImageColumn("x")),
    ([[{"bytes": b"a", "path": "a.png"}], []], ImageColumn("x")),
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
  assert found.modalities == {"x_bytes": ImageColumn("x.bytes")}
  assert unused == {"x.path": "it names the images of 'x.bytes'"}
  kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
  paths = pa.array([{"bytes": None, "path": cell["path"]} for cell in column], kind)
  found, unused = proposed(tmp_path, {"x": paths} | LABEL)
  assert found.modalities == {"x_path": ImageColumn("x.path")} and set(unused) == {
    "x.bytes"
  }


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
    ({"x": [[{"a": 1}]], "y": [1]}, {}, "no column but the label can be"),
    ({"x": [1], "y": [b"a"]}, {}, "'y' is binary, which cannot be a label"),
  ],
)
def test_what_cannot_be_proposed_is_named(tmp_path, columns, arguments, message):
  with pytest.raises(DataError, match=message):
    proposed(tmp_path, columns, **arguments)


def test_facts_are_those_of_a_loop(tmp_path):
  table = films.table(rows=50)
  pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
  found = {
    f.name: f for f in profile_columns(opening.open_source(str(tmp_path / "a.parquet")))
  }
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
  found = {
    f.name: f for f in profile_columns(opening.open_source(str(tmp_path / "a.parquet")))
  }
  slots = proposal.budget(found["cast"], 16)
  assert slots % 8 == 0 and 3 * 16 * 0.8 <= slots <= 3 * 16 + 7


def run(monkeypatch, *arguments):
  """The command, in this process, with flags of its own."""
  from absl import flags

  values = flags.FlagValues()
  monkeypatch.setattr(flags, "FLAGS", values)
  describe.define_flags(values)
  flags.DEFINE_bool("debug", False, "", flag_values=values)
  command.guarded(describe.main, values([sys.executable, *arguments]))


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
  found = spec.read_spec(tmp_path / "films.spec.json")
  assert list(found.modalities) == [
    "plot",
    "cast",
    "faces",
    "year",
    "country",
    "poster",
  ]
  assert json.loads((tmp_path / "films.spec.json").read_text())["id"] == "film_id"
  assert "at most: plot " in printed and ", 128 for each other modality\n" in printed
  with pytest.raises(SystemExit, match="exists; edit it.*--overwrite"):
    run(monkeypatch, str(path))
  run(monkeypatch, str(path), "--overwrite", "--label=country")
  assert spec.read_spec(tmp_path / "films.spec.json").label.column == "country"


def test_a_spec_that_nothing_can_be_learned_by_is_there_to_be_edited(
  tmp_path, monkeypatch, capsys
):
  path = tmp_path / "one.parquet"
  pq.write_table(pa.table({"x": [1.0, 2.0], "label": ["a", "a"]}), path)
  with pytest.raises(
    SystemExit, match="only value is .'a'.*\n.*Edit .*: .*one.spec.js"
  ):
    run(monkeypatch, str(path))
  assert spec.read_spec(tmp_path / "one.spec.json").label.column == "label"
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


@pytest.mark.parametrize(
  "name, column, reason",
  [
    ("Unnamed: 0", np.random.default_rng(0).permutation(400), "row index"),
    ("__index_level_0__", np.arange(ROWS) * 3, "row index"),
    ("index", np.arange(ROWS), "numbers the rows"),
    ("row_number", np.arange(1, ROWS + 1), "numbers the rows"),
    ("zeros", [0.0] * (ROWS - 1) + [None], "same value in every row that has one"),
    ("due", [f"0{i % 9 + 1}/0{i % 7 + 1}/2020" for i in range(ROWS)], "--dates=dmy or"),
  ],
)
def test_a_row_index_and_what_is_not_clear_are_left_out(tmp_path, name, column, reason):
  label = ["a", "b"] * (len(column) // 2)
  columns = {"label": label, "x": np.arange(len(label)) / 3, name: column}
  found, unused = proposed(tmp_path, columns)
  assert list(found.modalities) == ["x"] and found.id is None
  assert reason in unused[name]


@pytest.mark.parametrize(
  "name, column, parts",
  [
    ("Split", ["train", "val", "TEST", "train"] * 10, None),
    ("split", [0, 0, 1, 2] * 10, {"train": ["0"], "validation": ["1"], "test": ["2"]}),
    ("part", [0, 0, 1, 0] * 10, {"train": ["0"], "test": ["1"]}),
    ("is_test", [False, True] * 20, {"train": ["false"], "test": ["true"]}),
    ("is_train", [1, 0] * 20, {"test": ["0"], "train": ["1"]}),
    ("in_valid", [0, 1] * 20, {"train": ["0"], "validation": ["1"]}),
  ],
)
def test_a_column_that_says_the_part_is_the_split(tmp_path, name, column, parts):
  columns = LABEL | {"x": np.arange(ROWS) / 3, name: column}
  found, _ = proposed(tmp_path, columns)
  assert (found.split, list(found.modalities)) == (name, ["x"])
  assert found.parts == parts
  assert spec.from_json(found.to_json(), "spec") == found
  source = opening.open_source(str(tmp_path / "a.parquet"))
  rows = describe.assign_splits(source, found, 0).rows()
  said = {part: len(values) for part, values in (parts or {}).items()}
  wanted = collections.Counter(
    next(
      (part for part, values in (parts or {}).items() if str(v).lower() in values),
      {"val": "validation"}.get(str(v), str(v).lower()),
    )
    for v in column
  )
  assert all(rows[part] == count for part, count in wanted.items() if part != "train")
  assert not said or set(said) <= set(rows)


def test_a_feature_called_test_is_no_split(tmp_path):
  found, _ = proposed(tmp_path, LABEL | {"test": [0, 1] * (ROWS // 2)})
  assert found.split is None and list(found.modalities) == ["test"]


def test_folds_are_left_out_and_said(tmp_path):
  columns = LABEL | {"x": np.arange(ROWS) / 3, "fold": np.arange(ROWS) % 5}
  found, unused = proposed(tmp_path, columns)
  assert found.split is None and list(found.modalities) == ["x"]
  assert 'set it as "split" in the spec' in unused["fold"]


def test_a_group_is_proposed_where_one_looks_like_it(tmp_path):
  patients = np.random.default_rng(0).integers(0, 12, ROWS)
  columns = LABEL | {"x": np.arange(ROWS) / 3, "patient_id": patients}
  found, _ = proposed(tmp_path, columns)
  assert found.group == "patient_id" and list(found.modalities) == ["x"]
  facts = profile_columns(opening.open_source(str(tmp_path / "a.parquet")))
  (sentence,) = proposal.remarks(facts, found)
  assert "patient_id: 12 values in 40 rows; rows of one value stay in one" in sentence
  # Of each its own, it is no group.
  found, _ = proposed(tmp_path, columns | {"patient_id": np.arange(ROWS) * 7})
  assert found.group is None and found.id == "patient_id"


def test_names_between_commas_are_told_by_the_whole_column(tmp_path):
  # Nothing but the last rows shows that cells are lists.
  people = ["Ada Pine"] * 300 + ["Ada Pine, Ben Oak", "Ben Oak, Cy Yew, Ada Pine"] * 50
  places = ["Paris, France", "Rome, Italy", "Oslo, Norway", "Nice, France"] * 100
  columns = {"label": ["a", "b"] * 200, "people": people, "places": places}
  found, _ = proposed(tmp_path, columns)
  assert found.modalities["people"].separator == ","
  assert found.modalities["places"].kind == "category"


def test_strings_that_are_all_different_are_texts_unless_they_look_like_ids(tmp_path):
  rng = np.random.default_rng(0)
  smiles = ["".join(rng.choice(["C", "N(=O)", "c1cc", "Cl"], 9)) for _ in range(ROWS)]
  found, _ = proposed(tmp_path, LABEL | {"smiles": smiles})
  assert found.id is None and found.modalities["smiles"].kind == "text"
  keys = [f"tt{i:07}" for i in range(ROWS)]
  found, _ = proposed(tmp_path, LABEL | {"smiles": smiles, "code": keys})
  assert found.id == "code"


def test_where_nothing_can_be_a_modality_it_is_said_what_was_taken_for_what(tmp_path):
  columns = LABEL | {"key": [f"a-{i:04}" for i in range(ROWS)], "same": [1] * ROWS}
  match = "label: the label .multiclass.; key: the id; same: it has the same.*--label"
  with pytest.raises(DataError, match=match):
    proposed(tmp_path, columns)


def leaking(tmp_path, columns, **arguments):
  found, _ = proposed(tmp_path, columns, **arguments)
  source = opening.open_source(str(tmp_path / "a.parquet"))
  return "\n".join(
    leaks.find_leaks(source, found, describe.assign_splits(source, found, 0))
  )


def test_columns_that_tell_the_answer_are_said_with_their_figures(tmp_path):
  rng = np.random.default_rng(0)
  label = rng.integers(0, 2, 400)
  columns = {
    "label": label,
    "noise": rng.normal(size=400),
    "tells": label * 3.0 + rng.random(400),
    "word": np.where(label > 0, "paid", "open"),
    "helps": label + rng.normal(size=400),
    "gap": [1.5 + i if one else None for i, one in enumerate(label)],
  }
  said = leaking(tmp_path, columns)
  for name in ("tells", "word", "gap"):
    assert f"{name}: this column alone predicts the label of 100.0% of the rows" in said
  assert "noise" not in said and "helps" not in said
  number = rng.normal(size=400)
  columns = {"label": number, "same": number * 2 + 1, "noise": rng.normal(size=400)}
  said = leaking(tmp_path, columns)
  assert "same: this column alone explains " in said and "noise" not in said


def test_rows_that_are_in_two_parts_are_counted(tmp_path):
  rng = np.random.default_rng(0)
  x, split = rng.normal(size=100), ["train"] * 80 + ["validation"] * 10 + ["test"] * 10
  x[80:83], x[95] = x[:3], x[1]
  label = np.where(rng.random(100) < 0.5, "a", "b")
  label[[80, 81, 82, 95]] = label[[0, 1, 2, 1]]
  said = leaking(tmp_path, {"x": x, "X": x, "label": label, "split": split})
  assert "3 of 10 rows (30.0%) of the validation part equal a training row" in said
  assert "1 of 10 rows (10.0%) of the test part equal a training row" in said
  label[80] = "b" if label[80] == "a" else "a"
  said = leaking(tmp_path, {"x": x, "label": label, "split": split})
  assert "2 of 10 rows (20.0%) of the validation part" in said


def test_labels_that_differ_in_case_are_said(tmp_path, monkeypatch, capsys):
  rows = [
    "x,label",
    *(f"{i / 3},{w}" for i, w in enumerate(["Yes", "yes ", " NO"] * 10)),
  ]
  (tmp_path / "a.csv").write_text("\n".join(rows))
  run(monkeypatch, str(tmp_path / "a.csv"))
  printed = capsys.readouterr().out
  assert "'Yes' (10), 'yes' (10) differ only in case" in printed
  assert "3 labels: Yes 10, yes 10, NO 10" in printed


def test_how_a_file_is_read_is_said_written_and_settable(tmp_path, monkeypatch, capsys):
  rows = ["sep=;", "preis;ja;wann;label"]
  rows += [
    f"{i},5;{'ja' if i % 2 else '?'};0{i}.0{i}.2020;{i % 2}" for i in range(1, 9)
  ]
  path = tmp_path / "a.csv"
  path.write_text("\n".join(rows))
  run(monkeypatch, str(path))
  printed = capsys.readouterr().out
  for sentence in (
    "cells are separated by ';'; the first line, 'sep=;', is not read",
    "preis: numbers with a decimal comma, as in '1,5'",
    "wann: dates whose order is not clear",
    "- day or month may come first; set --dates=dmy or --dates=mdy",
  ):
    assert sentence in printed
  found = spec.read_spec(tmp_path / "a.spec.json")
  assert found.reading.columns["preis"].decimal == ","
  assert "wann" not in [kind.column for kind in found.modalities.values()]
  run(monkeypatch, str(path), "--dates=dmy", "--overwrite")
  assert "wann: dates, day first, as in '01.01.2020'" in capsys.readouterr().out
  found = spec.read_spec(tmp_path / "a.spec.json")
  assert found.reading.columns["wann"].order == "dmy"
  assert found.open(str(path)).schema.field("wann").type == pa.date32()
  path.write_text(
    "\n".join(row.replace(";", ",").replace(",5,", ";5,") for row in rows[2:])
  )
  run(monkeypatch, str(path), "--header=none", "--overwrite", "--label=column_3")
  assert list(
    spec.read_spec(tmp_path / "a.spec.json").open(str(path)).schema.names
  ) == [f"column_{place}" for place in range(4)]


@pytest.mark.parametrize("first", ["3.5,1,a", "some,words,a"])
def test_a_header_that_looks_like_data_is_said(tmp_path, monkeypatch, capsys, first):
  rows = [first, *(f"{i}.5,{i % 2},{'ab'[i % 3 > 0]}" for i in range(3, 30))]
  (tmp_path / "a.csv").write_text("\n".join(rows))
  run(monkeypatch, str(tmp_path / "a.csv"), "--label=a")
  assert "looks like data: if the file has no header, say --header=none" in (
    capsys.readouterr().out
  )
