"""Splits texts into sentences, and reads and writes files of sentence vectors.

Such a file is Parquet with a row per text: its `name`, and its `sentences`, a list of
float16 vectors of one size, in order.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deepsets_jax.data.tables import parquet
from deepsets_jax.data.tables.arrow_lists import from_arrow, vectors_to_arrow
from deepsets_jax.ragged import Ragged

FORMAT = "deepsets_jax sentence vectors 1"

# A list mark: it stands alone, at the start of a paragraph or after a colon.
_LIST = re.compile(r"(?:^|:\s+)([*•+o-])(?=\s)")
_END = re.compile(r"[.!?]+[\"'”)\]]*\s+")
_NEVER_LAST = frozenset(
  "e.g. i.e. eg. ie. ex. vs. cf. aka. a.k.a. approx. resp. dr. mr. mrs. ms. st.".split()
)
_SELDOM_LAST = frozenset("etc. al. inc. ltd. corp. co. incl. pp.".split())
_LETTERS = re.compile(r"(?:\w\.)+")


def split(paragraphs: Sequence[str]) -> list[str]:
  """Splits paragraphs into sentences, in order.

  A sentence ends with its paragraph, or with a full stop, exclamation mark or question
  mark (and closing quotes or brackets) before white space. The next letter may be lower
  case, because names of programs often are. Abbreviations that are never last ("e.g.")
  do not end a sentence; those that may be last ("etc.", "U.S.") do not end one before a
  lower-case letter. Each item of a list is one or more sentences, without its mark.
  List marks are "*" and "•" standing alone, and every mark ("-", "+", "o") that stands
  at the start of the paragraph or after a colon. Pieces without a letter are left out.
  """
  return [
    sentence
    for paragraph in paragraphs
    for item in _items(" ".join(paragraph.split()))
    for sentence in _sentences(item)
    if any(character.isalpha() for character in sentence)
  ]


def _items(paragraph: str) -> list[str]:
  """The text before each list of a paragraph, and the items of the list."""
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
  """Writes a file of sentence vectors atomically.

  Args:
    path: The Parquet file.
    names: The names of the texts, `[b]`.
    vectors: The vectors of their sentences, `[n, d]`; stored as float16.
    content: What the vectors were made from, for `content_of`; for example a digest.
  """
  elements = vectors_to_arrow(vectors.values, np.float16)
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
  """Returns the `content` that a file was written with; None without such a file."""
  try:
    metadata = pq.read_schema(path).metadata or {}
  except (OSError, pa.ArrowException):
    return None
  if metadata.get(b"format") != FORMAT.encode():
    return None
  return metadata.get(b"content", b"").decode()


def read_sentences(path: str | pathlib.Path) -> tuple[list[str], Ragged]:
  """Returns the names of the texts, `[b]`, and their sentences' vectors, `[n, d]`.

  Raises:
    DataError: The file is missing, damaged or of another format.
  """
  advice = "write it with python -m tools.encode_sentences"
  table = parquet.read_parquet(path, FORMAT, advice)
  return table["name"].to_pylist(), from_arrow(table["sentences"])
