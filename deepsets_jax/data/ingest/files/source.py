"""The interface of every table: a schema, and record batches of its rows in order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.foundation.errors import DataError

# Limits of a batch: wide rows make it shorter than `BATCH_ROWS`.
BATCH_ROWS = 8192
BATCH_BYTES = 1 << 26
# Characters of a value in a message.
_SHOWN = 60
DAMAGED = "it is truncated or damaged, write it again"

# What the libraries raise for a damaged file. Arrow's own errors are of the types of
# Python, or `ArrowException`s.
READ_ERRORS = (
  duckdb.Error,
  pa.ArrowException,
  OSError,
  EOFError,
  ValueError,
  TypeError,
  OverflowError,
  MemoryError,
)


class Source(Protocol):
  """Rows of typed columns, read in batches, any number of times.

  Types are plain: no dictionaries, no large or view variants, no structs at the top. A
  subclass implements `_stream` or `_read`, and `_line` where rows are lines of a text.

  Attributes:
    where: Name of the table in messages: its path.
    schema: Names and types of all columns.
    num_rows: Number of rows; None if only reading finds it out.
    notes: Sentences about the file that a person should read.
  """

  where: str
  schema: pa.Schema
  num_rows: int | None = None
  notes: Sequence[str] = ()

  def at(self, row: int) -> str:
    """Place of a row for messages: the file, the row, and in a text file the line."""
    line = self._line(row)
    return f"{self.where}, row {row}" + (f" (line {line})" if line else "")

  def batches(
    self, columns: Sequence[str] | None = None, *, start: int = 0
  ) -> Iterator[pa.RecordBatch]:
    """Read record batches, in the order of the rows.

    Args:
      columns: Names of the columns to read; None for all.
      start: First row to read.

    Returns:
      Batches of 1 to `BATCH_ROWS` rows.

    Raises:
      DataError: There is no such column, or a row cannot be read.
    """
    return joined(self._read(self._select(columns), start))

  def _select(self, columns: Sequence[str] | None) -> tuple[str, ...]:
    names = self.schema.names
    for name in columns or ():
      if name not in names:
        raise DataError(f"{self.where}: no column {name!r}; it has {names}")
    return tuple(names if columns is None else columns)

  def _read(self, names: Sequence[str], start: int) -> Iterator[pa.RecordBatch]:
    """Batches of any size of these columns from row `start` on."""
    return skipped(self._stream(names), start)

  def _stream(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Batches of any size of these columns from the first row on."""
    raise NotImplementedError

  def _line(self, row: int) -> int | None:
    """Line of the file, from 1 on, on which a row begins; None if unknown."""
    return None


def shorten(value: object) -> str:
  """The repr of a value, cut to `_SHOWN` characters."""
  # Cut first: the repr of a long string would be longer still.
  if isinstance(value, str | bytes):
    value = value[: _SHOWN + 1]
  text = repr(value)
  return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def shorten_names(names: Sequence[str], most: int = 20) -> str:
  """A list of names for a message, cut after `most` of them."""
  more = f" and {len(names) - most} more" if len(names) > most else ""
  return f"{list(names[:most])}{more}"


def reason(error: BaseException) -> str:
  """The first line of an error's message, without the frames that Arrow adds."""
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:200].rstrip(" .")


@contextlib.contextmanager
def located_errors(place: str, advice: str = DAMAGED) -> Iterator[None]:
  """Context that turns errors of the libraries into a `DataError`.

  Args:
    place: The file, and if known the row and the column.
    advice: How to repair it.
  """
  try:
    yield
  except DataError:
    raise
  except READ_ERRORS as error:
    raise DataError(f"{place} cannot be read ({reason(error)}); {advice}") from error


def first_failing(length: int, attempt: Callable[[int, int], object]) -> int:
  """Index of the first of `length` items that cannot be read, found by halving.

  Args:
    length: Number of items, of which at least one cannot be read.
    attempt: (begin, count) -> anything; raises one of `READ_ERRORS` if one of `count`
      items from `begin` on cannot be read.
  """
  begin, end = 0, length
  while end - begin > 1:
    middle = (begin + end) // 2
    try:
      attempt(begin, middle - begin)
      begin = middle
    except READ_ERRORS:
      end = middle
  return begin


def check_all(good: pa.Array) -> None:
  """Raises `pa.ArrowInvalid` unless all booleans are true or null."""
  if not pc.all(good, min_count=0).as_py():
    raise pa.ArrowInvalid("it is written in another way")


def make_batch(
  arrays: Sequence[pa.Array], schema: pa.Schema, rows: int
) -> pa.RecordBatch:
  """A record batch that has `rows` rows even without columns."""
  if not arrays:
    return pa.RecordBatch.from_arrays([pa.nulls(rows)], [""]).select([])
  return pa.RecordBatch.from_arrays(arrays, schema=schema)


def skipped(batches: Iterable[pa.RecordBatch], start: int) -> Iterator[pa.RecordBatch]:
  """The batches without the rows before `start`."""
  row = 0
  for batch in batches:
    begin = min(max(start - row, 0), batch.num_rows)
    row += batch.num_rows
    yield batch.slice(begin)


def split(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
  """Slices of a batch of at most `BATCH_ROWS` rows and about `BATCH_BYTES` bytes."""
  half = batch.num_rows // 2
  if batch.num_rows > BATCH_ROWS:
    for begin in range(0, batch.num_rows, BATCH_ROWS):
      yield from split(batch.slice(begin, BATCH_ROWS))
  elif half and batch.nbytes > BATCH_BYTES:
    yield from split(batch.slice(0, half))
    yield from split(batch.slice(half))
  else:
    yield batch


def joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
  """The same rows in fewer batches: small neighbours become one, empty ones vanish."""
  pending, rows, size = [], 0, 0
  for batch in batches:
    if not batch.num_rows:
      continue
    full = rows + batch.num_rows > BATCH_ROWS or size + batch.nbytes > BATCH_BYTES
    if pending and full:
      yield _join(pending)
      pending, rows, size = [], 0, 0
    pending.append(batch)
    rows, size = rows + batch.num_rows, size + batch.nbytes
  if pending:
    yield _join(pending)


def _join(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
  return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
