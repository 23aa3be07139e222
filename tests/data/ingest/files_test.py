"""Files of columns: what they hold is the same in every format."""

import gzip
import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from deepsets_jax.data.ingest.files import opening, source
from deepsets_jax.foundation.errors import DataError

SCHEMA = pa.schema(
  {
    "count": pa.int64(),
    "share": pa.float64(),
    "is_new": pa.bool_(),
    "text": pa.string(),
    "sizes": pa.list_(pa.int64()),
    "tags": pa.list_(pa.string()),
    "points": pa.list_(pa.list_(pa.float64())),
  }
)
# Of which all types can be told.
FIRST = {
  "count": 3,
  "share": 0.5,
  "is_new": True,
  "text": "x",
  "sizes": [1, 2],
  "tags": ["y"],
  "points": [[0.5, 1.0], []],
}
TEXTS = st.text(alphabet='ab",\n\r é[]{}\t', min_size=1, max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def rows_of_table():
  """Up to a dozen rows of `SCHEMA`, the first of them `FIRST`."""
  integers = st.integers(-(2**63), 2**63 - 1)
  row = st.fixed_dictionaries(
    {
      "count": st.none() | integers,
      "share": st.none() | NUMBERS,
      "is_new": st.none() | st.booleans(),
      "text": st.none() | TEXTS,
      "sizes": st.none() | st.lists(st.none() | integers, max_size=3),
      "tags": st.none() | st.lists(st.none() | TEXTS, max_size=3),
      "points": st.none() | st.lists(st.none() | st.lists(NUMBERS, max_size=2)),
    }
  )
  return st.lists(row, max_size=12).map(lambda rows: [FIRST, *rows])


def write_parquet(rows, path):
  table = pa.Table.from_pylist(rows, SCHEMA)
  pq.write_table(table, path, row_group_size=3)


def write_arrow(rows, path):
  with pa.ipc.new_file(path, SCHEMA) as writer:
    writer.write_table(pa.Table.from_pylist(rows, SCHEMA), max_chunksize=4)


def write_stream(rows, path):
  with pa.ipc.new_stream(path, SCHEMA) as writer:
    writer.write_table(pa.Table.from_pylist(rows, SCHEMA), max_chunksize=4)


def write_jsonl(rows, path):
  text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
  path.write_bytes(text.encode())


def write_jsonl_gz(rows, path):
  text = "\r\n".join(json.dumps(row) for row in rows)
  path.write_bytes(gzip.compress(text.encode()))


def write_csv(rows, path):
  def cell(value):
    return json.dumps(value) if isinstance(value, list) else value

  cells = [{key: cell(value) for key, value in row.items()} for row in rows]
  written = [pa.string() if pa.types.is_list(kind) else kind for kind in SCHEMA.types]
  schema = pa.schema(list(zip(SCHEMA.names, written, strict=True)))
  pa.csv.write_csv(pa.Table.from_pylist(cells, schema), path)


WRITERS = {
  "a.parquet": write_parquet,
  "a.arrow": write_arrow,
  "a.ipc": write_stream,
  "a.jsonl": write_jsonl,
  "a.json.gz": write_jsonl_gz,
  "a.csv": write_csv,
}


def rows_of(opened, columns=None, start=0):
  """The rows of a source, its batches checked on the way."""
  names = opened.schema.names if columns is None else list(columns)
  rows = []
  for batch in opened.batches(columns, start=start):
    assert 0 < batch.num_rows <= source.BATCH_ROWS
    assert batch.schema == pa.schema([opened.schema.field(name) for name in names])
    rows += batch.to_pylist()
  return rows


@pytest.mark.parametrize("name", WRITERS)
@hypothesis.given(
  rows=rows_of_table(), start=st.integers(0, 14), size=st.integers(1, 9)
)
@hypothesis.settings(max_examples=50)
def test_a_table_is_the_same_in_every_format(tmp_path_factory, name, rows, start, size):
  path = tmp_path_factory.mktemp("table") / name
  WRITERS[name](rows, path)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(source, "BATCH_ROWS", size)
    opened = opening.open_source(path)
    assert opened.where == str(path)
    assert opened.schema == SCHEMA
    assert opened.num_rows in (len(rows), None)
    rows = [row | {"text": (row["text"] or "").strip() or None} for row in rows]
    assert rows_of(opened) == rows
    assert rows_of(opened, ["tags", "count"], start) == [
      {"tags": row["tags"], "count": row["count"]} for row in rows[start:]
    ]
    assert sum(b.num_rows for b in opened.batches([], start=start)) == len(rows[start:])
    # As at prediction: the types are known, and no pass is made.
    again = opening.open_source(path, schema=SCHEMA)
    assert again.schema == SCHEMA
    assert rows_of(again, start=start) == rows[start:]


def test_a_column_that_is_not_there_is_named(tmp_path):
  path = tmp_path / "a.jsonl"
  write_jsonl([FIRST], path)
  with pytest.raises(DataError, match=r"a\.jsonl: no column 'nothing'; it has \['c"):
    list(opening.open_source(path).batches(["nothing"]))


class TestManyFiles:
  @pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv", "a.ipc"])
  def test_are_read_one_after_the_other(self, tmp_path, name):
    suffix = name.removeprefix("a")
    rows = [FIRST | {"count": i} for i in range(10)]
    for part, begin in (("b", 4), ("a", 0), ("c", 7)):
      end = {"a": 4, "b": 7, "c": 10}[part]
      WRITERS[name](rows[begin:end], tmp_path / f"{part}{suffix}")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "README.md").write_text("Not a table.")
    for path in (tmp_path, tmp_path / f"*{suffix}"):
      for schema in (None, SCHEMA):
        opened = opening.open_source(path, schema=schema)
        assert opened.schema == SCHEMA
        for start in (0, 3, 4, 8, 10, 12):
          assert rows_of(opened, start=start) == rows[start:]
        assert [row["count"] for row in rows_of(opened, ["count"], 6)] == [6, 7, 8, 9]

  def test_of_text_have_the_types_that_all_of_them_tell(self, tmp_path):
    (tmp_path / "1.csv").write_text("a,b,c\n1,,x\n")
    (tmp_path / "2.csv").write_text("c,a,b\n,1.5,[]\n")
    opened = opening.open_source(tmp_path)
    assert opened.schema.types == [pa.float64(), pa.list_(pa.string()), pa.string()]
    assert rows_of(opened) == [
      {"a": 1.0, "b": None, "c": "x"},
      {"a": 1.5, "b": [], "c": None},
    ]

  def test_of_binary_formats_must_agree_but_for_nulls(self, tmp_path):
    def write(name, columns):
      pq.write_table(pa.table(columns), tmp_path / name)

    write("1.parquet", {"a": [1], "b": pa.nulls(1)})
    write("2.parquet", {"b": ["x"], "a": [2]})
    rows = rows_of(opening.open_source(tmp_path))
    assert rows == [{"a": 1, "b": None}, {"a": 2, "b": "x"}]
    write("3.parquet", {"a": [1.5], "b": ["x"]})
    match = r"3\.parquet, column 'a': type double, in .*1\.parquet int64; write all"
    with pytest.raises(DataError, match=match):
      opening.open_source(tmp_path)
    write("3.parquet", {"a": [1]})
    match = r"3\.parquet: column 'b' is not in both this file and .*1\.parquet"
    with pytest.raises(DataError, match=match):
      opening.open_source(tmp_path)

  def test_of_text_must_have_the_same_columns(self, tmp_path):
    (tmp_path / "1.csv").write_text("a,b\n1,2\n")
    (tmp_path / "2.csv").write_text("a,d\n1,2\n")
    with pytest.raises(DataError, match=r"2\.csv: column 'b' is not in both .*1\.csv"):
      opening.open_source(tmp_path)

  def test_of_json_have_the_types_of_all_their_objects(self, tmp_path):
    (tmp_path / "1.jsonl").write_text('{"a": 1, "c": 7}\n')
    (tmp_path / "2.jsonl").write_text('{"b": 1, "c": 1.5}\n{"a": "x"}\n')
    assert rows_of(opening.open_source(tmp_path)) == [
      {"a": "1", "c": 7.0, "b": None},
      {"a": None, "c": 1.5, "b": 1},
      {"a": "x", "c": None, "b": None},
    ]

  def test_that_are_called_by_parts_have_a_column_that_says_so(self, tmp_path):
    for name, x in (("train", 1), ("dev-00", 2), ("my_test", 3)):
      (tmp_path / f"{name}.csv").write_text(f"x\n{x}\n")
    opened = opening.open_source(tmp_path)
    assert rows_of(opened) == [
      {"x": 2, "split": "validation"},
      {"x": 3, "split": "test"},
      {"x": 1, "split": "train"},
    ]
    assert rows_of(opened, ["split"], 1) == [{"split": "test"}, {"split": "train"}]
    assert "files are called by parts" in opened.notes[0]
    for name in ("train", "dev-00", "my_test"):
      (tmp_path / f"{name}.csv").rename(tmp_path / f"{name.replace('t', 'x')}.csv")
    assert opening.open_source(tmp_path).schema.names == ["x"]

  def test_of_several_kinds_are_refused(self, tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    (tmp_path / "b.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(DataError, match=r"a\.csv is CSV and .*b\.jsonl is JSON lines"):
      opening.open_source(tmp_path)

  def test_a_folder_without_files_says_what_it_wants(self, tmp_path):
    with pytest.raises(DataError, match=r"no file that can be read; .*'\.parquet'"):
      opening.open_source(tmp_path)

  def test_a_partitioned_folder_is_refused(self, tmp_path):
    (tmp_path / "year=2020").mkdir()
    with pytest.raises(DataError, match="is partitioned, as year=2020 shows"):
      opening.open_source(tmp_path)


class TestWhatIsNoFile:
  @pytest.mark.parametrize("name", ["none.csv", "none/*.csv", "none"])
  def test_a_path_with_nothing_there_is_named(self, tmp_path, name):
    with pytest.raises(DataError, match=rf"{name.replace('*', '.')}: no such file"):
      opening.open_source(tmp_path / name)

  @pytest.mark.parametrize("name", ["a.xlsx", "a", "a.parquet.gz", "a.csv.zip"])
  def test_an_unknown_ending_lists_the_known_ones(self, tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"unknown kind of file .*'\.arrow', '\.csv'"):
      opening.open_source(tmp_path / name)

  @pytest.mark.parametrize("name", [*WRITERS, "a.tsv", "a.feather"])
  def test_an_empty_file_is_named(self, tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(DataError, match="is empty; write it again"):
      opening.open_source(tmp_path / name)

  @pytest.mark.parametrize("name", WRITERS)
  def test_a_file_of_another_kind_than_its_name_says_is_refused(self, tmp_path, name):
    for other, write in WRITERS.items():
      write([FIRST], tmp_path / other)
      content = (tmp_path / other).read_bytes()
      (tmp_path / f"mis{name}").write_bytes(content)
      if other == name or {name, other} == {"a.arrow", "a.ipc"}:
        assert rows_of(opening.open_source(tmp_path / f"mis{name}")) == [FIRST]
      else:
        with pytest.raises(DataError, match=r"mis.*(by what it holds|not one JSON)"):
          opening.open_source(tmp_path / f"mis{name}")

  @pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.csv", "a.ipc"])
  @pytest.mark.parametrize("schema", [None, SCHEMA])
  def test_no_rows_are_an_error(self, tmp_path, name, schema):
    WRITERS[name]([], tmp_path / name)
    with pytest.raises(DataError, match=r"has columns \['count', .*\], and no rows"):
      opening.open_source(tmp_path / name, schema=schema)


WIDE = 1000


def wide_parquet(path):
  values = np.random.default_rng(0).normal(size=(25_000, WIDE)).astype(np.float32)
  column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), WIDE)
  pq.write_table(pa.table({"a": column}), path, row_group_size=25_000)


def wide_arrow(path):
  values = np.zeros((25_000, WIDE), np.float32)
  column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), WIDE)
  with pa.ipc.new_file(path, pa.schema({"a": column.type})) as writer:
    writer.write_table(pa.table({"a": column}))


