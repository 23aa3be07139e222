"""Parquet files of the package are atomic, deterministic and checked."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepsets_jax.data.tables import parquet
from deepsets_jax.foundation.errors import DataError

TABLE = pa.table({"a": list(range(1000))}, metadata={"format": "ours 1"})


def test_written_files_are_read(tmp_path):
  path = tmp_path / "folder" / "a.parquet"
  parquet.write_parquet(TABLE, path, compression_level=3)
  assert parquet.read_parquet(path, "ours 1", "write it").equals(
    TABLE, check_metadata=True
  )
  assert [file.name for file in path.parent.iterdir()] == ["a.parquet"]
  assert path.stat().st_mode & 0o777 == 0o644


def test_the_same_table_gives_the_same_bytes_in_one_row_group(tmp_path):
  for name in "ab":
    parquet.write_parquet(TABLE, tmp_path / name, use_dictionary=False)
  assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
  metadata = pq.read_metadata(tmp_path / "a")
  assert metadata.num_row_groups == 1
  assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_table_without_rows_is_written_too(tmp_path):
  parquet.write_parquet(TABLE.slice(0, 0), tmp_path / "a")
  assert len(parquet.read_parquet(tmp_path / "a", "ours 1", "")) == 0


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / "a.parquet"
  path.write_bytes(b"old")

  def fail(table, where, **_):
    where.write_bytes(b"half")
    raise OSError("disk full")

  monkeypatch.setattr(parquet.pq, "write_table", fail)
  with pytest.raises(OSError, match="disk full"):
    parquet.write_parquet(TABLE, path)
  assert path.read_bytes() == b"old"
  assert list(tmp_path.iterdir()) == [path]


def test_bad_files_are_named_with_the_advice(tmp_path):
  path = tmp_path / "a.parquet"
  with pytest.raises(DataError, match=r"a\.parquet is missing, .*; write it"):
    parquet.read_parquet(path, "ours 1", "write it")
  parquet.write_parquet(TABLE, path)
  whole = path.read_bytes()
  damaged = whole[:60] + bytes([whole[60] ^ 255]) + whole[61:]
  for content in (b"", b"text", whole[:-1], whole[: len(whole) // 2], damaged):
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet is missing, truncated or damaged"):
      parquet.read_parquet(path, "ours 1", "write it")
  path.write_bytes(whole)
  with pytest.raises(DataError, match="format 'ours 1', expected 'ours 2'; write it"):
    parquet.read_parquet(path, "ours 2", "write it")
  pq.write_table(TABLE.replace_schema_metadata(None), path)
  with pytest.raises(DataError, match="format '', expected 'ours 1'"):
    parquet.read_parquet(path, "ours 1", "write it")
