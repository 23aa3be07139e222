"""How a CSV file is laid out: its separator, its header, and the lines before it."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TextIO

import pyarrow as pa

from deepsets_jax.data.ingest.files.source import READ_ERRORS, reason, shorten
from deepsets_jax.foundation.errors import DataError

SEPARATORS = (",", ";", "\t", "|")
csv.field_size_limit(1 << 30)  # Python's own is 128 KB.
_LOOKED_AT = 1 << 20
_ROWS = 200
_NUMBER = re.compile(r"\s*[-+$€£]?\d+(?:[.,]\d+)*%?\s*")
_OTHER_ENCODINGS = {
  "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
  "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}


@dataclasses.dataclass(frozen=True)
class Dialect:
  """How a CSV file is laid out.

  Attributes:
    separator: Between the cells of a row.
    header: Whether the first row holds the names of the columns.
    skip: Lines before the header that are not part of the table.
    names: Names of the columns.
    note: What a person should know about it; "" for nothing.
  """

  separator: str
  header: bool
  skip: int
  names: tuple[str, ...]
  note: str = ""


def detect(
  where: str, separator: str | None = None, header: bool | None = None
) -> Dialect:
  """The layout of a CSV file, from its first megabyte.

  Args:
    where: Path; a name that ends in .gz or .zst is of a compressed file.
    separator: Between cells; None to find it.
    header: Whether there is a header; None for yes, with a note if it looks like data.

  Raises:
    DataError: The file is empty, not UTF-8 by its first bytes, or two columns have one
      name.
  """
  text = beginning(where)
  first = text.partition("\n")[0].rstrip("\r")
  skip = 0
  if first.lower().startswith("sep=") and len(first) == 5:
    # Excel reads the separator from such a line.
    separator, skip = separator or first[4], 1
    text = text.partition("\n")[2]
  stripped = text.lstrip("\r\n")
  skip += text[: len(text) - len(stripped)].replace("\r\n", "\n").count("\n")
  usual = "\t" if ".tsv" in where.lower() else ","
  separator = separator or _separator(stripped, usual)
  rows = _rows(stripped, separator)
  if not rows:
    raise DataError(
      f"{where} has no header, or a quoted cell of it is not closed at its end; give a"
      " file with a header and rows"
    )
  if header is False:
    names = [f"column_{place}" for place in range(len(rows[0]))]
    return Dialect(separator, False, skip, tuple(names))
  names = [name.strip() or f"Unnamed: {place}" for place, name in enumerate(rows[0])]
  suspicion = _suspicion(rows) if header is None else ""
  _check_names(where, names, suspicion)
  shown = "a tab" if separator == "\t" else repr(separator)
  notes = [f"cells are separated by {shown}"] if separator != usual else []
  notes += [f"the first line, {first!r}, is not read"] if skip and first else []
  notes += [suspicion] if suspicion else []
  return Dialect(separator, True, skip, tuple(names), "; ".join(notes))


def _check_names(where: str, names: Sequence[str], suspicion: str) -> None:
  for place, name in enumerate(names):
    if is_damaged(name):
      raise DataError(
        f"{where}, column {place}: the name"
        f" {shorten(name.encode(errors='surrogateescape'))} is not UTF-8; convert the"
        " file: iconv -f WINDOWS-1252 -t UTF-8"
      )
    if name in names[:place]:
      raise DataError(
        f"{where}: columns {names.index(name)} and {place} are both {name!r}; rename"
        " one" + (f". {suspicion}" if suspicion else "")
      )


def rows_of(where: str, of: Dialect) -> Iterator[tuple[int, list[str], int]]:
  """Number, cells and first line, from 1 on, of each row of a file. Slow.

  Raises:
    csv.Error: A quoted cell is not closed, or not at its end; with row, line and fault.
  """
  with open_text(where) as file:
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


def line_of(where: str, of: Dialect, row: int) -> int:
  """The line, from 1 on, on which a row begins. Reads the file up to it."""
  try:
    return next((line for n, _, line in rows_of(where, of) if n == row), 0)
  except csv.Error:
    return 0


def is_damaged(cell: str) -> bool:
  """Whether some bytes of a cell are not UTF-8."""
  return not cell.isascii() and re.search("[\ud800-\udfff]", cell) is not None


def open_text(where: str) -> TextIO:
  """The file as text, unpacked; what is not UTF-8 becomes surrogates."""
  try:
    data = pa.input_stream(where)
  except READ_ERRORS as error:
    raise DataError(f"{where} cannot be opened ({reason(error)})") from error
  return io.TextIOWrapper(data, "utf-8-sig", errors="surrogateescape", newline="")


def beginning(where: str) -> str:
  """The first megabyte of a text file, unpacked.

  Raises:
    DataError: It cannot be read, or is not UTF-8 by its first bytes.
  """
  try:
    with pa.input_stream(where) as file:
      data = file.read(_LOOKED_AT)
  except READ_ERRORS as error:
    raise DataError(
      f"{where} cannot be read ({reason(error)}); it is truncated or damaged, write it"
      " again"
    ) from error
  for encoding, marks in _OTHER_ENCODINGS.items():
    if data.startswith(marks):
      raise DataError(
        f"{where} is {encoding}, expected UTF-8; convert it: iconv -f {encoding} -t"
        " UTF-8"
      )
  if b"\0" in data:
    raise DataError(
      f"{where} has a NUL byte, which text in UTF-8 never has; convert it from UTF-16"
      " (iconv -f UTF-16 -t UTF-8), or write it again if it is damaged"
    )
  return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def _rows(text: str, separator: str) -> list[list[str]]:
  """The first rows, without the last of a text that was cut."""
  rows = []
  try:
    lines = io.StringIO(text, newline="")
    for row in itertools.islice(
      csv.reader(lines, delimiter=separator, strict=True), _ROWS + 1
    ):
      if row:
        rows.append(row)
  except csv.Error:
    pass  # The reader of the whole file says what is wrong, and where.
  is_cut = len(text) >= _LOOKED_AT and 1 < len(rows) <= _ROWS
  return rows[:-1] if is_cut else rows


def _separator(text: str, usual: str) -> str:
  """The separator that makes the first rows equally long."""
  scores = {}
  for mark in dict.fromkeys([usual, *SEPARATORS]):
    rows = _rows(text, mark)
    width = len(rows[0]) if rows else 0
    if width > 1:
      scores[mark] = sum(len(row) == width for row in rows) / len(rows)
  if not scores:
    return usual
  # A broken row must not make another separator of the usual one.
  if scores.get(usual, 0) >= 0.5:
    return usual
  return max(scores, key=lambda mark: scores[mark])


def _suspicion(rows: Sequence[Sequence[str]]) -> str:
  """A sentence if the header looks like a row of data."""
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


def lines_of(where: str) -> Iterator[str]:
  """The lines of a text file."""
  with open_text(where) as file:
    yield from file
