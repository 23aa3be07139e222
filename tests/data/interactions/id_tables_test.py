import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepsets_jax.data.ingest.files import source
from deepsets_jax.data.interactions import id_tables
from deepsets_jax.foundation.errors import DataError

COUNT = 24
FILMS = {
  "item": np.arange(100, 100 + COUNT),
  "Title": [f"the story of {i} men" for i in range(COUNT)],
  "year": [None if i % 5 == 0 else 1950.0 + i for i in range(COUNT)],
  "genres": ["War|Drama" if i % 2 else "Love" for i in range(COUNT)],
  "poster": [[0.5 * i, 1.0] for i in range(COUNT)],
  "same": ["x"] * COUNT,
  "row": np.arange(COUNT),
  "sku": [f"s{i}" for i in range(COUNT)],
  "split": ["train", "test"] * (COUNT // 2),
}


def write_spec(tmp_path, **value):
  (tmp_path / "items.spec.json").write_text(json.dumps(value))


def read(tmp_path, columns=FILMS, report=lambda line: None):
  path = tmp_path / "items.parquet"
  pq.write_table(pa.table(columns), path)
  found = id_tables.read_id_table(str(path), "item", report)
  found.table.validate(str(path))
  return found


def test_columns_become_fields_as_they_are_proposed(tmp_path):
  lines = []
  found = read(tmp_path, report=lines.append)
  table = found.table
  assert list(table.modalities) == ["Title", "year", "genres", "poster"]
  assert (table.schema.target.kind, table.targets.shape) == ("none", (COUNT, 0))
  assert table.ids.tolist() == [str(i) for i in FILMS["item"]]
  kinds = {name: m.kind for name, m in table.schema.modalities.items()}
  assert kinds["genres"] == kinds["Title"] == "tokens"
  assert table.schema.modalities["poster"].size == 2
  reported = {line.split("'")[1]: line.partition(" is ")[2] for line in lines}
  assert (
    reported["year"] == "a field, number" and reported["genres"] == "a field, tokens"
  )
  assert reported["same"] == "left out: it has the same value in every row that has one"
  assert reported["sku"] == "left out: it names the rows"
  assert reported["split"] == "left out: it names the split"
  assert list(reported) == list(FILMS)[1:]


def test_scales_and_vocabularies_are_of_all_rows(tmp_path):
  found = read(tmp_path)
  years = np.array([y for y in FILMS["year"] if y is not None])
  got = found.table.modalities["year"]
  want = (years - years.mean()) / years.std()
  np.testing.assert_allclose(got.values[:, 0], want, rtol=1e-5)
  assert np.diff(got.offsets).tolist() == [int(y is not None) for y in FILMS["year"]]
  words = found.vocabularies["genres"]
  lists = found.table.modalities["genres"].to_lists()
  for row, genres in enumerate(FILMS["genres"]):
    assert {words[i] for i in lists[row]} == set(genres.split("|"))


def test_rows_of_several_batches_are_joined(tmp_path, monkeypatch):
  whole = read(tmp_path)
  monkeypatch.setattr(source, "BATCH_ROWS", 5)
  parts = read(tmp_path)
  for name, want in whole.table.modalities.items():
    got = parts.table.modalities[name]
    for key in ("values", "offsets", "weights"):
      np.testing.assert_array_equal(getattr(got, key), getattr(want, key))
  assert parts.titles.tolist() == whole.titles.tolist() == FILMS["Title"]


def test_the_spec_beside_the_file_decides(tmp_path):
  genres = {"kind": "tokens", "column": "genres", "separator": "|", "weights": "none"}
  write_spec(tmp_path, modalities={"about": genres})
  lines = []
  found = read(tmp_path, report=lines.append)
  assert list(found.table.modalities) == ["about"] and lines == []
  assert not found.table.schema.modalities["about"].weighted
  # As experiments.describe --label=item writes it.
  label = {"column": "item", "kind": "regression"}
  write_spec(tmp_path, modalities={"about": genres}, label=label, id="sku")
  assert read(tmp_path).table.schema == found.table.schema


@pytest.mark.parametrize(
  ("value", "message"),
  [
    ({"modalities": {}}, "there are none; name at least one"),
    ({"modality": {}}, "unknown setting 'modality'"),
    (
      {"modalities": {"a": {"kind": "number", "column": "yaer"}}},
      r"items.parquet: the spec names column 'yaer', but the columns are \['item'",
    ),
    (
      {"modalities": {"a": {"kind": "number", "column": "genres"}}},
      "column 'genres' is string, but modality 'a' of kind 'number' needs a number",
    ),
    ({"label": {"column": "genres"}}, "label is column 'genres', but users and items"),
    ([], "items.spec.json is not a spec of columns"),
  ],
)
def test_a_bad_spec_is_refused(tmp_path, value, message):
  (tmp_path / "items.spec.json").write_text(json.dumps(value))
  with pytest.raises(DataError, match=message):
    read(tmp_path)


def test_a_file_of_ids_alone_has_no_fields(tmp_path):
  found = read(tmp_path, {"item": ["a", "b"]})
  assert found.table.modalities == {} and found.titles.tolist() == ["a", "b"]
  assert found.table.ids.tolist() == ["a", "b"] and found.vocabularies == {}


def test_columns_that_cannot_be_fields_are_named(tmp_path):
  lines = []
  found = read(tmp_path, {"item": [1, 2], "same": ["x", "x"]}, lines.append)
  assert found.table.modalities == {}
  assert (
    len(lines) == 1 and "no fields" in lines[0] and "same value in every" in lines[0]
  )


def test_unfit_columns_are_dropped_from_proposals_and_refused_in_specs(tmp_path):
  columns = {"item": [1, 2], "plot": ["war and peace", "crime or love"], "n": [1, 5]}
  lines = []
  assert list(read(tmp_path, columns, lines.append).table.modalities) == ["n"]
  assert "column 'plot' is left out: no token is in 2" in lines[0]
  write_spec(tmp_path, modalities={"plot": {"kind": "text", "column": "plot"}})
  with pytest.raises(DataError, match=r"'plot': no token.*leave it out of .*spec.json"):
    read(tmp_path, columns)


@pytest.mark.parametrize("name", ["title", "NAME"])
def test_titles_are_of_one_line(tmp_path, name):
  texts = ["a\n b", None, " ", "x" * 500]
  found = read(tmp_path, {"item": [1, 2, 3, 4], name: texts, "n": [1, 5, 2, 3]})
  assert found.titles.tolist() == ["a b", "2", "3", "x" * 100]


def test_numbers_are_no_titles(tmp_path):
  assert read(tmp_path, {"item": [7, 8], "name": [1.5, 2]}).titles.tolist() == [
    "7",
    "8",
  ]


@pytest.mark.parametrize(
  ("columns", "message"),
  [
    ({"item": ["a", None, "c"]}, "row 1, column 'item': there is no id; fill it in"),
    ({"item": ["a", "b", ""]}, "row 2, column 'item': there is no id"),
    ({"item": [1.0, 2.5]}, "row 1, column 'item': 2.5 is not a token"),
    (
      {"item": ["a", "b", "c", "b", "a", "b"]},
      "row 3, column 'item': the id 'b' is also that of row 1; 3 rows repeat an id",
    ),
    (
      {"id": ["a"], "title": ["b"]},
      r"no column 'item'; there are \['id', 'title'\]: name the column of ids as",
    ),
    ({"item": [["a"]]}, "column 'item' is list<.*but ids are strings or whole numbers"),
    ({"item": []}, "no rows"),
    (
      {"item": [1, 2, 3], "price": [1.0, float("inf"), 2.0]},
      "row 1, column 'price': inf is not finite",
    ),
  ],
)
def test_bad_rows_are_refused(tmp_path, columns, message):
  with pytest.raises(DataError, match=message) as error:
    read(tmp_path, columns)
  assert "items.parquet" in str(error.value)
