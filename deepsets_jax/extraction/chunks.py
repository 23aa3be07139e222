"""A few rows of the input, by the digests of what is in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from deepsets_jax.data.ingest.pictures import PictureError
from deepsets_jax.extraction import cache, inputs
from deepsets_jax.extraction.inputs import Input

# Bytes of pictures and texts that are read for one chunk, about.
_BYTES = 1 << 25
# What stands for a character that could not be decoded.
_LOST = "\ufffd"


@dataclasses.dataclass(frozen=True)
class Problem:
  """What could not be read, and why.

  Attributes:
    row: Of the input, from 0.
    column: Of the input.
    value: Path, or the number of bytes.
    extractor: None where it concerns all of them.
    reason: In words.
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
    row: The first.
    batch: The columns that are kept.
    inputs: By digest; emptied once they are on their way.
    digests: By column, of each row: None where there is nothing to look at.
    values: By column of pictures, of each row: what to call it in a problem.
    problems: Found in reading.
  """

  row: int
  batch: pa.RecordBatch
  inputs: dict[bytes, bytes | str]
  digests: Mapping[str, list[list[bytes] | None]]
  values: Mapping[str, list[str]]
  problems: list[Problem]

  def __len__(self) -> int:
    return self.batch.num_rows


def read(
  given: Input, size: int, start: int = 0, stop: int | None = None
) -> Iterator[Chunk]:
  """The rows in order, in chunks of `size`, fewer where their inputs are large.

  Args:
    given: Where they come from.
    size: Rows, at most.
    start: First row.
    stop: Row before which it ends; None for all.

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
  """As many of some rows as are read at once, at least one."""
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
        named = [cache.digest(content) for content in found]
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
  """What is in the next cell of a column; a problem is put down."""
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
      f"characters that are not UTF-8 ({_LOST}) are lost; the rest is looked at;"
      " save it in UTF-8"
    )
    chunk.problems.append(Problem(row, column, value[:60], None, reason))
  return found
