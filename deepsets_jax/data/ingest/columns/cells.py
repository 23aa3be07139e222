"""Convert the cells of an Arrow column to elements in numpy; null means absent.

Null cells, null items of a list, NaN and empty strings are no elements. Any other value
that cannot be an element raises a `CellError`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.data.ingest.files import formats
from deepsets_jax.foundation.errors import DataError

# Seconds per unit of time.
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


class CellError(ValueError):
  """A bad value in a column.

  Attributes:
    index: Index of the cell in the array that was read.
    problem: What is wrong, with the value.
    advice: How to fix it.
    column: Name of the column, where a modality has several; else None.
  """

  column: str | None = None

  def __init__(self, index: int, problem: str, advice: str):
    super().__init__(f"cell {index}: {problem}; {advice}")
    self.index, self.problem, self.advice = index, problem, advice


@contextlib.contextmanager
def locate_errors(
  where: str, column: str, rows: Sequence[int] | np.ndarray
) -> Iterator[None]:
  """Turn a `CellError` in the block into a `DataError` with its place in the file.

  Args:
    where: Name of the file in messages.
    column: Name of the column, unless the error names one.
    rows: The row number of each cell, `[b]`.
  """
  try:
    yield
  except CellError as error:
    raise DataError(
      f"{where}: row {rows[error.index]}, column {error.column or column!r}:"
      f" {error.problem}; {error.advice}"
    ) from error


class Elements(NamedTuple):
  """The elements of all cells end to end.

  Attributes:
    values: `[n, ...]`.
    lengths: Number of elements per cell, `[b]` int64.
  """

  values: np.ndarray | pa.Array
  lengths: np.ndarray


class OneColumn:
  """A column type of a modality that is read from one column.

  Attributes:
    column: Name of the column in the file.
  """

  column: str

  @property
  def by_column(self) -> dict[str, Any]:
    """The column type of each column that is read."""
    return {self.column: self}

  def cells_in(self, batch: pa.RecordBatch) -> pa.Array | None:
    """Return the column of a batch; None if the batch does not have it."""
    return batch[self.column] if self.column in batch.schema.names else None


def is_list(kind: pa.DataType) -> bool:
  """Whether cells are lists, of fixed size or not."""
  return pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)


def is_number(kind: pa.DataType) -> bool:
  """Whether the type can be read as a number; booleans, dates and times can."""
  return (
    pa.types.is_integer(kind)
    or pa.types.is_floating(kind)
    or pa.types.is_boolean(kind)
    or pa.types.is_decimal(kind)
    or pa.types.is_temporal(kind)
    or pa.types.is_null(kind)
  )


def is_token(kind: pa.DataType) -> bool:
  """Whether the type can be read as a token: strings, whole numbers, booleans."""
  return (
    pa.types.is_string(kind)
    or (is_number(kind) and not pa.types.is_duration(kind))
    or pa.types.is_null(kind)
  )


def numbers(column: pa.Array) -> Elements:
  """Return the numbers of a column of numbers, or of lists of them: float64 `[n]`.

  Times are in seconds, dates in seconds since 1970.

  Raises:
    CellError: A number is infinite.
  """
  elements, lengths = elements_of(column)
  values = _float64(elements)
  infinite = np.isinf(values)
  if infinite.any():
    slot = int(np.argmax(infinite))
    raise CellError(
      cell_of(lengths, slot),
      f"{values[slot]} is not finite",
      "use a finite number, or leave the cell empty",
    )
  kept = ~np.isnan(values)
  if kept.all():
    return Elements(values, lengths)
  return Elements(values[kept], _count(kept, lengths))


def vectors(column: pa.Array, *, one: bool, size: int | None) -> Elements:
  """Return the vectors of a column: float32 `[n, d]` if the column is, else float64.

  Args:
    column: Lists of numbers if `one`, else lists of such lists.
    one: Whether each cell is one vector; an empty list is then absent.
    size: `d`; None for the size of the first vector.

  Raises:
    CellError: A vector has another size, or a number that is not finite.
  """
  elements, lengths = (
    (column.drop_null(), _is_valid(column)) if one else elements_of(column)
  )
  kept = _is_valid(elements)
  if one:
    full = pc.list_value_length(elements).to_numpy(zero_copy_only=False) > 0
    kept = full.astype(np.int64)
  if not kept.all():
    elements = elements.filter(pa.array(kept.astype(bool)))
    lengths = _count(kept.astype(bool), lengths)
  sizes = pc.list_value_length(elements).to_numpy(zero_copy_only=False)
  if size is None:
    size = int(sizes[0]) if len(sizes) else 0
  _check_sizes(sizes, size, lengths)
  flat = elements.flatten()
  single = pa.types.is_float32(flat.type) or pa.types.is_float16(flat.type)
  values = _float64(flat)
  finite = np.isfinite(values)
  if not finite.all():
    slot, feature = divmod(int(np.argmin(finite)), size)
    raise CellError(
      cell_of(lengths, slot),
      f"number {feature} of a vector is {values[slot * size + feature]}"
      + (" or null" if np.isnan(values[slot * size + feature]) else ""),
      "use finite numbers, or leave the whole vector out",
    )
  values = values.astype(np.float32) if single else values
  return Elements(values.reshape(len(sizes), size), lengths)


def _check_sizes(sizes: np.ndarray, size: int, lengths: np.ndarray) -> None:
  if not len(sizes) or (size > 0 and (sizes == size).all()):
    return
  slot = int(np.argmax(sizes != size)) if size else 0
  raise CellError(
    cell_of(lengths, slot),
    f"a vector has {sizes[slot]} numbers, others have {size}"
    if size
    else "a vector has no numbers",
    "give all vectors of a column one size, or leave the vector out",
  )


def strings(column: pa.Array, separator: str | None = None) -> Elements:
  """Return the tokens of a column as an Arrow array of strings.

  Args:
    column: Strings, whole numbers or booleans, or lists of them.
    separator: Text between the tokens of a string, which is then read as a list; white
      space around tokens is dropped. None reads each string as one token.

  Raises:
    CellError: A number is not whole.
  """
  if separator is not None and pa.types.is_string(column.type):
    column = pc.split_pattern(column, separator)
  elements, lengths = elements_of(column)
  if pa.types.is_decimal(elements.type) and elements.type.scale:
    elements = elements.cast(pa.float64())
  if pa.types.is_floating(elements.type):
    elements = _whole(elements, lengths)
  if not pa.types.is_string(elements.type):
    elements = elements.cast(pa.string())
  if separator is not None:
    elements = pc.utf8_trim_whitespace(elements)
  kept = pc.fill_null(pc.not_equal(elements, ""), False)
  if pc.all(kept).as_py() in (True, None):
    return Elements(elements, lengths)
  return Elements(
    elements.filter(kept), _count(kept.to_numpy(zero_copy_only=False), lengths)
  )


def _whole(elements: pa.Array, lengths: np.ndarray) -> pa.Array:
  """Return whole floats as integers, and NaN as null."""
  values = _float64(elements)
  there = np.isfinite(values)
  bad = (there & (values != np.round(values))) | np.isinf(values)
  bad |= there & (np.abs(values) > 2**53)
  if bad.any():
    slot = int(np.argmax(bad))
    large = np.isfinite(values[slot]) and abs(values[slot]) > 2**53
    problem = "is too large to be exact" if large else "is not a whole number"
    raise CellError(
      cell_of(lengths, slot),
      f"{values[slot]} is not a token: it {problem}",
      "use strings or whole numbers, or read the column as numbers",
    )
  return pa.array(np.where(there, values, 0).astype(np.int64), mask=~there)


def match_type(column: pa.Array, wanted: pa.DataType) -> pa.Array:
  """Cast a column to the type of training, where the meaning of its cells is clear.

  The numbers 0 and 1, and the strings "true" and "false" in any case, become booleans.
  Booleans, and strings of whole numbers, become whole numbers. Strings of ISO 8601
  become dates or times. Dates and times become each other if no time of day is lost.
  All other columns stay as they are, such as whole floats of a category.

  Raises:
    CellError: A cell cannot be of the type.
  """
  found, is_a = column.type, pa.types
  if found == wanted or is_a.is_null(found) or is_list(found):
    return column
  moment = is_a.is_date(wanted) or is_a.is_timestamp(wanted)
  if is_a.is_boolean(wanted) and (is_a.is_integer(found) or is_a.is_floating(found)):
    legal = pc.or_(column.is_null(), pc.is_in(column, pa.array([0, 1], found)))
    _check_cells(column, legal, wanted, "write 0 or 1, or true or false")
    return column.cast(pa.bool_())
  if is_a.is_string(found) and (moment or is_a.is_boolean(wanted)):
    return _parsed(column, wanted)
  if is_a.is_string(found) and is_a.is_integer(wanted):
    # Any other word is a category that training did not have.
    form = formats.of_type(wanted)
    return form.convert(column) if form.fits(column) else column
  if is_a.is_integer(wanted) and is_a.is_boolean(found):
    return column.cast(wanted)
  if moment and (is_a.is_date(found) or is_a.is_timestamp(found)):
    cast = column.cast(wanted, safe=False)
    kept = pc.equal(cast.cast(found, safe=False), column)
    _check_cells(column, pc.fill_null(kept, True), wanted, "write it without a time")
    return cast
  return column


def _parsed(column: pa.Array, wanted: pa.DataType) -> pa.Array:
  """Parse strings as values of a type."""
  form = formats.of_type(wanted)
  try:
    return form.convert(column).cast(wanted)
  except pa.ArrowInvalid as error:
    index = form.first_misfit(column)
    problem = f"{column[index].as_py()!r} is not {form.type}, as in training"
    raise CellError(index, problem, f"write it as {wanted}") from error


def _check_cells(
  column: pa.Array, legal: pa.Array, wanted: pa.DataType, advice: str
) -> None:
  good = legal.to_numpy(zero_copy_only=False)
  if not good.all():
    index = int(np.argmin(good))
    raise CellError(index, f"{str(column[index])[:60]!r} is not {wanted}", advice)


def elements_of(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
  """Return all elements, including null, and their number per cell, `[b]`."""
  if not is_list(column.type):
    return column, np.ones(len(column), np.int64)
  lengths = pc.fill_null(pc.list_value_length(column), 0)
  # `flatten()` skips values under null or sliced-off cells; `values` does not.
  return column.flatten(), lengths.to_numpy(zero_copy_only=False).astype(np.int64)


def _float64(array: pa.Array) -> np.ndarray:
  """Return numbers as float64, and null as NaN."""
  kind, factor = array.type, 1.0
  if pa.types.is_null(kind):
    return np.full(len(array), np.nan)
  if pa.types.is_date32(kind):
    array, factor = array.cast(pa.int32()), 86_400.0
  elif pa.types.is_date64(kind):
    array, factor = array.cast(pa.int64()), 1e-3
  elif pa.types.is_temporal(kind):
    wide = pa.int32() if pa.types.is_time32(kind) else pa.int64()
    array, factor = array.cast(wide), _SECONDS[kind.unit]
  elif pa.types.is_boolean(kind):
    array = array.cast(pa.int8())
  # Whole numbers above 2**53 are rounded to the nearest float.
  return array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) * factor


def _is_valid(array: pa.Array) -> np.ndarray:
  return array.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)


def _count(kept: np.ndarray, lengths: np.ndarray) -> np.ndarray:
  """Return the number of kept elements per cell: `[b]` int64."""
  total = np.zeros(len(kept) + 1, np.int64)
  np.cumsum(kept, out=total[1:])
  ends = np.cumsum(lengths)
  return total[ends] - total[ends - lengths]


def cell_of(lengths: np.ndarray, slot: int) -> int:
  """Return the index of the cell of an element; `lengths` are those of cells, `[b]`."""
  return int(np.searchsorted(np.cumsum(lengths), slot, side="right"))
