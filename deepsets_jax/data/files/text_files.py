"""Text files, plain or packed by gzip, read block by block."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

import pyarrow as pa

from deepsets_jax.data.files.source import READ_ERRORS, reason
from deepsets_jax.data.table import DataError

# Bytes that are parsed at once.
BLOCK = 1 << 22
# A row that is longer than this is none: a quote or a bracket is not closed.
LONGEST_ROW = 1 << 28

_OTHER_ENCODINGS = {
  "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
  "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}


class Text:
  """The bytes of a text file, unpacked.

  Attributes:
    where: Path.
  """

  def __init__(self, where: str):
    self.where = where
    self._is_first = True
    try:
      self._file = pa.input_stream(
        where, compression="gzip" if where.lower().endswith(".gz") else None
      )
    except READ_ERRORS as error:
      raise DataError(f"{where} cannot be opened ({reason(error)})") from error

  def read(self, size: int) -> bytes:
    """The next bytes, at most `size`; none at the end.

    Raises:
      DataError: They cannot be unpacked, or are no UTF-8 by the look of them.
    """
    try:
      data = self._file.read(size)
    except READ_ERRORS as error:
      raise DataError(
        f"{self.where} cannot be read ({reason(error)}); it is truncated or damaged,"
        " write it again"
      ) from error
    if self._is_first and data:
      self._is_first = False
      data = _without_mark(self.where, data)
    if b"\0" in data:
      raise DataError(
        f"{self.where} has a NUL byte, as text in UTF-8 has not; convert it from"
        " UTF-16 (iconv -f UTF-16 -t UTF-8), or write it again if it is damaged"
      )
    return data

  def close(self) -> None:
    self._file.close()


def _without_mark(where: str, data: bytes) -> bytes:
  """The first bytes of a file without the mark of UTF-8 that some begin with."""
  for encoding, marks in _OTHER_ENCODINGS.items():
    if data.startswith(marks):
      raise DataError(
        f"{where} is {encoding}, expected UTF-8; convert it: iconv -f {encoding} -t"
        " UTF-8"
      )
  return data.removeprefix(codecs.BOM_UTF8)


def line_blocks(where: str) -> Iterator[bytes]:
  """The file in blocks of whole lines, of about `BLOCK` bytes.

  Raises:
    DataError: It cannot be read, or a line of it is longer than `LONGEST_ROW`.
  """
  text = Text(where)
  lines, begun = 0, b""
  try:
    while data := text.read(BLOCK):
      whole, newline, rest = data.rpartition(b"\n")
      if newline:
        block = begun + whole + newline
        lines += block.count(b"\n")
        yield block
        begun = rest
      else:
        begun += data
      if len(begun) > LONGEST_ROW:
        raise DataError(
          f"{where}, line {lines + 1} is longer than {LONGEST_ROW} bytes; write one row"
          " a line"
        )
    if begun:
      yield begun
  finally:
    text.close()
