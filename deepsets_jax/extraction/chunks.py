"""A chunk of rows of the input, with the digests of their pictures and texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from deepsets_jax.data.ingest.pictures import PictureError
from deepsets_jax.extraction import inputs
from deepsets_jax.extraction.cache import content_digest
from deepsets_jax.extraction.inputs import Input

# Bytes of pictures and texts in a chunk, about.
_BYTES = 1 << 25
# The replacement for a character that could not be decoded.
_LOST = "\ufffd"


@dataclasses.dataclass(frozen=True)
class Problem:
  """An input that could not be used, and the reason.

  Attributes:
    row: Row of the input, from 0.
    column: Column of the input.
    value: Path, or the number of bytes.
    extractor: Name of the extractor; None if it concerns all.
    reason: The reason in words.
  """

  row: int
  column: str
  value: str
  extractor: str | None
  reason: str


@dataclasses.dataclass
class Chunk:
  """Rows of the input.

  Attributes:
    row: Number of the first row.
    batch: The columns that are kept.
    inputs: Pictures and texts by digest; cleared when they are sent to workers.
    digests: Digests of each row by column; None for an absent input.
    values: Names of each row's pictures, for messages about problems, by column.
    problems: Problems found so far.
  """

  row: int
  batch: pa.RecordBatch
  inputs: dict[bytes, bytes | str]
  digests: Mapping[str, list[list[bytes] | None]]
  values: Mapping[str, list[str]]
  problems: list[Problem]

  def __len__(self) -> int:
    return self.batch.num_rows


def read_chunks(
  given: Input, size: int, start: int = 0, stop: int | None = None
) -> Iterator[Chunk]:
  """Read the rows in order, in chunks of `size`, or fewer if their inputs are large.

  Args:
    given: The input.
    size: Most rows of a chunk.
    start: First row.
    stop: Row to stop before; None for all.

  Raises:
    DataError: The source cannot be read.
  """
  row = start
  for batch in given.source.batches(start=start):
    whole = batch if stop is None else batch.slice(0, max(stop - row, 0))
    while whole.num_rows:
      chunk = _chunk(given, whole.slice(0, size), row)
      yield chunk
      whole, row = whole.slice(len(chunk)), row + len(chunk)
    if row == stop:
      return


def _chunk(given: Input, batch: pa.RecordBatch, row: int) -> Chunk:
  """The first rows of a batch as a chunk: up to `_BYTES` of inputs, at least a row."""
  kinds = dict.fromkeys(given.images, "image") | dict.fromkeys(given.texts, "text")
  cells = {column: batch[column].to_pylist() for column in kinds}
  chunk = Chunk(
    row=row,
    batch=batch.select(given.kept),
    inputs={},
    digests={column: [] for column in kinds},
    values={column: [] for column in given.images},
    problems=[],
  )
  size = 0
  for index in range(batch.num_rows):
    for column, kind in kinds.items():
      found = _contents(kind, cells[column][index], given.root, chunk, column)
      named = None
      if found is not None:
        named = [content_digest(content) for content in found]
        chunk.inputs.update(zip(named, found, strict=True))
        size += sum(map(len, found))
      chunk.digests[column].append(named)
    if size > _BYTES:
      chunk.batch = chunk.batch.slice(0, index + 1)
      break
  return chunk


def _contents(
  kind: str, cell: object, root: str, chunk: Chunk, column: str
) -> Sequence[bytes | str] | None:
  """The inputs in the next cell of a column; adds a problem if there is one."""
  row = chunk.row + len(chunk.digests[column])
  value = f"{len(cell)} bytes" if isinstance(cell, bytes) else str(cell)
  if kind == "image":
    chunk.values[column].append(value)
  try:
    found = inputs.contents_of(kind, cell, root)
  except PictureError as error:
    chunk.problems.append(Problem(row, column, value, None, str(error)))
    return None
  if kind == "text" and any(_LOST in text for text in found or ()):
    reason = (
      f"characters that are not UTF-8 were replaced ({_LOST}); the rest is used. Save"
      " the text as UTF-8."
    )
    chunk.problems.append(Problem(row, column, value[:60], None, reason))
  return found
