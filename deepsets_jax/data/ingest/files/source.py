"""What every file of columns is read as: a schema, and batches of rows in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.foundation.errors import DataError

# Rows of a batch, fewer where they are wide: a batch is about this many bytes at most.
BATCH_ROWS = 8192
BATCH_BYTES = 1 << 26
# Characters of a value in a message.
_SHOWN = 60

# What the libraries below raise for a damaged file. Arrow's own errors are of these
# types or `ArrowException`s.
READ_ERRORS = (
  pa.ArrowException,
  OSError,
  EOFError,
  ValueError,
  TypeError,
  OverflowError,
  MemoryError,
)


class Source(Protocol):
  """Rows of typed columns, read in batches, as often as one likes.

  Types are plain: no dictionaries, no large or view variants, no structs at the top.

  Attributes:
    where: What to call it in a message: the path.
    schema: Of all columns.
    num_rows: None where it is known only after reading.
    notes: Sentences about the file that a person should read.
  """

  where: str
  schema: pa.Schema
  num_rows: int | None
  notes: Sequence[str]

  def at(self, row: int) -> str:
    """Where a row is, for messages: the file and the row in it."""
    ...

  def batches(
    self, columns: Sequence[str] | None = None, *, start: int = 0
  ) -> Iterator[pa.RecordBatch]:
    """Record batches of these columns (None: all) from row `start` on, in order.

    A batch has at most `BATCH_ROWS` rows, and at least one.

    Raises:
      DataError: No such column; a row that cannot be read.
    """
    ...


class Streamed:
  """A source of which rows before the first that is asked for are read, and dropped.

  A subclass has `where`, `schema` and `_read`, which gives the batches of some columns.
  """

  where: str
  schema: pa.Schema
  num_rows: int | None = None
  notes: Sequence[str] = ()

  def at(self, row: int) -> str:
    """Where a row is, for messages."""
    return f"{self.where}, row {row}"

  def batches(
    self, columns: Sequence[str] | None = None, *, start: int = 0
  ) -> Iterator[pa.RecordBatch]:
    """Batches as `Source` describes."""
    names = select(self.where, self.schema, columns)
    return joined(skipped(self._read(names), start))

  def _read(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    raise NotImplementedError


def select(
  where: str, schema: pa.Schema, columns: Sequence[str] | None
) -> tuple[str, ...]:
  """The names of the columns to read; None stands for all."""
  if columns is None:
    return tuple(schema.names)
  for name in columns:
    if name not in schema.names:
      raise DataError(f"{where}: no column {name!r}; it has {schema.names}")
  return tuple(columns)


def shorten(value: object) -> str:
  """The repr of a value, cut to `_SHOWN` characters."""
  # No repr of what is long: it would be longer still.
  if isinstance(value, str | bytes):
    value = value[: _SHOWN + 1]
  text = repr(value)
  return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def shorten_names(names: Sequence[str], most: int = 20) -> str:
  """Names for a message, not too many of them."""
  more = f" and {len(names) - most} more" if len(names) > most else ""
  return f"{list(names[:most])}{more}"


def reason(error: BaseException) -> str:
  """The first line of an error's message, without the frames that Arrow adds."""
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:200].rstrip(" .")


def check_all(good: pa.Array) -> None:
  """Raises `pa.ArrowInvalid` unless all of some booleans are true, or null."""
  if not pc.all(good, min_count=0).as_py():
    raise pa.ArrowInvalid("a value is written in another way")


def rows_only(count: int) -> pa.RecordBatch:
  """A batch without columns: its number of rows."""
  return pa.RecordBatch.from_arrays([pa.nulls(count)], [""]).select([])


def skipped(batches: Iterable[pa.RecordBatch], start: int) -> Iterator[pa.RecordBatch]:
  """The batches without the rows before `start`."""
  row = 0
  for batch in batches:
    begin = min(max(start - row, 0), batch.num_rows)
    row += batch.num_rows
    yield batch.slice(begin)


def cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
  """The batch in pieces that are not too long, nor too wide."""
  for begin in range(0, batch.num_rows, BATCH_ROWS):
    yield from _halved(batch.slice(begin, BATCH_ROWS))


def _halved(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
  half = batch.num_rows // 2
  if half and batch.nbytes > BATCH_BYTES:
    yield from _halved(batch.slice(0, half))
    yield from _halved(batch.slice(half))
  else:
    yield batch


def joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
  """The same rows, with neighbours joined that are small together."""
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
  if len(batches) == 1:
    return batches[0]
  if not batches[0].num_columns:
    return rows_only(sum(batch.num_rows for batch in batches))
  return pa.concat_batches(batches)


def first_failing(length: int, fails: Callable[[int, int], bool]) -> int:
  """The first of `length` rows that fails, one of which must.

  Args:
    length: Number of rows.
    fails: Whether one of `count` rows from `begin` on fails.
  """
  begin, end = 0, length
  while end - begin > 1:
    middle = (begin + end) // 2
    if fails(begin, middle - begin):
      end = middle
    else:
      begin = middle
  return begin
