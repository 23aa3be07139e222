"""From the cells of an Arrow column to elements in numpy; null is absence.

A cell that is null has no element, nor has an element that is null within a list, a
number that is NaN, or an empty string. What is there and cannot be an element is a
`CellError`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.data.ingest.files import formats

# Seconds of a unit of time.
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


class CellError(ValueError):
  """A bad value in a column: its place there, what is wrong, and the way out.

  Attributes:
    index: Of the cell in the column that was looked at.
    problem: With the value.
    advice: The way out.
    column: Of several columns the name of the one; None where there is only one.
  """

  column: str | None = None

  def __init__(self, index: int, problem: str, advice: str):
    super().__init__(f"cell {index}: {problem}; {advice}")
    self.index, self.problem, self.advice = index, problem, advice


class Elements(NamedTuple):
  """The elements of a column end to end: `values [n, ...]`, and of each cell, `[b]`."""

  values: np.ndarray | pa.Array
  lengths: np.ndarray


class OneColumn:
  """A kind of modality that is read from one column.

  Attributes:
    column: Its name in the file.
  """

  column: str

  @property
  def by_column(self) -> dict[str, Any]:
    """The columns that are read, with the kind of each."""
    return {self.column: self}

  def cells_in(self, batch: pa.RecordBatch) -> pa.Array | None:
    """The column of some rows; None if it is not there."""
    return batch[self.column] if self.column in batch.schema.names else None


def is_list(kind: pa.DataType) -> bool:
  """Whether cells are lists, of a fixed size or not."""
  return pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)


def is_number(kind: pa.DataType) -> bool:
  """Whether it can be read as a number: booleans, dates and times can."""
  return (
    pa.types.is_integer(kind)
    or pa.types.is_floating(kind)
    or pa.types.is_boolean(kind)
    or pa.types.is_decimal(kind)
    or pa.types.is_temporal(kind)
    or pa.types.is_null(kind)
  )


def is_token(kind: pa.DataType) -> bool:
  """Whether it can be read as a token: strings, numbers that are whole, booleans."""
  return (
    pa.types.is_string(kind)
    or (is_number(kind) and not pa.types.is_duration(kind))
    or pa.types.is_null(kind)
  )


def numbers(column: pa.Array) -> Elements:
  """Float64 `[n]` of a column of numbers, or of lists of them.

  Times are seconds, dates seconds since 1970.

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
      "give a finite number, or leave it out: absence needs no placeholder",
    )
  kept = ~np.isnan(values)
  if kept.all():
    return Elements(values, lengths)
  return Elements(values[kept], _count(kept, lengths))


def vectors(column: pa.Array, *, one: bool, size: int | None) -> Elements:
  """Float `[n, d]` of a column whose cells are vectors, or lists of vectors.

  Float32 where the column is, else float64.

  Args:
    column: Of lists of numbers if `one`, else of lists of these.
    one: Whether a cell is one vector; one without numbers is then absent.
    size: `d`; None for that of the first vector.

  Raises:
    CellError: A vector of another size, or with a number that is not finite.
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
      "give a finite number, or leave the whole vector out",
    )
  values = values.astype(np.float32) if single else values
  return Elements(values.reshape(len(sizes), size), lengths)


def _check_sizes(sizes: np.ndarray, size: int, lengths: np.ndarray) -> None:
  if not len(sizes) or (size > 0 and (sizes == size).all()):
    return
  slot = int(np.argmax(sizes != size)) if size else 0
  raise CellError(
    cell_of(lengths, slot),
    f"a vector of {sizes[slot]} numbers, where others have {size}"
    if size
    else "a vector without numbers",
    "give all vectors of a column one size, or leave the vector out",
  )


def strings(column: pa.Array, separator: str | None = None) -> Elements:
  """An Arrow array of strings of a column of tokens, or of lists of them.

  Args:
    column: Of strings, whole numbers or booleans, or of lists of them.
    separator: Of the tokens within a string, which is then a list; white space around
      them is no part of them.

  Raises:
    CellError: A number that is not whole.
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
  """Whole floats as integers; NaN is null."""
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
      f"{values[slot]} is no token: it {problem}",
      "give strings or whole numbers, or read the column as numbers",
    )
  return pa.array(np.where(there, values, 0).astype(np.int64), mask=~there)


def matched(column: pa.Array, wanted: pa.DataType) -> pa.Array:
  """A column in the type that training had, where it is plain what its cells mean.

  Numbers 0 and 1 are booleans, and so are the strings "true" and "false", in letters of
  any case; booleans are whole numbers, and so are strings of such; strings of ISO 8601
  are dates or times; dates and times are each other where no time of day is lost. All
  else stays as it is, such as the whole float that is a category.

  Raises:
    CellError: A cell that cannot be of the type.
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
    # Another word is a category that training had not.
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
  """Strings as values of a type."""
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
    raise CellError(index, f"{str(column[index])[:60]!r} is no {wanted}", advice)


def elements_of(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
  """All elements, null ones included, and how many each cell has, `[b]`."""
  if not is_list(column.type):
    return column, np.ones(len(column), np.int64)
  lengths = pc.fill_null(pc.list_value_length(column), 0)
  # flatten() leaves out what null and sliced-off cells cover; values would not.
  return column.flatten(), lengths.to_numpy(zero_copy_only=False).astype(np.int64)


def _float64(array: pa.Array) -> np.ndarray:
  """Numbers, NaN where null."""
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
  # Whole numbers above 2**53 are rounded, as floats are.
  return array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) * factor


def _is_valid(array: pa.Array) -> np.ndarray:
  return array.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)


def _count(kept: np.ndarray, lengths: np.ndarray) -> np.ndarray:
  """How many of each cell's elements are kept: `[b]` int64."""
  total = np.zeros(len(kept) + 1, np.int64)
  np.cumsum(kept, out=total[1:])
  ends = np.cumsum(lengths)
  return total[ends] - total[ends - lengths]


def cell_of(lengths: np.ndarray, slot: int) -> int:
  """The cell that an element is of, by the lengths of the cells `[b]`."""
  return int(np.searchsorted(np.cumsum(lengths), slot, side="right"))
