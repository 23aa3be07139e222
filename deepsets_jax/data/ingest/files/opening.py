"""Tables of any kind as a `Source`: files, folders, TFDS data sets and queries."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import pyarrow as pa

from deepsets_jax.data.ingest.files import joins, json_files, paths, source
from deepsets_jax.data.ingest.files.binary_files import ArrowSource, ParquetSource
from deepsets_jax.data.ingest.files.csv_files import CsvSource
from deepsets_jax.data.ingest.files.joins import Many
from deepsets_jax.data.ingest.files.plain import check_same_names
from deepsets_jax.data.ingest.files.reading import Formatted, Reading
from deepsets_jax.data.ingest.files.source import Source, reason
from deepsets_jax.foundation.errors import DataError

__all__ = ["Source", "open_source"]

# How files begin that are of one kind whatever their name.
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
# Column that names the part, where files are called by parts.
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
  """The rows of a file, of several files one after the other, or of a query.

  Strings become values by the format of their column: that of `reading`, or the one
  that all cells of the column have, which takes a pass over the files. Files that are
  called by parts, such as train.csv and test.csv, have a column `split` more.

  Args:
    path: A file; a folder with files of one kind, or a pattern of them such as
      "part-*.csv", which are read in the order of their names; "tfds:NAME"; or
      "sql:SELECT ...", a query of DuckDB over files.
    reading: How the files are read; None to find all of it.
    schema: Types that columns of these names shall have, of the table that a model was
      trained on, say. There may be fewer columns, and more. None for those found.
    many: Tables of which many rows belong to one row of this one, by name.
    labels: Columns, in small letters, whose words are kept though they could be
      booleans.
    dates: "dmy" or "mdy", the order of dates that could be read in both.

  Raises:
    DataError: Nothing is there, nothing can be read, or there are no rows.
  """
  name, reading = str(path), reading or Reading()
  base = _open_base(name, reading)
  if name.startswith(paths.TFDS) and schema is None:
    opened = base  # Its strings are texts.
  else:
    opened = Formatted(base, reading.columns, schema, labels=labels, dates=dates)
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
  return _open_files(name, reading)


def _open_files(name: str, reading: Reading) -> Source:
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
  parts = [paths.part_of(file, name) for file in found]
  named = None not in parts and len(set(parts)) > 1
  if len(opened) == 1:
    return opened[0]
  return _Files(name, opened, parts if named else None)


class _Files:
  """Files of the same columns as one `Source`, one after the other."""

  def __init__(self, where: str, files: Sequence[Source], parts: Sequence[str] | None):
    """The files, after a look at their columns.

    Args:
      where: What to call them in a message.
      files: In their order.
      parts: The part that each file's name says; None if names do not.

    Raises:
      DataError: A column is not in all of them, or not of one type.
    """
    self.where = where
    fields = [(f.name, _agreed(f.name, files)) for f in files[0].schema]
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
    self._files = files

  def at(self, row: int) -> str:
    """Where a row is, for messages."""
    for file in self._files:
      count = _count(file)
      if row < count:
        return file.at(row)
      row -= count
    return self.where

  def batches(
    self, columns: Sequence[str] | None = None, *, start: int = 0
  ) -> Iterator[pa.RecordBatch]:
    """Batches as `Source` describes; files that end before `start` are not read."""
    names = source.select(self.where, self.schema, columns)
    return source.joined(self._read(names, start))

  def _read(self, names: Sequence[str], start: int) -> Iterator[pa.RecordBatch]:
    schema = pa.schema([self.schema.field(name) for name in names])
    own = [name for name in names if self._parts is None or name != SPLIT]
    for number, file in enumerate(self._files):
      count = file.num_rows
      if count is None and start:
        count = _count(file)
      if not start or start < count:
        for batch in file.batches(own, start=start):
          if len(own) < len(names):
            part = pa.repeat(pa.scalar(self._parts[number]), batch.num_rows)
            place = names.index(SPLIT)
            columns = [*batch.columns[:place], part, *batch.columns[place:]]
            yield pa.RecordBatch.from_arrays(columns, names=list(names)).cast(schema)
          else:
            # A column of nulls has the type that it has in other files.
            yield batch.cast(schema) if names else batch
      start = max(start - (count or 0), 0)


def _count(file: Source) -> int:
  if file.num_rows is not None:
    return file.num_rows
  return sum(batch.num_rows for batch in file.batches([]))


def _agreed(name: str, files: Sequence[Source]) -> pa.DataType:
  """The one type of a column of several files, null aside."""
  first = files[0]
  kind, owner = first.schema.field(name).type, first
  for file in files[1:]:
    check_same_names(file.where, file.schema.names, first.where, first.schema.names)
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
  """What a file is by its name, which what it holds must not contradict."""
  suffix = paths.suffix(path)
  if suffix is None:
    raise DataError(
      f"{path}: unknown kind of file {path.suffix!r}; one of {sorted(paths.KIND_OF)}"
    )
  try:
    with path.open("rb") as file:
      begin = file.read(64)
  except OSError as error:
    raise DataError(f"{path} cannot be opened ({reason(error)})") from error
  if not begin:
    raise DataError(f"{path} is empty; write it again")
  kind = paths.KIND_OF[suffix]
  found = next(
    (marked for mark, marked in _MARKS.items() if begin.startswith(mark)), ""
  )
  if kind == "CSV" and re.match(rb"\s*(\[\s*)?\{\s*['\"]", begin):
    found = "JSON lines"
  packed = _PACKED.get(pathlib.Path(suffix).suffix)
  expected = packed or kind
  binary = packed or kind in ("Parquet", "Arrow")
  if found == expected or not (found or binary):
    return kind
  raise DataError(
    f"{path} is {found or f'not {expected}'} by what it holds, and {expected} by its"
    " name; give it the ending of what it is, or write it again"
  )
