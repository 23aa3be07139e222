"""Formats in which the strings of a column are written: numbers, dates, lists, text.

A `Format` turns strings into values of an Arrow type. White space around a cell is
never part of it, and an empty cell is null.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.data.ingest.files import dates, list_text, number_text
from deepsets_jax.data.ingest.files.plain import is_number
from deepsets_jax.data.ingest.files.source import READ_ERRORS, check_all, first_failing
from deepsets_jax.foundation.errors import ConfigError

# Words for "no value" in a column of numbers, dates, booleans or lists, in any case.
MISSING = frozenset(
  "na n/a #n/a n.a. na. nan <na> null (null) nil none ? - -- --- . .. missing unknown"
  " undefined #value! #ref! #div/0! #num! #name? \\n".split()
)
TYPES: Mapping[str, pa.DataType] = {
  "integer": pa.int64(),
  "number": pa.float64(),
  "boolean": pa.bool_(),
  "date": pa.date32(),
  "time": pa.timestamp("us"),
  "time with zone": pa.timestamp("us", "UTC"),
  "list of integers": pa.list_(pa.int64()),
  "list of numbers": pa.list_(pa.float64()),
  "list of booleans": pa.list_(pa.bool_()),
  "list of texts": pa.list_(pa.string()),
  "list of lists of numbers": pa.list_(pa.list_(pa.float64())),
  "list of lists of texts": pa.list_(pa.list_(pa.string())),
  "text": pa.string(),
}
# Each word for true, with the word for false.
BOOLEANS = {"true": "false", "yes": "no", "t": "f", "y": "n", "on": "off"}


@dataclasses.dataclass(frozen=True)
class Format:
  """The format of the strings of a column.

  Attributes:
    type: A key of `TYPES`.
    missing: Words that stand for no value, in addition to the usual words (`MISSING`).
      A text has no usual words: only these are missing in it.
    decimal: Mark before the decimals of a number.
    thousands: Mark between the thousands of a number: "", ",", "." or " " (any kind of
      space, or an apostrophe).
    order: Order of a date: "ymd", "dmy" or "mdy".
    separator: Mark between the numbers of a list without brackets.
  """

  type: str
  missing: tuple[str, ...] = ()
  decimal: str = "."
  thousands: str = ""
  order: str = "ymd"
  separator: str = ""

  def __post_init__(self):
    object.__setattr__(self, "missing", tuple(self.missing))  # JSON has lists.
    if self.type not in TYPES:
      raise ConfigError(f"type {self.type!r}: expected one of {list(TYPES)}")
    if (self.decimal, self.thousands) not in number_text.MARKS:
      raise ConfigError(
        f"decimal {self.decimal!r} with thousands {self.thousands!r}: expected one of"
        f" {list(number_text.MARKS)}"
      )
    if self.order not in dates.ORDERS:
      raise ConfigError(f"order {self.order!r}: expected one of {list(dates.ORDERS)}")

  @property
  def arrow(self) -> pa.DataType:
    """The Arrow type of the values."""
    return TYPES[self.type]

  def to_json(self) -> dict[str, Any]:
    """Plain values, without the settings that have their default."""
    usual = {f.name: f.default for f in dataclasses.fields(self)}
    values = {k: v for k, v in vars(self).items() if v != usual[k]}
    return values | ({"missing": list(self.missing)} if self.missing else {})

  def convert(self, cells: pa.Array) -> pa.Array:
    """The values of cells, which are strings.

    Raises:
      pa.ArrowInvalid: A cell is not written in this format.
    """
    cells = trimmed(cells)
    if self.type == "text":
      return _without(cells, pc.is_in(cells, pa.array(self.missing, pa.string())))
    words = pa.array([*MISSING, *(word.lower() for word in self.missing)])
    cells = _without(cells, pc.is_in(pc.utf8_lower(cells), words))
    if self.type in ("integer", "number"):
      return number_text.parse(cells, self.arrow, self.decimal, self.thousands)
    if self.type == "boolean":
      return _booleans(cells)
    if self.type in ("date", "time", "time with zone"):
      return dates.parse(cells, self.order, self.arrow)
    if self.separator:
      return _separated(cells, self)
    return list_text.parse(cells, self.arrow)

  def fits(self, cells: pa.Array) -> bool:
    """Whether all cells are written in this format."""
    try:
      self.convert(cells)
    except READ_ERRORS:
      return False
    return True

  def first_misfit(self, cells: pa.Array) -> int:
    """Index of the first cell that is not in this format; there must be one."""
    return first_failing(len(cells), lambda i, n: self.convert(cells.slice(i, n)))


def to_json(by_column: Mapping[str, Format]) -> list[dict[str, Any]]:
  """Formats as a list of plain values; names of columns may have dots."""
  return [{"column": name, **form.to_json()} for name, form in by_column.items()]


def from_json(values: Sequence[Mapping[str, Any]]) -> dict[str, Format]:
  """The formats that `to_json` gave, by column.

  Raises:
    ConfigError: An unknown setting, or a value that is not legal.
  """
  legal = ["column", *(field.name for field in dataclasses.fields(Format))]
  found = {}
  for value in values:
    settings = dict(value) if isinstance(value, Mapping) else {}
    if not {"column", "type"} <= set(settings) or set(settings) - set(legal):
      raise ConfigError(
        f"reading.columns: {value!r}; expected an object with 'column' and 'type', and"
        f" of {legal[2:]} what is needed"
      )
    name = settings.pop("column")
    try:
      found[name] = Format(**settings)
    except (TypeError, ValueError) as error:
      raise ConfigError(f"reading.columns, {name!r}: {error}") from error
  return found


def of_type(kind: pa.DataType) -> Format | None:
  """The usual format of strings that stand for values of a type; None if none does."""
  wide = _widened(kind)
  name = next((name for name, known in TYPES.items() if known == wide), None)
  return None if name is None else Format(name)


def _widened(kind: pa.DataType) -> pa.DataType:
  """The type of `TYPES` that holds the values of a type, if one does."""
  is_a = pa.types
  if is_a.is_list(kind) or is_a.is_fixed_size_list(kind):
    empty = is_a.is_null(kind.value_type)
    inner = pa.string() if empty else _widened(kind.value_type)
    if is_a.is_list(inner) and is_a.is_integer(inner.value_type):
      inner = pa.list_(pa.float64())
    return pa.list_(inner)
  if is_a.is_integer(kind):
    return pa.int64()
  if is_number(kind):
    return pa.float64()
  if is_a.is_date(kind):
    return pa.date32()
  if is_a.is_timestamp(kind):
    return pa.timestamp("us", "UTC" if kind.tz else None)
  return kind


def trimmed(cells: pa.Array) -> pa.Array:
  """The strings without white space around them; null where nothing is left."""
  cells = pc.utf8_trim_whitespace(cells)
  return _without(cells, pc.equal(cells, ""))


def _without(cells: pa.Array, gone: pa.Array) -> pa.Array:
  """The strings with null where a mask is true."""
  if not pc.any(gone, min_count=0).as_py():
    return cells
  return pc.if_else(gone, pa.scalar(None, pa.string()), cells)


def _booleans(cells: pa.Array) -> pa.Array:
  words = pc.utf8_lower(cells)
  true = pc.is_in(words, pa.array([*BOOLEANS, "1", "1.0"]))
  false = pc.is_in(words, pa.array([*BOOLEANS.values(), "0", "0.0"]))
  check_all(pc.or_(pc.or_(true, false), cells.is_null()))
  return pc.if_else(cells.is_null(), pa.scalar(None, pa.bool_()), true)


def _separated(cells: pa.Array, form: Format) -> pa.Array:
  """Lists of numbers with a mark between them, and perhaps brackets around."""
  mark = r"\s+" if form.separator == " " else re.escape(form.separator)
  cells = pc.replace_substring_regex(cells, r"^[\[(]\s*|\s*[\])]$", "")
  pieces = pc.split_pattern_regex(cells, mark)
  number = dataclasses.replace(form, type="number", separator="")
  values = number.convert(pieces.flatten())
  lists = pa.ListArray.from_arrays(pieces.offsets, values, mask=pieces.is_null())
  return lists.cast(form.arrow)
