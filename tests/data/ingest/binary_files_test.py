"""Parquet and Arrow files: plain types come out, and damage is named."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepsets_jax.data.ingest.files import opening, source
from deepsets_jax.foundation.errors import DataError

WORDS = pa.array(["a", None, "b"])


def write_parquet(table, path):
  pq.write_table(table, path)


def write_arrow(table, path):
  with pa.ipc.new_file(path, table.schema) as writer:
    writer.write_table(table)


def write_stream(table, path):
  with pa.ipc.new_stream(path, table.schema) as writer:
    writer.write_table(table)


WRITERS = {"a.parquet": write_parquet, "a.arrow": write_arrow, "a.ipc": write_stream}


def read(path, schema=None):
  opened = opening.open_source(path, schema=schema)
  return pa.Table.from_batches(opened.batches(), opened.schema)


@pytest.mark.parametrize("name", WRITERS)
def test_types_become_plain_ones(tmp_path, name):
  vectors = pa.FixedSizeListArray.from_arrays(
    pa.array(np.arange(6, dtype=np.float32)), 2
  )
  words = pa.ListArray.from_arrays([0, 1, 1, 3], WORDS.dictionary_encode())
  columns = {
    "dictionary": (WORDS.dictionary_encode(), pa.string()),
    "large": (WORDS.cast(pa.large_string()), pa.string()),
    "view": (WORDS.cast(pa.string_view()), pa.string()),
    "bytes": (WORDS.cast(pa.binary()).cast(pa.binary_view()), pa.binary()),
    "words": (words, pa.list_(pa.string())),
    "vectors": (vectors, pa.list_(pa.float32(), 2)),
    "large_list": (
      pa.array([["x"], None, []], pa.large_list(pa.large_string())),
      pa.list_(pa.string()),
    ),
    "required": (
      pa.array(
        [[1], [], [2]], pa.list_(pa.field("element", pa.int8(), nullable=False))
      ),
      pa.list_(pa.int8()),
    ),
    "uuid": (pa.array([b"0" * 16, None, b"1" * 16], pa.uuid()), pa.binary(16)),
    "map": (
      pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
      pa.map_(pa.string(), pa.int64()),
    ),
  }
  if name != "a.parquet":
    # Parquet has neither.
    columns["list_view"] = (
      pa.ListViewArray.from_arrays(
        [2, 0, 1], [1, 0, 2], [5, 6, 7], mask=pa.array([False, True, False])
      ),
      pa.list_(pa.int64()),
    )
    columns["runs"] = (
      pa.RunEndEncodedArray.from_arrays([2, 3], ["x", None]),
      pa.string(),
    )
  table = pa.table({key: array for key, (array, _) in columns.items()})
  WRITERS[name](table, tmp_path / name)
  got = read(tmp_path / name)
  for key, (array, wanted) in columns.items():
    assert got.schema.field(key).type == wanted, key
    values = array.to_pylist()
    if key == "uuid":
      values = [None if value is None else value.bytes for value in values]
    assert got[key].to_pylist() == values, key


@pytest.mark.parametrize("name", WRITERS)
def test_structs_at_the_top_become_columns(tmp_path, name):
  inner = pa.StructArray.from_arrays([WORDS], ["deep"])
  outer = pa.StructArray.from_arrays(
    [pa.array([1, 2, 3]), inner], ["x", "y"], mask=pa.array([False, False, True])
  )
  WRITERS[name](pa.table({"o": outer, "p.q": [1, 2, 3]}), tmp_path / name)
  opened = opening.open_source(tmp_path / name)
  assert opened.schema.names == ["o.x", "o.y.deep", "p.q"]
  got = read(tmp_path / name)
  # What is within a struct that is null is null.
  assert got["o.x"].to_pylist() == [1, 2, None]
  assert got["o.y.deep"].to_pylist() == ["a", None, None]
  (batch,) = opened.batches(["o.y.deep"], start=2)
  assert batch.to_pydict() == {"o.y.deep": [None]}


@pytest.mark.parametrize("name", WRITERS)
def test_names_are_there_once_and_not_empty(tmp_path, name):
  one = pa.array([1])
  struct = pa.StructArray.from_arrays([one], ["x"])
  for arrays, names, match in (
    ([one, one], ["a", "a"], "columns 0 and 1 are both 'a'; rename one"),
    ([one, one], ["a", ""], "column 1 has no name; give it one"),
    ([struct, one], ["a", "a.x"], "two columns are 'a.x', one of them within a struct"),
  ):
    WRITERS[name](pa.Table.from_arrays(arrays, names=names), tmp_path / name)
    with pytest.raises(DataError, match=match):
      opening.open_source(tmp_path / name)


@pytest.mark.parametrize("name", WRITERS)
class TestWantedTypes:
  def test_are_given_where_values_fit(self, tmp_path, name):
    table = pa.table(
      {
        "a": pa.array([1, 2], pa.int8()),
        "b": pa.array([[1.0, 2.0], None]),
        "c": pa.nulls(2),
        "d": pa.array([3.0, None]),
        "more": ["x", "y"],
      }
    )
    WRITERS[name](table, tmp_path / name)
    wanted = pa.schema(
      {
        "c": pa.list_(pa.string()),
        "b": pa.list_(pa.float32(), 2),
        "a": pa.float64(),
        "d": pa.int64(),
        "absent": pa.string(),
      }
    )
    got = read(tmp_path / name, wanted)
    assert got.to_pydict() == table.to_pydict()
    for column in "abcd":
      assert got.schema.field(column).type == wanted.field(column).type
    assert got.schema.names == table.schema.names

  @pytest.mark.parametrize(
    "values, wanted, match",
    [
      (["x"], pa.int64(), r"row 0, column 'a': 'x' cannot be read as integer"),
      ([1], pa.string(), r"column 'a': type int64, expected string"),
      ([[1]], pa.int64(), r"column 'a': type list<item: int64>, expected int64"),
      (
        [1.0, 2.5],
        pa.int64(),
        r"row 1, column 'a': 2\.5 cannot be read as int64 \(Float value",
      ),
      (
        [1, 300],
        pa.int8(),
        r"row 1, column 'a': 300 cannot be read as int8 \(Integer value",
      ),
      ([[1, 2], [1, 2, 3]], pa.list_(pa.int64(), 2), r"row 1, column 'a': \[1, 2, 3\]"),
      (
        [[1.0], [None, 2.5]],
        pa.list_(pa.int64()),
        r"row 1, column 'a': \[None, 2\.5\]",
      ),
    ],
  )
  def test_name_the_value_that_does_not_fit(
    self, tmp_path, name, values, wanted, match
  ):
    WRITERS[name](pa.table({"a": values}), tmp_path / name)
    with pytest.raises(DataError, match=match):
      read(tmp_path / name, pa.schema({"a": wanted}))


@pytest.mark.parametrize("name", WRITERS)
class TestDamage:
  def test_a_string_that_is_no_utf8_is_named(self, tmp_path, monkeypatch, name):
    monkeypatch.setattr(source, "BATCH_ROWS", 4)
    content = [b"x", None, b"y", b"x", b"y", b"z", b"caf\xe9", b"z"]
    bad = pa.array(content).view(pa.string())
    WRITERS[name](pa.table({"a": range(8), "b": bad}), tmp_path / name)
    match = r"row 6, column 'b': b'caf\\xe9' is damaged: .*UTF8.*must be UTF-8"
    with pytest.raises(DataError, match=match):
      read(tmp_path / name)

  def test_within_lists_it_is_named_too(self, tmp_path, name):
    words = pa.array([b"x", b"\xff"]).view(pa.string())
    table = pa.table({"b": pa.ListArray.from_arrays([0, 0, 1, 2], words)})
    WRITERS[name](table, tmp_path / name)
    with pytest.raises(DataError, match=r"row 2, column 'b': .*UTF8"):
      read(tmp_path / name)

  def test_a_truncated_file_is_named(self, tmp_path, name):
    table = pa.table({"a": range(1000), "b": [["x", "y"]] * 1000})
    WRITERS[name](table, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    # The mark of the end of a stream, of 8 bytes, may be missing.
    for size in (10, 100, len(whole) // 2, len(whole) - 9):
      (tmp_path / name).write_bytes(whole[:size])
      with pytest.raises(DataError, match=rf"{name}.* (truncated|damaged)"):
        read(tmp_path / name)

  def test_random_damage_is_an_error_or_harmless(self, tmp_path, name):
    table = pa.table({"a": range(50), "b": [["x", "yy"]] * 50, "c": [0.5] * 50})
    WRITERS[name](table, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(100):
      damaged = bytearray(whole)
      for place in rng.integers(len(whole), size=3):
        damaged[place] ^= rng.integers(1, 256)
      (tmp_path / name).write_bytes(damaged)
      try:
        got = read(tmp_path / name)
      except DataError as error:
        assert name in str(error)
      else:
        got.validate(full=True)


class TestParquet:
  def test_pages_are_checked_and_the_column_is_named(self, tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table(
      {"a": range(1000), "b": np.random.default_rng(0).normal(size=1000)}
    )
    pq.write_table(
      table, path, compression=None, use_dictionary=False, write_page_checksum=True
    )
    content = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(1)
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(content)
    match = r"a\.parquet, from row 0 on, column 'b': cannot be read \(.*checksum"
    with pytest.raises(DataError, match=match):
      read(path)
    assert len(list(opening.open_source(path).batches(["a"]))) == 1

  def test_row_groups_before_the_start_are_not_read(self, tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"a": np.random.default_rng(0).normal(size=1000)})
    pq.write_table(table, path, row_group_size=100, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    opened = opening.open_source(path)
    got = pa.Table.from_batches(opened.batches(start=150))
    assert got["a"].to_pylist() == table["a"].to_pylist()[150:]
    with pytest.raises(DataError, match="from row 0 on"):
      list(opened.batches(start=50))

  def test_empty_row_groups_and_those_of_one_row_are_read(self, tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"a": range(5)})
    with pq.ParquetWriter(path, table.schema) as writer:
      for part in (table.slice(0, 0), table, table.slice(0, 0)):
        writer.write_table(part, row_group_size=1)
    opened = opening.open_source(path)
    assert opened.num_rows == 5
    for start in range(7):
      batches = list(opened.batches(start=start))
      assert [row["a"] for b in batches for row in b.to_pylist()] == [*range(start, 5)]
      assert len(batches) <= 1

  def test_wide_rows_make_short_batches(self, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "BATCH_BYTES", 10_000)
    path = tmp_path / "a.parquet"
    # On disk once, in the dictionary; decoded in every row.
    pq.write_table(pa.table({"a": ["x" * 1000] * 500}), path)
    batches = list(opening.open_source(path).batches())
    assert max(batch.num_rows for batch in batches) < 11
    assert sum(batch.num_rows for batch in batches) == 500
