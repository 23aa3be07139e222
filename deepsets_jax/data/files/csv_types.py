"""The types of the columns of a CSV file, told from all of its cells.

A column has the first of these types that each of its cells is written as: bool
(true, True, TRUE and so on), int64, double, date, timestamp, timestamp of UTC (ISO with
an offset), list (a JSON list, all of one type); else it is a string. A number with a
leading zero, or an integer of more than 64 bits, is none: it is a name. An empty cell
is null, quoted or not.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.data.files import json_types
from deepsets_jax.data.files.plain import converted, is_list
from deepsets_jax.data.files.source import READ_ERRORS

_DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = "[0-9]{2}(?::[0-9]{2}(?::[0-9]{2}(?:\\.[0-9]{1,6})?)?)?"
_ZONE = "(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)"
_PATTERNS = {
  pa.bool_(): "true|false|True|False|TRUE|FALSE",
  pa.int64(): "0|-?[1-9][0-9]*",
  # An integer of 19 digits may have lost some as a double.
  pa.float64(): (
    "[+-]?(?:(?:(?:0|[1-9][0-9]{0,17})|(?:0|[1-9][0-9]*)\\.[0-9]*|\\.[0-9]+)"
    "(?:[eE][+-]?[0-9]+)?|(?i:nan|inf|infinity))"
  ),
  pa.date32(): _DATE,
  pa.timestamp("us"): f"{_DATE}(?:[T ]{_CLOCK})?",
  pa.timestamp("us", "UTC"): f"{_DATE}[T ]{_CLOCK}{_ZONE}",
}
_LIST = r"(?s)^\s*\[.*\]\s*$"


class ColumnType:
  """The type of a column, narrowed down as its cells are seen."""

  def __init__(self):
    self._kinds = list(_PATTERNS)
    # Of a cell, as long as all are lists.
    self._list: pa.DataType | None = pa.null()
    self._is_null = True

  @property
  def kind(self) -> pa.DataType:
    """Of the cells seen so far; null where all are empty."""
    if self._is_null:
      return pa.null()
    if self._kinds:
      return self._kinds[0]
    return pa.string() if self._list is None else self._list

  def see(self, cells: pa.Array) -> None:
    """Narrows it down to what these cells, strings, are written as too."""
    cells = cells.drop_null()
    if not len(cells):
      return
    self._is_null = False
    self._kinds = [kind for kind in self._kinds if _written_as(cells, kind) is not None]
    if self._list is not None:
      self._list = _list_type(cells, self._list)


def is_readable(kind: pa.DataType) -> bool:
  """Whether a cell can be written as a value of this plain type."""
  return (
    pa.types.is_string(kind)
    or pa.types.is_null(kind)
    or is_list(kind)
    or _family(kind) is not None
  )


def convert(cells: pa.Array, kind: pa.DataType) -> pa.Array | None:
  """The values of cells, strings, as a type; None if one is not written as it."""
  if pa.types.is_string(kind):
    return cells
  if pa.types.is_null(kind):
    return pa.nulls(len(cells)) if cells.null_count == len(cells) else None
  if is_list(kind):
    return _lists(cells, kind)
  return _written_as(cells, kind)


def _family(kind: pa.DataType) -> pa.DataType | None:
  """The type whose pattern cells of this type are written by."""
  is_a = pa.types
  if is_a.is_boolean(kind):
    return pa.bool_()
  if is_a.is_integer(kind):
    return pa.int64()
  if is_a.is_floating(kind) or is_a.is_decimal(kind):
    return pa.float64()
  if is_a.is_date(kind):
    return pa.date32()
  if is_a.is_timestamp(kind):
    return pa.timestamp("us", kind.tz and "UTC")
  return None


def _written_as(cells: pa.Array, kind: pa.DataType) -> pa.Array | None:
  family = _family(kind)
  matches = pc.match_substring_regex(cells, f"^(?:{_PATTERNS[family]})$")
  if not pc.all(matches, min_count=0).as_py():
    return None
  try:
    # By way of its family: not every type is read from strings.
    values = cells.cast(family).cast(kind)
  except READ_ERRORS:
    return None
  if pa.types.is_floating(kind):
    # 1e400 is written as a number, and is not infinite.
    infinite = pc.equal(pc.abs(values.cast(pa.float64())), float("inf"))
    named = pc.match_substring(cells, "inf", ignore_case=True)
    if pc.any(pc.and_not(infinite, named), min_count=0).as_py():
      return None
  return values


def _lists(cells: pa.Array, kind: pa.DataType) -> pa.Array | None:
  """The lists that cells are in JSON; None if one is not."""
  matches = pc.match_substring_regex(cells, _LIST)
  if not pc.all(matches, min_count=0).as_py():
    return None
  try:
    schema = pa.schema([("v", json_types.parsed_type(kind))])
    table = json_types.parse(_as_lines(cells), schema)
    if table.num_rows != len(cells):
      return None
    column = table["v"].combine_chunks()
    return converted(column, kind, str, "", 0)
  except READ_ERRORS:
    return None


def _list_type(cells: pa.Array, known: pa.DataType) -> pa.DataType | None:
  """The type of JSON lists in cells, with those before; None if one is none."""
  matches = pc.match_substring_regex(cells, _LIST)
  if not pc.all(matches, min_count=0).as_py():
    return None
  try:
    block = _as_lines(cells)
    if json_types.is_deep(block):
      return None
    table = json_types.parse(block)
    kind = json_types.unify(known, table["v"].type)
  except (*READ_ERRORS, KeyError):
    return None
  # One cell could end its object, and begin another, or a second key of it.
  if table.num_rows != len(cells) or table.num_columns != 1:
    return None
  # A long integer among numbers with a point has lost some of its digits.
  return None if json_types.has_long_integer(block) and _has_double(kind) else kind


def _has_double(kind: pa.DataType) -> bool:
  return _has_double(kind.value_type) if is_list(kind) else pa.types.is_floating(kind)


def _as_lines(cells: pa.Array) -> bytes:
  """JSON lines of objects with a cell each.

  Raises:
    ValueError: A cell of several lines is no JSON.
  """
  texts = ["null" if text is None else text for text in cells.to_pylist()]
  # White space in JSON may be an end of a line, but not within a string.
  texts = [json.dumps(json.loads(text)) if "\n" in text else text for text in texts]
  return "\n".join(f'{{"v":{text}}}' for text in texts).encode()
