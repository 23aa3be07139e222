"""The dialect of a CSV file: its separator, its header, and the lines before it."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import itertools
import re
from collections.abc import Sequence

from deepsets_jax.data.ingest.files.plain import check_names
from deepsets_jax.data.ingest.files.source import shorten
from deepsets_jax.data.ingest.files.text_files import (
  BEGINNING,
  beginning,
  is_damaged,
)
from deepsets_jax.foundation.errors import DataError

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


def detect(
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
  text = beginning(where)
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
  is_cut = len(text) >= BEGINNING and 1 < len(rows) <= _ROWS
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
