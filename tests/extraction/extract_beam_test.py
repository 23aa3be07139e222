"""Extraction as a Beam pipeline gives the rows of the pipeline on one machine."""

import functools
import json
import pathlib
import warnings

import extract_pipeline_test as local
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepsets_jax.extraction import inputs
from deepsets_jax.foundation.errors import DataError

with warnings.catch_warnings():
  warnings.simplefilter("ignore")  # Of Beam's own modules.
  pytest.importorskip("apache_beam", reason="needs the extra: beam")
  from deepsets_jax.extraction import beam

pytestmark = [
  # Of Beam's own modules and its default options.
  pytest.mark.filterwarnings("ignore"),
]
DIRECT = ["--runner=DirectRunner"]


def job(path, folder, log=None, *, images=(), texts=(), rows=5):
  return beam.BeamExtraction(
    *(str(path), images, texts, str(folder / "sets.parquet"), str(folder / "cache")),
    make=functools.partial(local.make, log),
    settings=local.SMALL,
    shard_rows=rows,
  )


def files(folder):
  return sorted(folder.glob("sets-*.parquet"))


@pytest.fixture
def films(tmp_path):
  """A table of 23 rows in three row groups, some broken, some the same."""
  images = [local.picture(i % 15) if i % 4 else None for i in range(23)]
  images[9] = images[17] = b"bad"
  columns = {
    "id": [f"film {i}" for i in range(23)],
    "poster": images,
    "plot": [f"text {i % 6}" if i % 3 else None for i in range(23)],
  }
  return local.write(tmp_path / "films.parquet", columns, row_group_size=9)


def test_files_are_the_rows_of_the_input_in_order(films, tmp_path):
  given = inputs.open_input(films, ["poster"], ["plot"])
  want = local.run(given, tmp_path / "local.parquet")
  folder = tmp_path / "out"
  got = beam.run_beam(job(films, folder, images=["poster"], texts=["plot"]), DIRECT)
  names = [f"sets-{i:05}-of-00005.parquet" for i in range(5)]
  assert [path.name for path in files(folder)] == names
  tables = [pq.read_table(path) for path in files(folder)]
  assert [len(table) for table in tables] == [5, 5, 5, 5, 3]
  whole = pq.read_table(tmp_path / "local.parquet")
  assert pa.concat_tables(tables).equals(whole)
  assert tables[0].schema.metadata == whole.schema.metadata
  assert (got.rows, got.elements) == (want.rows, want.elements)
  assert got.problems == want.problems and len(got.problems) == 2
  assert got.licences == want.licences
  listed = [
    pathlib.Path(f"{path}.problems.json").read_text()
    for path in (folder / "sets.parquet", tmp_path / "local.parquet")
  ]
  assert json.loads(listed[0]) == json.loads(listed[1])
  assert not list(folder.glob(".sets*"))


def test_the_files_are_one_table(films, tmp_path):
  folder = tmp_path / "out"
  beam.run_beam(job(films, folder, images=["poster"], texts=["plot"]), DIRECT)
  again = inputs.open_input(str(folder / "sets-*.parquet"), (), ["plot"])
  rows = pa.Table.from_batches(again.source.batches(["id"]))
  assert rows["id"].to_pylist() == [f"film {i}" for i in range(23)]


def test_a_second_run_finds_what_the_first_kept(films, tmp_path):
  log = tmp_path / "log"
  one = job(films, tmp_path / "out", log, images=["poster"], texts=["plot"])
  first = beam.run_beam(one, DIRECT)
  before = len(local.seen(log))
  assert before == first.extracted > 0
  contents = [path.read_bytes() for path in files(tmp_path / "out")]
  files(tmp_path / "out")[2].unlink()
  second = beam.run_beam(one, DIRECT)
  assert second.extracted == 0 and len(local.seen(log)) == before
  assert [path.read_bytes() for path in files(tmp_path / "out")] == contents


def test_a_folder_is_an_input_too(tmp_path):
  folder = tmp_path / "photos"
  folder.mkdir()
  for i in range(7):
    (folder / f"{i}.png").write_bytes(local.picture(i))
  (folder / "3.txt").write_text("the third")
  want = tmp_path / "out" / "local.parquet"
  local.run(inputs.open_input(str(folder)), want)
  beam.run_beam(job(folder, tmp_path / "out", rows=100), DIRECT)
  (path,) = files(tmp_path / "out")
  assert pq.read_table(path).equals(pq.read_table(want))
  assert "../photos/3.png" in pq.read_table(path)["path"].to_pylist()


def test_rows_that_are_not_counted_are_counted(tmp_path):
  path = tmp_path / "t.jsonl"
  path.write_text("".join(f'{{"t": "row {i}"}}\n' for i in range(12)))
  one = job(path, tmp_path / "out", texts=["t"])
  one = beam.dataclasses.replace(one, make=local.words_only)
  assert beam.run_beam(one, DIRECT).rows == 12
  tables = [pq.read_table(path) for path in files(tmp_path / "out")]
  assert [len(table) for table in tables] == [5, 5, 2]
  found = pa.concat_tables(tables)["words.strings"].to_pylist()
  assert found == [["row", str(i)] for i in range(12)]


def test_summaries_add_up_in_the_order_of_rows():
  some = [
    (i, beam.Summary(rows=i, elements={"a": 1}, problems=[str(i)])) for i in range(4)
  ]
  summary = beam.total([some[i] for i in (2, 0, 3, 1)])
  assert (summary.rows, summary.elements) == (6, {"a": 4})
  assert summary.problems == ["0", "1", "2", "3"]


def test_a_wrong_column_is_refused_before_the_runner_starts(films, tmp_path):
  with pytest.raises(DataError, match="no column 'picture'"):
    beam.run_beam(job(films, tmp_path / "out", images=["picture"]), DIRECT)
  assert not (tmp_path / "out").exists()


def test_files_of_another_number_are_not_mixed_with_new_ones(films, tmp_path):
  folder = tmp_path / "out"
  beam.run_beam(job(films, folder, images=["poster"], texts=["plot"]), DIRECT)
  other = job(films, folder, images=["poster"], texts=["plot"], rows=9)
  with pytest.raises(DataError, match="sets-00000-of-00005.*than 3. Remove such"):
    beam.run_beam(other, DIRECT)
  assert len(files(folder)) == 5


def test_files_without_rows_are_refused(films, tmp_path):
  with pytest.raises(ValueError, match="shard_rows is 0"):
    job(films, tmp_path, rows=0)
