"""CSV files as a `Source` of strings, read by DuckDB."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa

from deepsets_jax.data.ingest.files import dialect, duck, source
from deepsets_jax.data.ingest.files.dialect import Dialect
from deepsets_jax.data.ingest.files.source import READ_ERRORS, reason, shorten
from deepsets_jax.foundation.errors import DataError

# Bytes of the longest row. DuckDB reads in blocks of 16 times as much.
LONGEST_ROW = 1 << 22


class CsvSource(source.Streamed):
  """A file of comma-separated values, or of values with another separator between.

  Quotes are as in RFC 4180: a cell is quoted as a whole or not at all, and a quote in a
  quoted cell is written twice. Blank lines are rows only where there is a single
  column. Every column is one of strings; an empty cell is null.
  """

  def __init__(
    self, where: str, separator: str | None = None, header: bool | None = None
  ):
    """Reads the first lines.

    Args:
      where: Path.
      separator, header: See `dialect.detect`.

    Raises:
      DataError: The file has no header, or cannot be read.
    """
    self.where = where
    self.dialect = dialect.detect(where, separator, header)
    self.schema = pa.schema([(name, pa.string()) for name in self.dialect.names])
    self.notes = [self.dialect.note] if self.dialect.note else []

  def at(self, row: int) -> str:
    """Where a row is, for messages."""
    return (
      f"{self.where}, row {row} (line {dialect.line_of(self.where, self.dialect, row)})"
    )

  def _read(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    places = [self.dialect.names.index(name) for name in names]
    picked = ", ".join(f"c{place}" for place in places) or "1"
    schema = pa.schema([self.schema.field(name) for name in names])
    row = 0
    try:
      for batch in self._stream(picked, is_strict=True):
        yield _named(batch, schema)
        row += batch.num_rows
    except (duckdb.Error, *READ_ERRORS) as error:
      # DuckDB refuses ends of lines of two kinds, which are legal.
      if fault := _fault(self.where, self.dialect, error):
        raise DataError(fault) from error
      try:
        for batch in source.skipped(self._stream(picked, is_strict=False), row):
          yield _named(batch, schema)
      except (duckdb.Error, *READ_ERRORS) as again:
        raise DataError(
          f"{self.where} cannot be read: lines end in several ways (\\r\\n, \\n, \\r);"
          " make them alike (dos2unix)"
        ) from again

  def _stream(self, picked: str, *, is_strict: bool) -> Iterator[pa.RecordBatch]:
    query = f"SELECT {picked} FROM {_reader(self.where, self.dialect, is_strict)}"
    for batch in duck.stream(duck.connect(), query):
      yield from source.cut(batch)


def _named(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
  if not schema.names:
    return source.rows_only(batch.num_rows)
  return pa.RecordBatch.from_arrays(batch.columns, schema=schema)


def _reader(where: str, of: Dialect, is_strict: bool) -> str:
  """The call in SQL that reads the file."""
  # Columns go by number: names of SQL do not distinguish "a" from "A".
  columns = ", ".join(f"'c{place}': 'VARCHAR'" for place in range(len(of.names)))
  return (
    f"read_csv({duck.text(glob_free(where))}, auto_detect=false, columns={{{columns}}},"
    f" delim={duck.text(of.separator)}, quote='\"', escape='\"', header={of.header},"
    f" skip={of.skip}, nullstr='', allow_quoted_nulls=true, strict_mode={is_strict},"
    f" max_line_size={LONGEST_ROW})"
  )


def glob_free(where: str) -> str:
  """A path in which DuckDB sees no pattern."""
  return re.sub(r"([\[*?])", r"[\1]", where)


def _fault(where: str, of: Dialect, error: Exception) -> str:
  """What is wrong with the first bad row, and where; "" if every row is legal."""
  width = len(of.names)
  try:
    for row, cells, line in dialect.rows_of(where, of):
      if len(cells) != width:
        shown = shorten(of.separator.join(cells))
        return (
          f"{where}, row {row} (line {line}): {len(cells)} cells, expected {width}:"
          f" {shown}; quote a cell that holds a {of.separator!r}, and write empty cells"
          " too"
        )
      if wrong := next((c for c in cells if dialect.is_damaged(c)), None):
        return (
          f"{where}, row {row} (line {line}), column {of.names[cells.index(wrong)]!r}:"
          f" {shorten(wrong.encode(errors='surrogateescape'))} is not UTF-8; convert"
          " the file: iconv -f WINDOWS-1252 -t UTF-8"
        )
  except csv.Error as fault:
    row, line, what = fault.args
    return (
      f"{where}, row {row} (line {line}): a quoted cell is not closed, or not at its"
      f' end ({what}); close it, and write a quote within it twice, as in "5"" disk"'
    )
  except READ_ERRORS as fault:
    return (
      f"{where} cannot be read ({reason(fault)}); it is truncated or damaged, write it"
      " again"
    )
  if "line size" in str(error).lower():
    return (
      f"{where}: a row is longer than {LONGEST_ROW:,} bytes; close its quotes, or give"
      " the table as Parquet"
    )
  if "state" in str(error) or "quote" in str(error):
    return ""
  return f"{where} cannot be read ({reason(error)}); write it again"