def wide_csv(path):
  path.write_bytes(b"a,b\n" + (b"x" * WIDE + b",1\n") * 100_000)


def wide_jsonl(path):
  path.write_bytes((b'{"a": "' + b"x" * WIDE + b'", "b": 1}\n') * 100_000)


LARGE = {
  "a.parquet": wide_parquet,
  "a.arrow": wide_arrow,
  "a.csv": wide_csv,
  "a.jsonl": wide_jsonl,
}
# Not of the test, for buffers outlive it.
POOL = pa.proxy_memory_pool(pa.default_memory_pool())


@pytest.mark.parametrize("name", LARGE)
def test_memory_stays_bounded_however_large_the_file(tmp_path, monkeypatch, name):
  path = tmp_path / name
  LARGE[name](path)
  assert path.stat().st_size > 90e6
  monkeypatch.setattr(source, "BATCH_BYTES", 1 << 22)
  before = pa.default_memory_pool()
  pa.set_memory_pool(POOL)
  try:
    opened = opening.open_source(path)
    rows = 0
    for batch in opened.batches():
      assert batch.nbytes <= 1 << 22
      rows += batch.num_rows
  finally:
    pa.set_memory_pool(before)
  assert rows == opened.num_rows or opened.num_rows is None
  assert POOL.max_memory() < 50e6
