"""Sets from tables of which many rows belong to one row, and tables from queries."""

import collections
import csv
import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepsets_jax.data.ingest.columns import build, proposal, spec
from deepsets_jax.data.ingest.columns.profiling import profile_columns
from deepsets_jax.data.ingest.files import opening, source
from deepsets_jax.data.ingest.files.formats import Format
from deepsets_jax.data.ingest.files.joins import Many, parse_many
from deepsets_jax.foundation.errors import DataError

FILMS = [f"f{i}" for i in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Films; faces, with vectors, in no order; and clicks, with times, as CSV."""
  path = tmp_path_factory.mktemp("many")
  rng = np.random.default_rng(0)
  label = ["no", "yes"] * 20
  pq.write_table(pa.table({"film": FILMS, "label": label}), path / "films.parquet")
  faces = [(str(f), rng.normal(size=3).tolist()) for f in rng.choice(FILMS[:35], 90)]
  faces.append(("unknown", [0.0] * 3))
  columns = {"film": [f for f, _ in faces], "vector": [v for _, v in faces]}
  pq.write_table(pa.table(columns), path / "faces.parquet", row_group_size=7)
  with (path / "clicks.csv").open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["seconds", "of_film", "when", "page"])
    for film in rng.choice(FILMS, 200):
      day = rng.integers(1, 29)
      seconds = rng.integers(1, 99)
      page = rng.choice(["home", "search"])
      writer.writerow([f"{seconds},5", film, f"{day}.3.2024", page])
  return path


MANY = {
  "faces": Many("faces.parquet", "film"),
  "clicks": Many("clicks.csv", "of_film", "film"),
}


def joined(folder, many=MANY, dates="dmy"):
  return opening.open_source(folder / "films.parquet", many=many, dates=dates)


def by_loop(folder):
  """For each film its faces in the order of the file, and clicks by time."""
  faces, clicks = collections.defaultdict(list), collections.defaultdict(list)
  for row in pq.read_table(folder / "faces.parquet").to_pylist():
    faces[row["film"]].append(row["vector"])
  with (folder / "clicks.csv").open() as file:
    for place, row in enumerate(csv.DictReader(file)):
      day, month, year = map(int, row["when"].split("."))
      when = datetime.date(year, month, day)
      number = float(row["seconds"].replace(",", "."))
      clicks[row["of_film"]].append((when, place, row["page"], number))
  rows = []
  for film in FILMS:
    some = sorted(clicks[film])
    rows.append(
      {
        "faces.vector": faces[film] or None,
        "clicks.seconds": [number for *_, number in some] or None,
        "clicks.when": [when for when, *_ in some] or None,
        "clicks.page": [page for _, _, page, _ in some] or None,
      }
    )
  return rows


@pytest.mark.parametrize("size", [3, 1000])
@pytest.mark.parametrize("start", [0, 17])
def test_each_row_has_the_rows_of_its_key_in_order(folder, monkeypatch, size, start):
  monkeypatch.setattr(source, "BATCH_ROWS", size)
  opened = joined(folder)
  rows = [row for batch in opened.batches(start=start) for row in batch.to_pylist()]
  assert [row["film"] for row in rows] == FILMS[start:]
  wanted = by_loop(folder)[start:]
  assert [{k: row[k] for k in wanted[0]} for row in rows] == wanted
  some = pa.Table.from_batches(opened.batches(["clicks.page"], start=start))
  assert some["clicks.page"].to_pylist() == [row["clicks.page"] for row in wanted]
  assert sum(batch.num_rows for batch in opened.batches([], start=start)) == len(rows)


def test_keys_that_match_nothing_are_counted(folder):
  notes = "\n".join(joined(folder).notes)
  assert "faces: 90 of 91 rows of faces.parquet belong to a row by 'film'" in notes
  assert "without a match: 1, such as 'unknown'" in notes
  assert "clicks: 200 of 200 rows" in notes and "0 of 40 rows have none" in notes
  assert "seconds: numbers with a decimal comma" in notes


def test_another_order_than_that_of_times(folder):
  many = {"clicks": Many("clicks.csv", "of_film", "film", order="seconds")}
  for batch in joined(folder, many).batches(["clicks.seconds"]):
    for cell in batch["clicks.seconds"].to_pylist():
      assert cell is None or cell == sorted(cell)


def test_what_is_proposed_is_written_read_and_trained_on(folder, tmp_path, monkeypatch):
  opened = joined(folder)
  proposed, _ = proposal.propose(profile_columns(opened), opened.where)
  kinds = {name: kind.kind for name, kind in proposed.modalities.items()}
  assert kinds == {
    "faces_vector": "vectors",
    "clicks_seconds": "numbers",
    "clicks_when": "numbers",
    "clicks_page": "tokens",
  }
  opened_spec = spec.with_reading(
    spec.dataclasses.replace(proposed, many=MANY), opened, spec.Reading()
  )
  again = spec.from_json(opened_spec.to_json(), "spec")
  assert again == opened_spec
  # A date of which the order was told is read so without a word.
  path = str(folder / "films.parquet")
  assert again.open(path).schema.field("clicks.when").type == pa.list_(pa.date32())
  monkeypatch.setenv("DEEPSETS_JAX_CACHE", str(tmp_path))
  said = []
  tables = build.tables(path, again, 0, said.append)
  assert any("without a match: 1" in line for line in said)
  wanted = {film: row for film, row in zip(FILMS, by_loop(folder), strict=True)}
  for table in tables.values():
    for row, name in enumerate(table.ids.tolist()):
      vectors = table.modalities["faces_vector"]
      begin, end = vectors.offsets[row : row + 2]
      assert end - begin == len(wanted[name]["faces.vector"] or [])
  key = build.folder_of(path, again, 0)
  columns = pq.read_table(folder / "faces.parquet")
  pq.write_table(columns, folder / "faces.parquet")
  assert build.folder_of(path, again, 0) != key  # Another file, other tables.


def test_other_files_of_the_same_tables(folder, tmp_path):
  one = spec.from_json(
    {
      "modalities": {"v": {"kind": "vectors", "column": "faces.vector"}},
      "label": {"column": "label", "kind": "multiclass"},
      "many": {"faces": MANY["faces"].to_json()},
    },
    "spec",
  )
  few = pa.table({"film": ["f1"], "vector": [[1.0, 2.0, 3.0]]})
  pq.write_table(few, tmp_path / "few.parquet")
  other = one.with_many({"faces": str(tmp_path / "few.parquet")})
  (batch,) = other.open(str(folder / "films.parquet")).batches(["faces.vector"])
  cells = batch["faces.vector"].to_pylist()
  assert cells[:3] == [None, [[1.0, 2.0, 3.0]], None] and not any(cells[2:])
  with pytest.raises(ValueError, match="no joined table 'face'"):
    one.with_many({"face": "x"})


@pytest.mark.parametrize(
  "many, match",
  [
    (Many("faces.parquet", "id"), "films.parquet: no column 'id'.*no key of 'faces'"),
    (Many("faces.parquet", "id", "film"), "faces.parquet: no column 'id'; there are"),
    (Many("none.parquet", "film"), "none.parquet: no such file"),
    (Many("faces.parquet", "film", order="time"), "no column 'time'.*order of 'faces'"),
    (
      Many("faces.parquet", "film", "label"),
      "column 'label': '(true|false)' is the key of row",
    ),
  ],
)
def test_a_table_that_cannot_belong_is_named(folder, many, match):
  with pytest.raises(DataError, match=match):
    joined(folder, {"faces": many})


def test_whole_numbers_are_one_key_whatever_their_type(tmp_path):
  pq.write_table(pa.table({"id": [1, 2], "label": [0, 1]}), tmp_path / "a.parquet")
  numbers = pa.table({"id": [2.0, None, 1.0, 2.5], "x": ["p", "q", "r", "s"]})
  pq.write_table(numbers, tmp_path / "b.parquet")
  opened = opening.open_source(
    tmp_path / "a.parquet", many={"b": Many("b.parquet", "id")}
  )
  (batch,) = opened.batches(["b.x"])
  assert batch["b.x"].to_pylist() == [["r"], ["p"]]


def test_columns_may_differ_in_case_and_keys_be_no_numbers(tmp_path):
  pq.write_table(
    pa.table({"id": [1.0, np.inf], "label": [0, 1]}), tmp_path / "a.parquet"
  )
  columns = {
    "id": [1.0, np.nan, np.inf],
    "x": [1, 2, 3],
    "X": [4, 5, 6],
    "_key": [7] * 3,
  }
  pq.write_table(pa.table(columns), tmp_path / "b.parquet")
  many = {"b": Many("b.parquet", "id")}
  opened = opening.open_source(tmp_path / "a.parquet", many=many)
  (batch,) = opened.batches()
  rows = [(row["b.x"], row["b.X"], row["b._key"]) for row in batch.to_pylist()]
  assert rows == [([1], [4], [7]), ([3], [6], [7])]


def test_a_bad_cell_of_a_table_that_belongs_is_named(tmp_path):
  pq.write_table(pa.table({"id": [1], "label": [0]}), tmp_path / "a.parquet")
  (tmp_path / "b.csv").write_text("id,x\n1,2\n1,many\n")
  many = {"b": Many("b.csv", "id", columns={"x": Format("number")})}
  with pytest.raises(DataError, match=r"b.csv, row 1 \(line 3\), column 'x': 'many'"):
    opening.open_source(tmp_path / "a.parquet", many=many)


def test_tables_of_the_command_line():
  assert parse_many(["a=x/b.csv:key", "c=d.parquet:k=of"]) == {
    "a": Many("x/b.csv", "key"),
    "c": Many("d.parquet", "k", "of"),
  }
  for text in ("a", "a=b.csv", "=b.csv:k", "a=:k", "a=b.csv:"):
    with pytest.raises(DataError, match="expected NAME=FILE:KEY"):
      parse_many([text])


class TestQueries:
  def test_are_tables_in_their_order(self, folder):
    films = folder / "films.parquet"
    opened = opening.open_source(
      f"sql:SELECT film, label, '$1,2' || film[2:] AS price FROM '{films}'"
      " WHERE film < 'f2' ORDER BY film DESC;"
    )
    rows = [row for batch in opened.batches() for row in batch.to_pylist()]
    wanted = sorted((film for film in FILMS if film < "f2"), reverse=True)
    assert [row["film"] for row in rows] == wanted
    (batch,) = opened.batches(["film"], start=len(wanted) - 1)
    assert batch["film"].to_pylist() == ["f0"]

  def test_belong_to_the_files_that_they_name(self, folder):
    query = f"sql:SELECT * FROM '{folder}/films.parquet'"
    one = spec.from_json(
      {
        "modalities": {"film": {"kind": "text", "column": "film"}},
        "label": {"column": "label", "kind": "multiclass"},
      },
      "spec",
    )
    key = build.folder_of(query, one, 0)
    table = pq.read_table(folder / "films.parquet")
    pq.write_table(table, folder / "films.parquet")
    assert build.folder_of(query, one, 0) != key

  @pytest.mark.parametrize(
    "query, match",
    [
      ("SELECT * FROM 'none.parquet'", "cannot be run: .*none.parquet"),
      ("SELEC 1", "cannot be run: .*SELEC"),
      ("SELECT 1 AS a WHERE false", "no rows"),
    ],
  )
  def test_that_cannot_be_run_are_named(self, query, match):
    with pytest.raises(DataError, match=match):
      opening.open_source(f"sql:{query}")
