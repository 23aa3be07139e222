"""Texts as sentences, and the file of the vectors of each text's sentences.

The file is Parquet: a text's `name`, and its `sentences`, a list of float16 vectors of
one size, in their order.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deepsets_jax.data.tables import parquet
from deepsets_jax.data.tables.arrow_lists import from_arrow
from deepsets_jax.ragged import Ragged

FORMAT = "deepsets_jax sentence vectors 1"

# A mark that begins a list: it stands at the start or after a colon, and alone.
_LIST = re.compile(r"(?:^|:\s+)([*•+o-])(?=\s)")
_END = re.compile(r"[.!?]+[\"'”)\]]*\s+")
_NEVER_LAST = frozenset(
  "e.g. i.e. eg. ie. ex. vs. cf. aka. a.k.a. approx. resp. dr. mr. mrs. ms. st.".split()
)
_SELDOM_LAST = frozenset("etc. al. inc. ltd. corp. co. incl. pp.".split())
_LETTERS = re.compile(r"(?:\w\.)+")


def split(paragraphs: Sequence[str]) -> list[str]:
  """The sentences of some paragraphs, in order.

  A paragraph ends a sentence. So does a full stop, exclamation or question mark with
  white space after it, closing quotes and brackets included; whatever the next letter,
  for a program's name is often small. It does not after an abbreviation ("e.g."), nor
  after one that may well be last ("etc.", "U.S.") before a small letter. Each item of a
  list is a sentence or several, without its mark: "*" or "•" standing alone, or what
  else marks the start of a paragraph or stands after a colon ("-", "+", "o"). A piece
  without a letter is left out.
  """
  return [
    sentence
    for paragraph in paragraphs
    for item in _items(" ".join(paragraph.split()))
    for sentence in _sentences(item)
    if any(character.isalpha() for character in sentence)
  ]


def _items(paragraph: str) -> list[str]:
  """The items of the lists in a paragraph, with what stands before each list."""
  marks = {"*", "•", *_LIST.findall(paragraph)}
  either = "|".join(re.escape(mark) for mark in sorted(marks))
  return re.split(rf"(?:^|(?<=\s))(?:{either})(?=\s)", paragraph)


def _sentences(item: str) -> list[str]:
  begin, found = 0, []
  for match in _END.finditer(item):
    word = item[begin : match.end()].split()[-1].lstrip("([\"'“").lower()
    small = item[match.end() :][:1].islower()
    seldom = word in _SELDOM_LAST or _LETTERS.fullmatch(word)
    if word in _NEVER_LAST or (small and seldom):
      continue
    found.append(item[begin : match.end()].strip())
    begin = match.end()
  return [*found, item[begin:].strip()]


def write_sentences(
  path: str | pathlib.Path, names: Sequence[str], vectors: Ragged, content: str
) -> None:
  """Writes the file, or nothing at all.

  Args:
    path: Parquet file.
    names: Of the texts, `[b]`.
    vectors: Of their sentences, `[n, d]`; kept as float16.
    content: What the vectors were made of, for `content_of`: a digest, say.
  """
  values = np.asarray(vectors.values, np.float16)
  elements = pa.FixedSizeListArray.from_arrays(values.reshape(-1), values.shape[1])
  offsets = pa.array(vectors.offsets, pa.int32())
  table = pa.table(
    {
      "name": pa.array(list(names), pa.string()),
      "sentences": pa.ListArray.from_arrays(offsets, elements),
    },
    metadata={"format": FORMAT, "content": content},
  )
  parquet.write_parquet(table, path, use_dictionary=["name"])


def content_of(path: str | pathlib.Path) -> str | None:
  """What the vectors in a file were made of; None if there is no such file."""
  try:
    metadata = pq.read_schema(path).metadata or {}
  except (OSError, pa.ArrowException):
    return None
  if metadata.get(b"format") != FORMAT.encode():
    return None
  return metadata.get(b"content", b"").decode()


def read_sentences(path: str | pathlib.Path) -> tuple[list[str], Ragged]:
  """The names of the texts, `[b]`, and the vectors of their sentences, `[n, d]`.

  Raises:
    DataError: The file is missing, damaged or of another format.
  """
  advice = "write it with python -m tools.encode_sentences"
  table = parquet.read_parquet(path, FORMAT, advice)
  return table["name"].to_pylist(), from_arrow(table["sentences"])
