"""CSV files as a `Source` of strings, read by DuckDB."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa

from deepsets_jax.data.files import dialect, duck, source
from deepsets_jax.data.files.dialect import Dialect
from deepsets_jax.data.files.source import READ_ERRORS, reason, shorten
from deepsets_jax.data.table import DataError

# A row that is longer has a quote that is not closed.
LONGEST_ROW = 1 << 27


class CsvSource:
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
    self.num_rows = None
    self.notes = [self.dialect.note] if self.dialect.note else []

  def at(self, row: int) -> str:
    """Where a row is, for messages."""
    return (
      f"{self.where}, row {row} (line {dialect.line_of(self.where, self.dialect, row)})"
    )

  def batches(
    self, columns: Sequence[str] | None = None, *, start: int = 0
  ) -> Iterator[pa.RecordBatch]:
    """Batches as `Source` describes; rows before `start` are read and dropped."""
    names = source.select(self.where, self.schema, columns)
    return source.joined(source.skipped(self._read(names), start))

  def _read(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    places = [self.dialect.names.index(name) for name in names]
    picked = ", ".join(f"c{place}" for place in places) or "1"
    query = f"SELECT {picked} FROM {_reader(self.where, self.dialect)}"
    schema = pa.schema([self.schema.field(name) for name in names])
    try:
      for batch in duck.stream(duck.connect(), query):
        if names:
          yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
        else:
          yield source.rows_only(batch.num_rows)
    except (duckdb.Error, *READ_ERRORS) as error:
      raise _explained(self.where, self.dialect, error) from error


def _reader(where: str, of: Dialect) -> str:
  """The call in SQL that reads the file."""
  # Columns go by number: names of SQL do not distinguish "a" from "A".
  columns = ", ".join(f"'c{place}': 'VARCHAR'" for place in range(len(of.names)))
  return (
    f"read_csv({duck.text(glob_free(where))}, auto_detect=false, columns={{{columns}}},"
    f" delim={duck.text(of.separator)}, quote='\"', escape='\"', header={of.header},"
    f" skip={of.skip}, nullstr='', allow_quoted_nulls=true, strict_mode=true,"
    f" max_line_size={LONGEST_ROW})"
  )


def glob_free(where: str) -> str:
  """A path in which DuckDB sees no pattern."""
  return re.sub(r"([\[*?])", r"[\1]", where)


def _explained(where: str, of: Dialect, error: Exception) -> DataError:
  message = str(error)
  found = re.search(r"on Line: (\d+)\s*\nOriginal Line: (.*?)\n", message, re.DOTALL)
  line, cells = found.groups() if found else ("", "")
  place = f"{where}, line {line}" if line else where
  shown = shorten(cells.rstrip())
  if match := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message):
    wanted, given = match.groups()
    return DataError(
      f"{place}: {given} cells, expected {wanted}: {shown}; quote a cell that holds a"
      f" {of.separator!r}, and write empty cells too"
    )
  if "quote" in message and "Value with" in message:
    return DataError(
      f"{place}: a quoted cell is not closed, or not at its end: {shown}; write a quote"
      ' within a quoted cell twice, as in "5"" disk"'
    )
  if "unicode" in message or "utf" in message.lower():
    return DataError(
      f"{place}: {shown} is not UTF-8; convert the file: iconv -f WINDOWS-1252 -t UTF-8"
    )
  if "line size" in message.lower():
    return DataError(
      f"{place}: a row is longer than {LONGEST_ROW} bytes; close its quotes"
    )
  if "invalid state" in message:
    return DataError(
      f"{where}: some lines end with \\r\\n, others with \\n, or a quote is not closed;"
      " make the ends of lines the same (dos2unix does it)"
    )
  return DataError(
    f"{place} cannot be read ({reason(error)}); it is truncated or damaged, write it"
    " again"
  )
