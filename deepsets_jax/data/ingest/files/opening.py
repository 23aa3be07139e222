"""Open any table as a `Source`: files, folders, TFDS data sets and queries."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import pyarrow as pa

from deepsets_jax.data.ingest.files import joins, json_files, paths, source
from deepsets_jax.data.ingest.files.binary_files import ArrowSource, ParquetSource
from deepsets_jax.data.ingest.files.csv_files import CsvSource
from deepsets_jax.data.ingest.files.joins import Many
from deepsets_jax.data.ingest.files.reading import Formatted, Reading
from deepsets_jax.data.ingest.files.source import Source
from deepsets_jax.foundation.errors import DataError

__all__ = ["Source", "open_source"]

# First bytes of files of one kind, whatever their name.
_MARKS = {
  b"PAR1": "Parquet",
  b"PARE": "encrypted Parquet",
  b"ARROW1": "Arrow",
  b"\xff\xff\xff\xff": "Arrow",
  b"FEA1": "Feather of version 1",
  b"\x1f\x8b": "packed by gzip",
  b"\x28\xb5\x2f\xfd": "packed by zstd",
  b"PK\x03\x04": "a zip archive, or a spreadsheet",
  b"\x89HDF": "HDF5",
  b"ORC": "ORC",
}
_PACKED = {".gz": "packed by gzip", ".zst": "packed by zstd"}
# Column that names the part of the table, if files are named after parts.
SPLIT = "split"


def open_source(
  path: str | pathlib.Path,
  reading: Reading | None = None,
  schema: pa.Schema | None = None,
  *,
  many: Mapping[str, Many] | None = None,
  labels: Collection[str] = (),
  dates: str | None = None,
) -> Source:
  """Open a file, several files one after the other, or a query as one table.

  Strings become values by the format of their column: the format in `reading`, or the
  one in which all cells of the column are written, which takes a pass over the files.
  Files that are named after parts, such as train.csv and test.csv, get a column
  `split`.

  Args:
    path: A file; a folder with files of one kind, or a pattern such as "part-*.csv",
      which are read in the order of their names; "tfds:NAME"; or "sql:SELECT ...", a
      query of DuckDB over files.
    reading: How to read the files; None to find it out.
    schema: Types of columns by name, for instance those of the table on which a model
      was trained. The file may have fewer columns, and more. None to find the types.
    many: Tables of which many rows belong to one row of this one, by name.
    labels: Columns, in lower case, whose words stay words though they could be
      booleans.
    dates: "dmy" or "mdy", the order of dates that could be read in both.

  Raises:
    DataError: Nothing is there, nothing can be read, or there are no rows.
  """
  name, reading = str(path), reading or Reading()
  opened = _open_base(name, reading)
  # The strings of TFDS are texts.
  if schema is not None or not name.startswith(paths.TFDS):
    opened = Formatted(opened, reading.columns, schema, labels=labels, dates=dates)
  if not opened.schema.names:
    raise DataError(f"{path} has no columns; give some")
  if opened.num_rows == 0 or next(opened.batches([]), None) is None:
    raise DataError(f"{path} has columns {opened.schema.names}, and no rows; give some")
  if not many:
    return opened
  tables = {}
  for key, one in many.items():
    formats = Reading(columns=one.columns or {})
    tables[key] = open_source(paths.beside(one.path, name), formats, dates=dates)
  return joins.Joined(opened, many, tables)


def _open_base(name: str, reading: Reading) -> Source:
  """The table with its strings as they are."""
  if name.startswith(paths.TFDS):
    # TFDS takes seconds to import.
    from deepsets_jax.data.ingest.files import records

    return records.open_tfds(name)
  if name.startswith(paths.SQL):
    return joins.QuerySource(name.removeprefix(paths.SQL))
  found = paths.files(name)
  kinds: dict[str, pathlib.Path] = {}
  for file in found:
    kinds.setdefault(_kind(file), file)
  if len(kinds) > 1:
    (one, first), (other, second) = list(kinds.items())[:2]
    raise DataError(
      f"{name}: {first} is {one} and {second} is {other}; give files of one kind"
    )
  files = [str(file) for file in found]
  match next(iter(kinds)):
    case "Parquet":
      opened = [ParquetSource(file) for file in files]
    case "Arrow":
      opened = [ArrowSource(file) for file in files]
    case "JSON lines":
      opened = json_files.open_files(files)
    case _:
      opened = [CsvSource(file, reading.separator, reading.header) for file in files]
  if len(opened) == 1:
    return opened[0]
  parts = [paths.part_of(file, name) for file in found]
  named = None not in parts and len(set(parts)) > 1
  return _Files(name, opened, parts if named else None)


class _Files(Source):
  """Files of the same columns as one `Source`, one after the other."""

  def __init__(self, where: str, files: Sequence[Source], parts: Sequence[str] | None):
    """Compare the columns of the files.

    Args:
      where: Name of the table in messages.
      files: The files, in their order.
      parts: Part of the table for each file; None if file names do not say it.

    Raises:
      DataError: A column is not in all of them, or not of one type.
    """
    self.where, self._files = where, files
    fields = [(name, _common_type(name, files)) for name in files[0].schema.names]
    self.notes = list(dict.fromkeys(note for file in files for note in file.notes))
    self._parts = parts if SPLIT not in files[0].schema.names else None
    if self._parts is not None:
      fields.append((SPLIT, pa.string()))
      self.notes.append(
        "files are called by parts, which the column 'split' names: "
        + ", ".join(sorted(set(self._parts)))
      )
    self.schema = pa.schema(fields)
    counts = [file.num_rows for file in files]
    self.num_rows = None if None in counts else sum(counts)

  def at(self, row: int) -> str:
    """Place of a row for messages: its file, and the row in that file."""
    for file in self._files:
      count = _count(file)
      if row < count:
        return file.at(row)
      row -= count
    return self.where

  def _read(self, names: Sequence[str], start: int) -> Iterator[pa.RecordBatch]:
    """Batches of these columns; files that end before `start` are not read."""
    schema = pa.schema([self.schema.field(name) for name in names])
    own = [name for name in names if self._parts is None or name != SPLIT]
    for number, file in enumerate(self._files):
      count = _count(file) if start else 0
      if not start or start < count:
        for batch in file.batches(own, start=start):
          columns = dict(zip(own, batch.columns, strict=True))
          if len(own) < len(names):
            part = pa.scalar(self._parts[number], pa.string())
            columns[SPLIT] = pa.repeat(part, batch.num_rows)
          # A column of nulls has the type that it has in other files.
          arrays = [columns[name].cast(schema.field(name).type) for name in names]
          yield source.make_batch(arrays, schema, batch.num_rows)
      start = max(start - count, 0)


def _count(file: Source) -> int:
  if file.num_rows is not None:
    return file.num_rows
  return sum(batch.num_rows for batch in file.batches([]))


def _common_type(name: str, files: Sequence[Source]) -> pa.DataType:
  """The one type of a column in several files, where it is not null."""
  owner = files[0]
  kind = owner.schema.field(name).type
  for file in files[1:]:
    if differing := sorted(set(file.schema.names) ^ set(files[0].schema.names)):
      raise DataError(
        f"{file.where}: column {differing[0]!r} is not in both this file and"
        f" {files[0].where}; write all files with the same columns, or read one of them"
        " alone"
      )
    found = file.schema.field(name).type
    if pa.types.is_null(kind):
      kind, owner = found, file
    elif found != kind and not pa.types.is_null(found):
      raise DataError(
        f"{file.where}, column {name!r}: type {found}, in {owner.where} {kind}; write"
        " all files with the same types"
      )
  return kind


def _kind(path: pathlib.Path) -> str:
  """The kind of a file by its name; its first bytes must not contradict it."""
  suffix = paths.suffix(path)
  if suffix is None:
    raise DataError(
      f"{path}: unknown kind of file {path.suffix!r}; one of {sorted(paths.KIND_OF)}"
    )
  with (
    source.located_errors(str(path), "check that it may be read"),
    path.open("rb") as file,
  ):
    begin = file.read(64)
  if not begin:
    raise DataError(f"{path} is empty; write it again")
  kind = paths.KIND_OF[suffix]
  found = next((kind for mark, kind in _MARKS.items() if begin.startswith(mark)), "")
  if kind == "CSV" and re.match(rb"\s*(\[\s*)?\{\s*['\"]", begin):
    found = "JSON lines"
  packed = _PACKED.get(pathlib.Path(suffix).suffix)
  expected = packed or kind
  if found == expected or not (found or packed or kind in ("Parquet", "Arrow")):
    return kind
  raise DataError(
    f"{path} is {found or f'not {expected}'} by what it holds, and {expected} by its"
    " name; give it the ending of what it is, or write it again"
  )
