"""The text of CSV and JSON files, unpacked."""

from __future__ import annotations

import codecs
import io
import re
from typing import TextIO

import pyarrow as pa

from deepsets_jax.data.ingest.files.source import located_errors
from deepsets_jax.foundation.errors import DataError

# Characters of the beginning of a file from which its layout is found.
BEGINNING = 1 << 20
_OTHER_ENCODINGS = {
  "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
  "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}


def open_text(where: str) -> TextIO:
  """Open a file as text, unpacked; bytes that are not UTF-8 become surrogates."""
  with located_errors(where, "check that the file is there and may be read"):
    data = pa.input_stream(where)
  return io.TextIOWrapper(data, "utf-8-sig", errors="surrogateescape", newline="")


def beginning(where: str) -> str:
  """The first megabyte of a text file, unpacked.

  Raises:
    DataError: It cannot be read, or its first bytes are not UTF-8.
  """
  with located_errors(where), pa.input_stream(where) as file:
    data = file.read(BEGINNING)
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


def is_damaged(text: str) -> bool:
  """Whether some bytes of a text that `open_text` read are not UTF-8."""
  return not text.isascii() and re.search("[\ud800-\udfff]", text) is not None
