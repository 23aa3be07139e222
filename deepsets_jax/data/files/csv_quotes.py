"""Whether quotes and characters of a CSV file are right, and where its rows stand.

A parser takes a quote that is never closed for a cell up to the end of the file, or up
to the next quote, without a word; and it cannot tell of a row that is not UTF-8. So
they are looked at on the way to it.
"""

from __future__ import annotations

import codecs
import collections
import csv
import functools
import itertools
import re
from collections.abc import Iterator

from deepsets_jax.data.files import text_files
from deepsets_jax.data.files.source import shorten
from deepsets_jax.data.files.text_files import Text
from deepsets_jax.data.table import DataError

_SURROGATE = re.compile("[\udc80-\udcff]")
_ADVICE = "quote a cell as a whole, and write a quote within it twice"


def separator(where: str) -> str:
  """What stands between cells, by the file's name."""
  return "\t" if where.lower().removesuffix(".gz").endswith(".tsv") else ","


@functools.cache
def _cells(between: str) -> re.Pattern[bytes]:
  """Matches a quoted cell; or, as `rest`, all from a quote that opens one on.

  The separator or line end before it is not matched, the one after it neither. A
  closing quote at the end of the bytes may be the first of two, and closes nothing.
  """
  ends = f"{between}\r\n".encode()
  return re.compile(
    rb'(?<=[%b])"(?:[^"]*+(?:""[^"]*+)*+"(?=[%b])|(?P<rest>.*))' % (ends, ends),
    re.DOTALL,
  )


def _open_cell(data: bytes, between: str) -> int | None:
  """Where the first quoted cell that is not closed begins; None if each is.

  Args:
    data: Begins with a separator or the end of a line.
    between: The separator.
  """
  last = collections.deque(_cells(between).finditer(data), maxlen=1)
  return last[0].start() if last and last[0]["rest"] is not None else None


_CLOSED = re.compile(rb'"[^"]*+(?:""[^"]*+)*+"')


def _whole_rows(data: bytes, between: str) -> int:
  """How many bytes at the beginning of a row are rows with their ends."""
  # A carriage return at the end may be the first half of an end of a line.
  stop = len(data) - data.endswith(b"\r")
  # From the back: the last end of a line that is not within a quoted cell.
  cells = _cells(between).finditer(b"\n" + data) if b'"' in data else ()
  for cell in reversed([found.span() for found in cells]):
    if end := _line_end(data, cell[1] - 1, stop):
      return end
    stop = cell[0] - 1
  return _line_end(data, 0, stop)


def _line_end(data: bytes, start: int, stop: int) -> int:
  """The place behind the last end of a line between two places; 0 if there is none."""
  return max(data.rfind(mark, start, stop) for mark in (b"\n", b"\r")) + 1


