"""CSV files as a `Source` of strings, read by DuckDB, and the dialect of a file."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import itertools
import re
from collections.abc import Iterator, Sequence

import pyarrow as pa

from deepsets_jax.data.ingest.files import duck, source, text_files
from deepsets_jax.data.ingest.files.plain import check_names
from deepsets_jax.data.ingest.files.source import READ_ERRORS, reason, shorten
from deepsets_jax.data.ingest.files.text_files import is_damaged
from deepsets_jax.foundation.errors import DataError

# Bytes of the longest row. DuckDB reads in blocks of 16 times as much.
LONGEST_ROW = 1 << 22
SEPARATORS = (",", ";", "\t", "|")
csv.field_size_limit(1 << 30)  # The limit of Python is 128 KB.
# Rows from which the dialect is found.
_ROWS = 200
_NUMBER = re.compile(r"\s*[-+$€£]?\d+(?:[.,]\d+)*%?\s*")


@dataclasses.dataclass(frozen=True)
class Dialect:
  """How a CSV file is written.

  Attributes:
    separator: Character between the cells of a row.
    header: Whether the first row holds the names of the columns.
    skip: Number of lines before the header that are not part of the table.
    names: Names of the columns.
    note: What a person should know about it; "" for nothing.
  """

  separator: str
  header: bool
  skip: int
  names: tuple[str, ...]
  note: str = ""


class CsvSource(source.Source):
  """A file of comma-separated values, or of values with another separator.

  Quotes are as in RFC 4180: a cell is quoted as a whole or not at all, and a quote in a
  quoted cell is written twice. A blank line is a row only if there is a single column.
  Every column has strings; an empty cell is null.
  """

  def __init__(
    self, where: str, separator: str | None = None, header: bool | None = None
  ):
    """Read the first lines.

    Args:
      where: Path.
      separator: See `detect_dialect`.
      header: See `detect_dialect`.

    Raises:
      DataError: The file has no header, or cannot be read.
    """
    self.where = where
    self._dialect = detect_dialect(where, separator, header)
    self.schema = pa.schema([(name, pa.string()) for name in self._dialect.names])
    self.notes = [self._dialect.note] if self._dialect.note else []

  def _line(self, row: int) -> int | None:
    with contextlib.suppress(csv.Error):
      return next((line for n, _, line in self._rows() if n == row), None)

  def _stream(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    row = 0
    try:
      for batch in self._query(names, is_strict=True):
        yield batch
        row += batch.num_rows
      return
    except READ_ERRORS as error:
      # DuckDB refuses a file with two kinds of line ends, which is legal.
      if fault := self._fault(error):
        raise DataError(f"{self.where}{fault}") from error
    try:
      yield from source.skipped(self._query(names, is_strict=False), row)
    except READ_ERRORS as error:
      raise DataError(
        f"{self.where} cannot be read: lines end in several ways (\\r\\n, \\n, \\r);"
        " make them alike (dos2unix)"
      ) from error

  def _query(
    self, names: Sequence[str], *, is_strict: bool
  ) -> Iterator[pa.RecordBatch]:
    of, schema = self._dialect, pa.schema([self.schema.field(name) for name in names])
    # Columns go by number: names of SQL do not distinguish "a" from "A".
    columns = ", ".join(f"'c{place}': 'VARCHAR'" for place in range(len(of.names)))
    picked = ", ".join(f"c{of.names.index(name)}" for name in names) or "1"
    query = (
      f"SELECT {picked} FROM read_csv({duck.path(self.where)}, auto_detect=false,"
      f" columns={{{columns}}}, delim={duck.text(of.separator)}, quote='\"',"
      f" escape='\"', header={of.header}, skip={of.skip}, nullstr='',"
      f" allow_quoted_nulls=true, strict_mode={is_strict}, max_line_size={LONGEST_ROW})"
    )
    for batch in duck.stream(query):
      for piece in source.split(batch):
        yield source.make_batch(piece.columns[: len(names)], schema, piece.num_rows)

  def _rows(self) -> Iterator[tuple[int, list[str], int]]:
    """Number, cells and first line, from 1 on, of each row. Slow.

    Raises:
      csv.Error: A quoted cell is not closed, or goes on after its closing quote; its
        arguments are row, line and fault.
    """
    of = self._dialect
    with text_files.open_text(self.where) as file:
      for _ in range(of.skip):
        file.readline()
      reader = csv.reader(file, delimiter=of.separator, strict=True)
      if of.header:
        next(reader, None)
      row, line = 0, of.skip + reader.line_num + 1
      try:
        for cells in reader:
          if cells or len(of.names) == 1:
            yield row, cells or [""], line
            row += 1
          line = of.skip + reader.line_num + 1
      except csv.Error as fault:
        raise csv.Error(row, line, str(fault)) from fault

  def _fault(self, error: Exception) -> str:
    """Place and fault of the first bad row; "" if every row is legal."""
    names = self._dialect.names
    try:
      for row, cells, line in self._rows():
        place = f", row {row} (line {line})"
        if len(cells) != len(names):
          mark = self._dialect.separator
          return (
            f"{place}: {len(cells)} cells, expected {len(names)}:"
            f" {shorten(mark.join(cells))}; quote a cell that holds a {mark!r}, and"
            " write empty cells too"
          )
        if wrong := next(filter(is_damaged, cells), None):
          return (
            f"{place}, column {names[cells.index(wrong)]!r}:"
            f" {shorten(wrong.encode(errors='surrogateescape'))} is not UTF-8; convert"
            " the file: iconv -f WINDOWS-1252 -t UTF-8"
          )
    except csv.Error as fault:
      row, line, what = fault.args
      return (
        f", row {row} (line {line}): a quoted cell is not closed, or not at its end"
        f' ({what}); close it, and write a quote within it twice, as in "5"" disk"'
      )
    except READ_ERRORS as fault:
      return f" cannot be read ({reason(fault)}); {source.DAMAGED}"
    if "line size" in str(error).lower():
      return (
        f": a row is longer than {LONGEST_ROW:,} bytes; close its quotes, or give the"
        " table as Parquet"
      )
    if "state" in str(error) or "quote" in str(error):
      return ""
    return f" cannot be read ({reason(error)}); write it again"


def detect_dialect(
  where: str, separator: str | None = None, header: bool | None = None
) -> Dialect:
  """The dialect of a CSV file, from its first megabyte.

  Args:
    where: Path; a name that ends in .gz or .zst is of a compressed file.
    separator: Character between cells; None to find it.
    header: Whether there is a header; None for yes, with a note if it looks like data.

  Raises:
    DataError: The file is empty, not UTF-8 by its first bytes, or two columns have one
      name.
  """
  text = text_files.beginning(where)
  first, _, below = text.partition("\n")
  first, skip = first.rstrip("\r"), 0
  if first.lower().startswith("sep=") and len(first) == 5:
    # Excel reads the separator from such a line.
    text, separator, skip = below, separator or first[4], 1
  table = text.lstrip("\r\n")
  skip += text[: len(text) - len(table)].replace("\r\n", "\n").count("\n")
  usual = "\t" if ".tsv" in where.lower() else ","
  separator = separator or _separator(table, usual)
  rows = _rows(table, separator)
  if not rows:
    raise DataError(
      f"{where} has no header, or a quoted cell of it is not closed at its end; give a"
      " file with a header and rows"
    )
  if header is False:
    names = tuple(f"column_{place}" for place in range(len(rows[0])))
    return Dialect(separator, False, skip, names)
  names = [name.strip() or f"Unnamed: {place}" for place, name in enumerate(rows[0])]
  for place, name in enumerate(names):
    if is_damaged(name):
      raise DataError(
        f"{where}, column {place}: the name"
        f" {shorten(name.encode(errors='surrogateescape'))} is not UTF-8; convert the"
        " file: iconv -f WINDOWS-1252 -t UTF-8"
      )
  suspicion = _suspicion(rows) if header is None else ""
  check_names(where, names, f". {suspicion}" if suspicion else "")
  shown = "a tab" if separator == "\t" else repr(separator)
  notes = [f"cells are separated by {shown}"] if separator != usual else []
  notes += [f"the first line, {first!r}, is not read"] if skip and first else []
  notes += [suspicion] if suspicion else []
  return Dialect(separator, True, skip, tuple(names), "; ".join(notes))


def _rows(text: str, separator: str) -> list[list[str]]:
  """The first rows, without the last one if the text was cut within it."""
  rows: list[list[str]] = []
  lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
  # For an error, the reader of the whole file says what is wrong, and where.
  with contextlib.suppress(csv.Error):
    rows.extend(filter(None, itertools.islice(lines, _ROWS + 1)))
  is_cut = len(text) >= text_files.BEGINNING and 1 < len(rows) <= _ROWS
  return rows[:-1] if is_cut else rows


def _separator(text: str, usual: str) -> str:
  """The separator with which most of the first rows have the length of the header."""
  scores = {}
  for mark in dict.fromkeys([usual, *SEPARATORS]):
    rows = _rows(text, mark)
    if rows and (width := len(rows[0])) > 1:
      scores[mark] = sum(len(row) == width for row in rows) / len(rows)
  # Some broken rows must not make another separator of the usual one.
  if not scores or scores.get(usual, 0) >= 0.5:
    return usual
  return max(scores, key=lambda mark: scores[mark])


def _suspicion(rows: Sequence[Sequence[str]]) -> str:
  """A sentence if the header looks like a row of data, else ""."""
  header = rows[0]
  for place, name in enumerate(header):
    column = [row[place].strip() for row in rows[1:] if place < len(row)]
    if not column or not name.strip():
      continue
    # A name that is a value of its own column, or a number above numbers.
    if name.strip() in column or all(map(_NUMBER.fullmatch, [name, *column])):
      return (
        f"the first row, {shorten(list(header))}, looks like data: if the file has no"
        " header, say --header=none"
      )
  return ""
