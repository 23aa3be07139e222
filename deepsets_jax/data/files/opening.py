"""Files of columns: Parquet, Arrow, JSON lines and CSV, each opened as a `Source`."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator, Sequence

import pyarrow as pa

from deepsets_jax.data.files import csv_files, json_files, paths, source
from deepsets_jax.data.files.binary_files import ArrowSource, ParquetSource
from deepsets_jax.data.files.plain import check_same_names
from deepsets_jax.data.files.source import Source, reason
from deepsets_jax.data.table import DataError

__all__ = ["Source", "open_source"]

# How files begin that are of one kind whatever their name.
_MARKS = {
  b"PAR1": "Parquet",
  b"PARE": "encrypted Parquet",
  b"ARROW1": "Arrow",
  b"\xff\xff\xff\xff": "Arrow",
  b"FEA1": "Feather of version 1",
  b"\x1f\x8b": "packed by gzip",
  b"PK\x03\x04": "a zip archive, or a spreadsheet",
  b"\x89HDF": "HDF5",
  b"ORC": "ORC",
}


def open_source(path: str | pathlib.Path, schema: pa.Schema | None = None) -> Source:
  """The rows of a file, of several files one after the other, or of a TFDS data set.

  The types of Parquet and Arrow are the files' own; those of JSON lines and CSV are
  told from all of the rows, which takes a pass (`json_types`, `csv_types`).

  Args:
    path: A file; a folder with files of one kind, or a pattern of them such as
      "part-*.csv", which are read in the order of their names; or "tfds:NAME".
    schema: Types that columns of these names shall have, of the table that a model was
      trained on, say. There may be fewer columns, and more. None for the files' own,
      which those of TFDS always are.

  Raises:
    DataError: Nothing there, nothing that can be read, or no rows.
  """
  if str(path).startswith(paths.TFDS):
    # TFDS takes seconds to import.
    from deepsets_jax.data.files import records

    return records.open_tfds(str(path))
  found = paths.files(str(path))
  kinds: dict[str, pathlib.Path] = {}
  for file in found:
    kinds.setdefault(_kind(file), file)
  if len(kinds) > 1:
    (one, first), (other, second) = list(kinds.items())[:2]
    raise DataError(
      f"{path}: {first} is {one} and {second} is {other}; give files of one kind"
    )
  names = [str(file) for file in found]
  parts = _open(next(iter(kinds)), names, schema)
  opened = parts[0] if len(parts) == 1 else _Files(str(path), parts)
  if not opened.schema.names:
    raise DataError(f"{path} has no columns; give some")
  if opened.num_rows == 0 or next(opened.batches([]), None) is None:
    raise DataError(f"{path} has columns {opened.schema.names}, and no rows; give some")
  return opened


def _open(kind: str, paths: Sequence[str], schema: pa.Schema | None) -> list[Source]:
  match kind:
    case "Parquet":
      return [ParquetSource(path, schema) for path in paths]
    case "Arrow":
      return [ArrowSource(path, schema) for path in paths]
    case "JSON lines":
      return json_files.open_files(paths, schema)
  return csv_files.open_files(paths, schema)


class _Files:
  """Files of the same columns as one `Source`, one after the other."""

  def __init__(self, where: str, parts: Sequence[Source]):
    """The files, after a look at their columns.

    Raises:
      DataError: A column is not in all of them, or not of one type.
    """
    self.where = where
    self.schema = pa.schema([(f.name, _agreed(f.name, parts)) for f in parts[0].schema])
    counts = [part.num_rows for part in parts]
    self.num_rows = None if None in counts else sum(counts)
    self._parts = parts

  def batches(
    self, columns: Sequence[str] | None = None, *, start: int = 0
  ) -> Iterator[pa.RecordBatch]:
    """As `Source` says; files before `start` whose length is known are not read."""
    names = source.select(self.where, self.schema, columns)
    return source.joined(self._read(names, start))

  def _read(self, names: Sequence[str], start: int) -> Iterator[pa.RecordBatch]:
    schema = pa.schema([self.schema.field(name) for name in names])
    for part in self._parts:
      count = part.num_rows
      if count is None and start:
        count = sum(batch.num_rows for batch in part.batches([]))
      if not start or start < count:
        for batch in part.batches(names, start=start):
          # A column of nulls has the type that it has in other files.
          yield batch.cast(schema) if names else batch
      start = max(start - (count or 0), 0)


def _agreed(name: str, parts: Sequence[Source]) -> pa.DataType:
  """The one type of a column of several files, null aside."""
  first = parts[0]
  kind, owner = first.schema.field(name).type, first
  for part in parts[1:]:
    check_same_names(part.where, part.schema.names, first.where, first.schema.names)
    found = part.schema.field(name).type
    if pa.types.is_null(kind):
      kind, owner = found, part
    elif found != kind and not pa.types.is_null(found):
      raise DataError(
        f"{part.where}, column {name!r}: type {found}, in {owner.where} {kind}; write"
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
  packed = suffix.endswith(".gz")
  expected = "packed by gzip" if packed else kind
  binary = packed or kind in ("Parquet", "Arrow")
  if found == expected or not (found or binary):
    return kind
  raise DataError(
    f"{path} is {found or f'not {expected}'} by what it holds, and {expected} by its"
    " name; give it the ending of what it is, or write it again"
  )