class QuotedText(Text):
  """The bytes of a CSV file, whose quotes are looked at as they are read.

  Attributes:
    size: Bytes read so far.
    blank_is_row: Whether a blank line is a row, for messages.
  """

  def __init__(self, where: str, *, blank_is_row: bool = False):
    super().__init__(where)
    self.size = 0
    self._decoder = codecs.getincrementaldecoder("utf-8")()
    self.blank_is_row = blank_is_row
    self._between = separator(where)
    # The bytes from an open cell on, with the one before it; or the last byte.
    self._begun = b"\n"

  def row_blocks(self, size: int) -> Iterator[bytes]:
    """The bytes in blocks of whole rows, of about `size` bytes, header first.

    Raises:
      DataError: A quoted cell is not closed, or not at its end; a byte is no character.
    """
    begun, is_first = b"", True
    while data := self.read(size):
      begun += data
      if is_first and not (begun := begun.lstrip(b"\r\n")):
        continue
      is_first = False
      if end := _whole_rows(begun, self._between):
        yield begun[:end]
        begun = begun[end:]
      elif len(begun) > text_files.LONGEST_ROW:
        row, line = self._row_at(self.size - len(begun))
        raise DataError(
          f"{self.where}, {row} (line {line}) does not end within"
          f" {text_files.LONGEST_ROW} bytes; close its quotes"
        )
    self.check_end()
    if begun:
      yield begun

  def read(self, size: int) -> bytes:
    data = super().read(size)
    self._check_characters(data)
    self.size += len(data)
    if b'"' in data or len(self._begun) > 1:
      self._look(self._begun + data)
    elif data:
      self._begun = data[-1:]
    return data

  def check_end(self) -> None:
    """Raises `DataError` if the last quoted cell is not closed."""
    if len(self._begun) > 1 and not _CLOSED.fullmatch(self._begun[1:]):
      raise self._error("is not closed", len(self._begun) - 1)

  def _check_characters(self, data: bytes) -> None:
    pending = len(self._decoder.getstate()[0])
    try:
      self._decoder.decode(data, final=not data)
    except UnicodeDecodeError as error:
      offset = self.size - pending + error.start
      raise self._no_character(offset) from error

  def _no_character(self, offset: int) -> DataError:
    """The error of a byte that is no part of a character."""
    records = _records(self.where, self.blank_is_row)
    numbered = (
      (row, line, self._split(record), end)
      for row, (line, record, end) in enumerate(records, start=-1)
    )
    first = next(numbered)
    row, line, cells, _ = next(
      found for found in itertools.chain([first], numbered) if found[3] > offset
    )
    header = first[2]
    wrong = next(i for i, cell in enumerate(cells) if _SURROGATE.search(cell))
    value = cells[wrong].encode(errors="surrogateescape")
    place, column = f"line {line}", ""
    if row >= 0:
      place = f"row {row} (line {line})"
      column = f", column {header[wrong]!r}" if wrong < len(header) else ""
    return DataError(
      f"{self.where}, {place}{column}: {shorten(value)} is not UTF-8; convert the file"
    )

  def _split(self, record: bytes) -> list[str]:
    """The cells of a row; bytes that are no characters are surrogates."""
    text = record.decode(errors="surrogateescape")
    return next(csv.reader([text], delimiter=self._between), [])

  def _look(self, data: bytes) -> None:
    opened = _open_cell(data, self._between)
    if opened is None:
      self._begun = data[-1:]
      return
    self._begun = data[opened - 1 :]
    closed = _CLOSED.match(self._begun, 1)
    if closed and closed.end() < len(self._begun):
      text = self._begun[1 : closed.end() + 20]
      after = (
        f"is closed before its end, as in {shorten(text.decode(errors='replace'))}"
      )
      raise self._error(after, len(self._begun) - 1)

  def _error(self, problem: str, back: int) -> DataError:
    """The error of the cell that opens `back` bytes before the end of what is read."""
    place, line = self._row_at(self.size - back)
    return DataError(
      f"{self.where}, {place} (line {line}): a quoted cell {problem}; {_ADVICE}"
    )

  def _row_at(self, offset: int) -> tuple[str, int]:
    """What to call the row that has the byte of a place, and its line. Slow."""
    rows = enumerate(_records(self.where, self.blank_is_row), start=-1)
    reached = ((row, line) for row, (line, _, end) in rows if end > offset)
    row, line = next(reached, (-1, 1))
    return ("the header" if row < 0 else f"row {row}"), line


def line_of(where: str, row: int, *, blank_is_row: bool) -> int:
  """The line, from 1 on, on which a row begins. Slow."""
  records = _records(where, blank_is_row)
  # The header is the first.
  return next(itertools.islice(records, row + 1, None), (0,))[0]


def _records(where: str, blank_is_row: bool) -> Iterator[tuple[int, bytes, int]]:
  """The line on which each row begins, its bytes, and the bytes up to its end."""
  between = separator(where)
  record, first, offset, seen = b"", 1, 0, False
  for line, text in enumerate(_lines(where), start=1):
    record += text
    offset += len(text)
    if _is_open(record, between):
      if len(record) > text_files.LONGEST_ROW:
        break
      continue
    if record.strip(b"\r\n") or (blank_is_row and seen):
      seen = True
      yield first, record, offset
    record, first = b"", line + 1
  if record:
    yield first, record, offset


def _is_open(record: bytes, between: str) -> bool:
  opened = _open_cell(b"\n" + record, between)
  return opened is not None and not _CLOSED.match(record, opened - 1)


def _lines(where: str) -> Iterator[bytes]:
  text = Text(where)
  begun = b""
  try:
    while data := text.read(1 << 20):
      *whole, begun = (begun + data).split(b"\n")
      yield from (line + b"\n" for line in whole)
  finally:
    text.close()
  if begun:
    yield begun
