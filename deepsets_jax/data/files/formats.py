"""How the strings of a column are written: numbers, dates, booleans, lists or text.

A `Format` turns strings into values of an Arrow type. `Detector` finds the format from
all cells of a column, whatever kind of file they are in. White space around a cell is
never part of it, and an empty cell is null.
"""

from __future__ import annotations

import ast
import collections
import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from deepsets_jax.data.files import dates
from deepsets_jax.data.files.source import READ_ERRORS, first_failing, shorten

# Words for "no value" in a column of numbers, dates, booleans or lists, in any case.
MISSING = frozenset(
  "na n/a #n/a n.a. na. nan <na> null (null) nil none ? - -- --- . .. missing unknown"
  " undefined #value! #ref! #div/0! #num! #name? \\n".split()
)
# Those that are no value in a column of categories either. "NA" may be Namibia, and
# "None" a kind of garage.
_NEVER_A_CATEGORY = frozenset("n/a #n/a <na> nan null (null) ? - -- ---".split())

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
_PAIRS = (
  ("true", "false"),
  ("yes", "no"),
  ("t", "f"),
  ("y", "n"),
  ("on", "off"),
)
_TRUE = [pair[0] for pair in _PAIRS]
_FALSE = [pair[1] for pair in _PAIRS]

_CURRENCY = r"(?:US\$|R\$|[$€£¥₹₽₩₺₪]|USD|EUR|GBP|CHF|JPY|kr\.?|Rs\.?)"
_BEFORE = rf"^(\(?)([+-]?)\s*(?:{_CURRENCY}\s*)?([+-]?)\s*(\.?[0-9])"
_AFTER = rf"\s*(?:{_CURRENCY}|%)?\s*\)?$"
_POWER = "(?:[eE][+-]?[0-9]+)?"
_WHOLE = "(?:0|[1-9][0-9]*)"
_SHORT = "(?:0|[1-9][0-9]{0,17})"
_INTEGER = rf"^[+-]?{_WHOLE}$"
# An integer of 19 digits may lose some as a float: it is a name, or fits in int64.
_PLAIN = rf"(?:{_SHORT}|{_WHOLE}\.[0-9]*|\.[0-9]+){_POWER}"
_SIMPLE = rf"^[+-]?(?:{_PLAIN}|(?i:inf(?:inity)?|nan))$"
_SPACE = "[ '\u2019\u00a0\u202f]"
_SPACED = rf"[1-9][0-9]{{0,2}}(?:{_SPACE}[0-9]{{3}})+"
# Marks of decimals and of thousands, with what a number is then written as.
_MARKS: Mapping[tuple[str, str], str] = {
  (".", ""): rf"^[+-]?{_PLAIN}$",
  (".", ","): rf"^[+-]?(?:{_SHORT}|[1-9][0-9]{{0,2}}(?:,[0-9]{{3}})+)(?:\.[0-9]*)?$",
  (",", ""): rf"^[+-]?{_SHORT}(?:,[0-9]*)?$",
  (",", "."): rf"^[+-]?(?:{_SHORT}|[1-9][0-9]{{0,2}}(?:\.[0-9]{{3}})+)(?:,[0-9]*)?$",
  (
    ".",
    " ",
  ): rf"^[+-]?(?:{_SHORT}|[1-9][0-9]{{0,2}}(?:{_SPACE}[0-9]{{3}})+)(?:\.[0-9]*)?$",
  (
    ",",
    " ",
  ): rf"^[+-]?(?:{_SHORT}|[1-9][0-9]{{0,2}}(?:{_SPACE}[0-9]{{3}})+)(?:,[0-9]*)?$",
}
_LIST = r"(?s)^(?:\[.*\]|\(.*\)|\{.*\})$"
# An integer that may not fit in 64 bits, and that a parser makes a float of.
_LONG = r"(?:^|[^0-9.])[0-9]{19}"
_BETWEEN_NUMBERS = (" ", ",", ";", "|")
# Different words beside the usual ones that are counted in a column.
_MOST_OTHERS = 20
# Cells of which this share is of one type are said to be of it, but for some.
_MOSTLY = 0.8


@dataclasses.dataclass(frozen=True)
class Format:
  """How the strings of a column are written.

  Attributes:
    type: A key of `TYPES`.
    missing: Words that stand for no value, beside the usual ones (`MISSING`). A text
      has no usual ones: only these words are missing in it.
    decimal: Mark before the decimals of a number.
    thousands: Mark between its thousands: "", ",", "." or " " (any kind of space, or an
      apostrophe).
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
      raise ValueError(f"type {self.type!r}: expected one of {list(TYPES)}")
    if (self.decimal, self.thousands) not in _MARKS:
      raise ValueError(
        f"decimal {self.decimal!r} with thousands {self.thousands!r}: expected one of"
        f" {list(_MARKS)}"
      )
    if self.order not in dates.ORDERS:
      raise ValueError(f"order {self.order!r}: expected one of {list(dates.ORDERS)}")

  @property
  def arrow(self) -> pa.DataType:
    """The type of its values."""
    return TYPES[self.type]

  def to_json(self) -> dict[str, Any]:
    """Plain values, without the settings that are as usual."""
    usual = {f.name: f.default for f in dataclasses.fields(self)}
    values = {k: v for k, v in vars(self).items() if v != usual[k]}
    return values | ({"missing": list(self.missing)} if self.missing else {})

  def convert(self, cells: pa.Array) -> pa.Array:
    """The values of some cells.

    Args:
      cells: Strings.

    Raises:
      pa.ArrowInvalid: A cell is not written so.
    """
    cells = trimmed(cells)
    if self.type == "text":
      return self._without(cells, self.missing)
    words = [*MISSING, *(word.lower() for word in self.missing)]
    cells = self._without(cells, words, lower=True)
    if self.type in ("integer", "number"):
      return _numbers(cells, self)
    if self.type == "boolean":
      return _booleans(cells)
    if self.type in ("date", "time", "time with zone"):
      return dates.parse(cells, self.order, self.arrow)
    return _lists(cells, self)

  def fits(self, cells: pa.Array) -> bool:
    """Whether all cells are written so."""
    try:
      self.convert(cells)
    except READ_ERRORS:
      return False
    return True

  def first_misfit(self, cells: pa.Array) -> int:
    """The first cell that is not written so; there must be one."""
    return first_failing(len(cells), lambda i, n: not self.fits(cells.slice(i, n)))

  def _without(
    self, cells: pa.Array, words: Sequence[str], lower: bool = False
  ) -> pa.Array:
    if not words:
      return cells
    found = pc.utf8_lower(cells) if lower else cells
    gone = pc.is_in(found, pa.array(words, pa.string()))
    return pc.if_else(gone, pa.scalar(None, pa.string()), cells)


def to_json(of_columns: Mapping[str, Format]) -> list[dict[str, Any]]:
  """Formats as a list of plain values; names of columns may have dots."""
  return [{"column": name, **form.to_json()} for name, form in of_columns.items()]


def from_json(values: Sequence[Mapping[str, Any]]) -> dict[str, Format]:
  """The formats that `to_json` gave, by column.

  Raises:
    ValueError: An unknown setting, or a value that is not legal.
  """
  legal = ["column", *(field.name for field in dataclasses.fields(Format))]
  found = {}
  for value in values:
    settings = dict(value) if isinstance(value, Mapping) else {}
    if not {"column", "type"} <= set(settings) or set(settings) - set(legal):
      raise ValueError(
        f"reading.columns: {value!r}; expected an object with 'column' and 'type', and"
        f" of {legal[2:]} what is needed"
      )
    name = settings.pop("column")
    try:
      found[name] = Format(**settings)
    except (TypeError, ValueError) as error:
      raise ValueError(f"reading.columns, {name!r}: {error}") from error
  return found


def of_type(kind: pa.DataType) -> Format | None:
  """The usual format of strings that stand for values of a type; None if none does."""
  is_a = pa.types
  if is_a.is_boolean(kind):
    return Format("boolean")
  if is_a.is_integer(kind):
    return Format("integer")
  if is_a.is_floating(kind) or is_a.is_decimal(kind):
    return Format("number")
  if is_a.is_date(kind):
    return Format("date")
  if is_a.is_timestamp(kind):
    return Format("time with zone" if kind.tz else "time")
  if is_a.is_string(kind):
    return Format("text")
  if is_a.is_list(kind) or is_a.is_fixed_size_list(kind):
    name = _list_name(pa.list_(kind.value_type))
    return None if name is None else Format(name)
  return None


def _widened(kind: pa.DataType) -> pa.DataType:
  """The type of `TYPES` that holds the values of another."""
  is_a = pa.types
  if is_a.is_list(kind) or is_a.is_fixed_size_list(kind):
    inner = _widened(kind.value_type)
    nested = is_a.is_list(inner)
    return pa.list_(inner if not nested else pa.list_(_float(inner.value_type)))
  if is_a.is_integer(kind):
    return pa.int64()
  if is_a.is_floating(kind) or is_a.is_decimal(kind):
    return pa.float64()
  return pa.string() if is_a.is_null(kind) else kind


def _float(kind: pa.DataType) -> pa.DataType:
  return pa.float64() if pa.types.is_integer(kind) else kind


def trimmed(cells: pa.Array) -> pa.Array:
  """The strings without white space around them; null where nothing is left."""
  cells = pc.utf8_trim_whitespace(cells)
  empty = pc.equal(cells, "")
  if not pc.any(empty, min_count=0).as_py():
    return cells
  return pc.if_else(empty, pa.scalar(None, pa.string()), cells)


def _numbers(cells: pa.Array, form: Format) -> pa.Array:
  kind = form.arrow
  if (form.decimal, form.thousands) == (".", ""):
    try:
      return _cast(cells, kind)
    except READ_ERRORS:
      pass  # A sign of a currency, say.
  cells = _core(cells)
  # "2e308" is beyond float64, and must not become infinite.
  fits = pc.match_substring_regex(cells, _MARKS[form.decimal, form.thousands])
  named = pc.match_substring_regex(cells, r"^[+-]?(?i:inf(?:inity)?|nan)$")
  _check(pc.or_(fits, named))
  if form.thousands:
    mark = _SPACE if form.thousands == " " else re.escape(form.thousands)
    cells = pc.replace_substring_regex(cells, mark, "")
  if form.decimal != ".":
    cells = pc.replace_substring(cells, form.decimal, ".")
  return _cast(cells, kind)


def _cast(cells: pa.Array, kind: pa.DataType) -> pa.Array:
  cells = pc.replace_substring_regex(cells, r"^\+", "")
  if not pa.types.is_integer(kind):
    values = cells.cast(pa.float64())
    infinite = pc.is_inf(values)
    if pc.any(infinite, min_count=0).as_py():
      named = pc.match_substring(cells, "inf", ignore_case=True)
      _check(pc.or_(pc.invert(infinite), named))
    return values
  try:
    return cells.cast(kind)
  except READ_ERRORS:
    # 20095.0, as pandas writes integers of a column with gaps.
    _check(pc.match_substring_regex(cells, r"^-?[0-9]{1,15}(?:\.0*)?$"))
    return cells.cast(pa.float64()).cast(kind)


def _core(cells: pa.Array) -> pa.Array:
  """Numbers without signs of currencies and percent; minus for parentheses."""
  negative = pc.match_substring_regex(cells, r"^\(.*\)$")
  cells = pc.replace_substring(cells, "\u2212", "-")
  cells = pc.replace_substring_regex(cells, _BEFORE, r"\2\3\4")
  cells = pc.replace_substring_regex(cells, _AFTER, "")
  if pc.any(negative, min_count=0).as_py():
    cells = pc.if_else(negative, pc.binary_join_element_wise("-", cells, ""), cells)
  return cells


def _check(good: pa.Array) -> None:
  if not pc.all(good, min_count=0).as_py():
    raise pa.ArrowInvalid("a value is written in another way")


def _booleans(cells: pa.Array) -> pa.Array:
  words = pc.utf8_lower(cells)
  true = pc.is_in(words, pa.array([*_TRUE, "1", "1.0"]))
  false = pc.is_in(words, pa.array([*_FALSE, "0", "0.0"]))
  _check(pc.or_(pc.or_(true, false), cells.is_null()))
  return pc.if_else(cells.is_null(), pa.scalar(None, pa.bool_()), true)


def _lists(cells: pa.Array, form: Format) -> pa.Array:
  kind = form.arrow
  if form.separator:
    mark = r"\s+" if form.separator == " " else re.escape(form.separator)
    cells = pc.replace_substring_regex(cells, r"^[\[(]\s*|\s*[\])]$", "")
    pieces = pc.split_pattern_regex(cells, mark)
    number = dataclasses.replace(form, type="number", separator="")
    values = number.convert(pieces.flatten())
    return pa.ListArray.from_arrays(pieces.offsets, values, mask=pieces.is_null()).cast(
      kind
    )
  if (values := _json_lists(cells, kind)) is not None:
    return values
  _check(pc.match_substring_regex(cells, _LIST))
  values = [None if text is None else parse_list(text) for text in cells.to_pylist()]
  if pa.types.is_string(_innermost(kind)):
    values = [_as_texts(value) for value in values]
  return pa.array(values, kind)


def _json_lists(cells: pa.Array, kind: pa.DataType | None) -> pa.Array | None:
  """Lists in JSON, all at once; None where one by one may find more.

  Args:
    cells: Strings.
    kind: Type of the lists; None to find it.
  """
  # A parser must not recurse too deep, nor take the end of a cell for that of a line.
  odd = pc.match_substring_regex(cells, r"[\n\r]|^[^\[]|\[\s*\[\s*\[")
  if not len(cells) or pc.any(odd, min_count=0).as_py():
    return None
  texts = pc.binary_join_element_wise('{"v":', pc.fill_null(cells, "null"), "}\n", "")
  data = pc.binary_join(pa.ListArray.from_arrays([0, len(texts)], texts), "")[0]
  schema = None if kind is None else pa.schema([("v", kind)])
  behavior = "infer" if kind is None else "error"
  options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior=behavior)
  try:
    read = pj.ReadOptions(use_threads=False, block_size=len(data.as_py()) + 1)
    table = pj.read_json(pa.BufferReader(data.as_buffer()), read, options)
  except READ_ERRORS:
    return None
  if table.column_names != ["v"] or table.num_rows != len(cells):
    return None
  return table["v"].combine_chunks()


def _innermost(kind: pa.DataType) -> pa.DataType:
  return _innermost(kind.value_type) if pa.types.is_list(kind) else kind


def _as_texts(value: Any) -> Any:
  if isinstance(value, list):
    return [_as_texts(item) for item in value]
  return value if value is None or isinstance(value, str) else json.dumps(value)


@functools.lru_cache(maxsize=4096)
def _literal(text: str) -> tuple | None:
  """What a text is as a Python literal, or as an array that numpy printed."""
  try:
    return ("", ast.literal_eval(text))
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    pass
  body = re.sub(r"^array\(|(?:, dtype=\w+)?\)$", "", text.strip())
  if re.fullmatch(r"[\[\]\s0-9.eE+\-,nainf]*", body):
    joined = re.sub(r"(?<=[0-9.\]nf])\s+(?=[\[0-9.+\-ni])", ", ", body)
    try:
      return ("", json.loads(re.sub(r"(\d)\.(?=[,\]\s])", r"\1.0", joined)))
    except ValueError:
      return None
  return None


def parse_list(text: str) -> list:
  """The list that a text is, as JSON, Python or numpy write it.

  Raises:
    pa.ArrowInvalid: It is none.
  """
  try:
    value = json.loads(text)
  except (ValueError, RecursionError):
    found = _literal(text)
    value = None if found is None else found[1]
  value = _plain(value)
  if not isinstance(value, list):
    raise pa.ArrowInvalid(f"{shorten(text)} is no list")
  return value


def _plain(value: Any) -> Any:
  if isinstance(value, tuple | set | frozenset):
    value = (
      sorted(value, key=str) if isinstance(value, set | frozenset) else list(value)
    )
  return [_plain(item) for item in value] if isinstance(value, list) else value


@dataclasses.dataclass
class _Tally:
  """How many cells a way of writing fits, and which it does not.

  Attributes:
    fits: Number of cells.
    others: The cells that it does not fit, with their numbers; too many end it.
  """

  fits: int = 0
  others: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )
  is_over: bool = False

  def add(self, cells: pa.Array, counts: np.ndarray, good: np.ndarray) -> None:
    self.fits += int(counts[good].sum())
    if self.is_over or good.all():
      return
    where = np.flatnonzero(~good)
    if len(where) > 50 * _MOST_OTHERS:
      self.is_over = True
      return
    for text, count in zip(
      cells.take(pa.array(where)).to_pylist(), counts[where], strict=True
    ):
      self.others[text] += int(count)
    self.is_over = len(self.others) > 50 * _MOST_OTHERS


class Detector:
  """Finds the format of a column from all of its cells, a batch at a time.

  Attributes:
    rows: Number of cells so far that hold something.
  """

  def __init__(self, *, is_label: bool = False):
    """Args: is_label: Whether it is the label, whose words are kept as they are."""
    self.rows = 0
    self._is_label = is_label
    self._numbers = {marks: _Tally() for marks in _MARKS}
    self._dates = {order: _Tally() for order in dates.ORDERS}
    self._booleans, self._spellings = _Tally(), set()
    self._lists, self._list_type, self._is_list = _Tally(), pa.null(), True
    self._vectors = {mark: _Tally() for mark in _BETWEEN_NUMBERS}
    self._widths = {mark: collections.Counter() for mark in _BETWEEN_NUMBERS}
    self._whole, self._signed, self._timed = True, collections.Counter(), set()
    self._decimals = collections.Counter()
    self._words: collections.Counter[str] = collections.Counter()
    self._parts, self._different, self._sample = 0, 0, None

  def add(self, cells: pa.Array) -> None:
    """Takes in some cells, strings."""
    cells = trimmed(cells).drop_null()
    if not len(cells):
      return
    self.rows += len(cells)
    if self._sample is None:
      self._sample = cells[0].as_py()
    counted = cells.value_counts()
    cells, counts = counted.field(0), counted.field(1).to_numpy()
    self._different += len(cells)
    self._add_words(cells, counts)
    self._add_numbers(cells, counts)
    self._add_dates(cells, counts)
    self._add_booleans(cells, counts)
    self._add_lists(cells, counts)
    self._add_vectors(cells, counts)

  def _add_words(self, cells: pa.Array, counts: np.ndarray) -> None:
    lower = pc.utf8_lower(cells)
    odd = pc.is_in(lower, pa.array(sorted(MISSING)))
    for text, count in zip(
      cells.filter(odd).to_pylist(), counts[_mask(odd)].tolist(), strict=True
    ):
      self._words[text] += count
    spaces = pc.add(pc.count_substring_regex(cells, r"\s+"), 1)
    self._parts += int((spaces.to_numpy(zero_copy_only=False) * counts).sum())

  def _add_numbers(self, cells: pa.Array, counts: np.ndarray) -> None:
    if all(tally.is_over for tally in self._numbers.values()):
      return
    whole = _mask(pc.match_substring_regex(cells, _INTEGER))
    try:
      cells.filter(pa.array(whole)).cast(pa.int64())
    except READ_ERRORS:
      whole[:] = False
    simple = whole | _mask(pc.match_substring_regex(cells, _SIMPLE))
    if not _is_finite(cells.filter(pa.array(simple))):
      self._numbers = {marks: _Tally(is_over=True) for marks in _MARKS}
      return
    core = cells if simple.all() else _core(cells)
    if not simple.all():
      signed = _mask(pc.not_equal(core, cells))
      for text in cells.filter(pa.array(signed & ~simple)).to_pylist()[:50]:
        for sign in re.findall(rf"{_CURRENCY}|%", text):
          self._signed[sign] += 1
    for marks, tally in self._numbers.items():
      if tally.is_over:
        continue
      good = _mask(pc.match_substring_regex(core, _MARKS[marks]))
      if marks == (".", ""):
        good |= simple
      tally.add(cells, counts, good)
    if self._whole:
      words = _mask(pc.is_in(pc.utf8_lower(cells), pa.array(sorted(MISSING))))
      self._whole = bool((whole | words).all())

  def _add_dates(self, cells: pa.Array, counts: np.ndarray) -> None:
    for order, tally in self._dates.items():
      if not tally.is_over:
        good, timed, zoned = dates.match(cells, order)
        tally.add(cells, counts, good)
        self._timed |= {"time"} if timed else set()
        self._timed |= {"zone"} if zoned else set()

  def _add_booleans(self, cells: pa.Array, counts: np.ndarray) -> None:
    if not self._booleans.is_over:
      lower = pc.utf8_lower(cells)
      good = _mask(pc.is_in(lower, pa.array([*_TRUE, *_FALSE])))
      self._spellings |= set(lower.filter(pa.array(good)).to_pylist())
      self._booleans.add(cells, counts, good)

  def _add_lists(self, cells: pa.Array, counts: np.ndarray) -> None:
    if self._lists.is_over or not self._is_list:
      return
    good = _mask(pc.match_substring_regex(cells, _LIST))
    if not good.any():
      self._lists.add(cells, counts, good)
      return
    some = cells.filter(pa.array(good))
    values = None
    if pc.any(pc.match_substring_regex(some, _LONG), min_count=0).as_py() is not True:
      values = _json_lists(some, None)
    if values is not None:
      self._list_type = _unified(self._list_type, values.type)
      self._is_list = self._list_type is not None
      self._lists.add(cells, counts, good)
      return
    for place in np.flatnonzero(good):
      try:
        value = parse_list(cells[int(place)].as_py())
        self._list_type = _unified(self._list_type, pa.array([value]).type)
      except READ_ERRORS:
        good[place] = False
      if self._list_type is None:
        self._is_list = False
        return
    self._lists.add(cells, counts, good)

  def _add_vectors(self, cells: pa.Array, counts: np.ndarray) -> None:
    number = _MARKS[".", ""].strip("^$")
    for mark, tally in self._vectors.items():
      if tally.is_over:
        continue
      between = r"\s+" if mark == " " else rf"\s*{re.escape(mark)}\s*"
      some = rf"^\[?\s*{number}(?:{between}{number})+\s*\]?$"
      good = _mask(pc.match_substring_regex(cells, some))
      tally.add(cells, counts, good)
      if good.any():
        there = cells.filter(pa.array(good))
        sizes = pc.count_substring_regex(there, between).to_numpy() + 1
        if mark == " ":
          bare = pc.replace_substring_regex(there, r"^[\[(]\s*|\s*[\])]$", "")
          sizes = pc.count_substring_regex(bare, between).to_numpy() + 1
        self._widths[mark].update(sizes.tolist())
        self._decimals[mark] += int(
          pc.sum(pc.match_substring_regex(there, r"[0-9]\.[0-9]|\.[0-9]")).as_py()
        )

  @property
  def has_decimal_comma(self) -> bool:
    """Whether the numbers can only be read with a decimal comma."""
    able = self._number_marks()
    return bool(able) and all(decimal == "," for decimal, _ in able)

  def _number_marks(self) -> list[tuple[str, str]]:
    """The marks with which all cells are numbers, but for the words for missing."""
    return [marks for marks, tally in self._numbers.items() if _is_all(tally)]

  def found(self, *, decimal_comma: bool = False) -> tuple[Format, str]:
    """The format, and a sentence on what is not obvious about it ("" for nothing).

    Args:
      decimal_comma: Whether other columns of the file have one, which decides what
        1,234 is.
    """
    if not self.rows:
      return Format("text"), ""
    if form := self._boolean():
      return form, self._missing_sentence(self._booleans, "booleans")
    if marks := self._number_marks():
      return self._number(marks, decimal_comma)
    if form := self._date():
      return form
    if _is_all(self._lists) and self._list_type is not None:
      name = _list_name(self._list_type)
      if name is not None:
        return Format(name), self._missing_sentence(self._lists, "lists")
    if form := self._vector():
      return form
    return self._text()

  def _boolean(self) -> Format | None:
    pairs = [set(pair) for pair in _PAIRS]
    if not _is_all(self._booleans) or not any(self._spellings <= p for p in pairs):
      return None
    if self._spellings <= {"true", "false"}:
      return Format("boolean", missing=_seen(self._booleans))
    # "no" alone is a word, and a label of yes and no is told in these words.
    both = len(self._spellings) == 2
    return (
      Format("boolean", _seen(self._booleans)) if both and not self._is_label else None
    )

  def _number(
    self, able: Sequence[tuple[str, str]], decimal_comma: bool
  ) -> tuple[Format, str]:
    marks = able[0]
    if decimal_comma and not self._whole:
      # 1,234 and 1.234 in a file whose other columns have decimal commas.
      marks = next((some for some in able if some[0] == ","), marks)
    tally = self._numbers[marks]
    whole = self._whole and marks == (".", "")
    form = Format("integer" if whole else "number", _seen(tally), *marks)
    parts = []
    if self._signed:
      parts.append("with " + " and ".join(f"{sign!r}" for sign in sorted(self._signed)))
    if marks[1]:
      parts.append(f"with {marks[1]!r} between thousands")
    if marks[0] == ",":
      parts.append("with a decimal comma")
    sentence = ""
    if parts:
      sentence = f"numbers {', '.join(parts)}, as in {shorten(self._sample)}"
    if (".", ",") in able and (",", "") in able and (".", "") not in able:
      one = "thousands" if marks[0] == "." else "decimals"
      sentence += f"; the comma could mark thousands or decimals, it is read as {one}"
    missing = self._missing_sentence(tally, "numbers")
    return form, "; ".join(filter(None, [sentence, missing]))

  def _date(self) -> tuple[Format, str] | None:
    able = [order for order, tally in self._dates.items() if _is_all(tally)]
    if not able:
      return None
    tally = self._dates[able[0]]
    name = {frozenset(): "date", frozenset({"time"}): "time"}.get(
      frozenset(self._timed), "time with zone"
    )
    missing = self._missing_sentence(tally, "dates")
    if "dmy" in able and "mdy" in able and "ymd" not in able:
      return (
        Format("text"),
        f"dates whose order is not clear: {shorten(self._sample)} can be day/month or"
        " month/day in every row; say which with --dates=dmy or --dates=mdy, or set"
        ' "type": "date" and "order" in the spec',
      )
    words = {"ymd": "", "dmy": "day first", "mdy": "month first"}[able[0]]
    sentence = f"dates, {words}, as in {shorten(self._sample)}" if words else ""
    return (
      Format(name, _seen(tally), order=able[0]),
      "; ".join(filter(None, [sentence, missing])),
    )

  @property
  def is_ambiguous_date(self) -> bool:
    """Whether each cell is a date whichever of day and month comes first."""
    able = [order for order, tally in self._dates.items() if _is_all(tally)]
    return self.rows > 0 and "dmy" in able and "mdy" in able and "ymd" not in able

  def found_date(self, order: str) -> tuple[Format, str]:
    """The format of a column whose dates could be in two orders."""
    name = "time with zone" if "zone" in self._timed else "time"
    name = name if self._timed else "date"
    first = "day" if order == "dmy" else "month"
    sentence = f"dates, {first} first as told, as in {shorten(self._sample)}"
    return Format(name, _seen(self._dates[order]), order=order), sentence

  def _vector(self) -> tuple[Format, str] | None:
    for mark, tally in self._vectors.items():
      if not _is_all(tally):
        continue
      measures = self._decimals[mark] > 0
      # "3,5" is one number where others are.
      if mark == "," and any(numbers.fits for numbers in self._numbers.values()):
        continue
      same = len(self._widths[mark]) == 1
      if mark == "," and not measures:
        continue
      if measures or (same and max(self._widths[mark]) > 3):
        sizes = sorted(self._widths[mark])
        many = str(sizes[0]) if same else f"{sizes[0]} to {sizes[-1]}"
        shown = "spaces" if mark == " " else repr(mark)
        return (
          Format("list of numbers", _seen(tally), separator=mark),
          f"lists of {many} numbers with {shown} between them, as in"
          f" {shorten(self._sample)}",
        )
    return None

  def _text(self) -> tuple[Format, str]:
    sentence = ""
    families = {
      "numbers": max(self._numbers.values(), key=lambda tally: tally.fits),
      "dates": max(self._dates.values(), key=lambda tally: tally.fits),
      "lists": self._lists,
    }
    for name, tally in families.items():
      if tally.fits >= _MOSTLY * self.rows and not tally.is_over:
        others = _shown(tally.others)
        sentence = (
          f"{tally.fits / self.rows:.0%} are {name}; the others are {others}: read as"
          ' text. If these mean that there is no value, add them to "missing" of the'
          " column"
        )
        break
    # Categories are few words, each of them often.
    if self._parts <= 2 * self.rows and self._different <= 0.5 * self.rows:
      words = {w: n for w, n in self._words.items() if w.lower() in _NEVER_A_CATEGORY}
      if words and len(self._words) < max(self._different, 2):
        gone = f"{_shown(words)} read as missing"
        return (
          Format("text", tuple(sorted(words))),
          "; ".join(filter(None, [sentence, gone])),
        )
    return Format("text"), sentence

  def _missing_sentence(self, tally: _Tally, name: str) -> str:
    if not tally.others:
      return ""
    share = tally.fits / self.rows
    percent = f"{share:.0%}" if share < 0.995 else f"{share:.2%}"
    return (
      f"{percent} are {name}; the others are {_shown(tally.others)}: read as missing"
    )


def _is_finite(cells: pa.Array) -> bool:
  """Whether no number is beyond float64; one that is written as infinite may be."""
  try:
    _cast(cells, pa.float64())
  except READ_ERRORS:
    return False
  return True


def _mask(array: pa.Array) -> np.ndarray:
  return np.array(array.to_numpy(zero_copy_only=False), bool)


def _is_all(tally: _Tally) -> bool:
  """Whether a way of writing fits all cells but words for missing."""
  if not tally.fits or tally.is_over:
    return False
  return all(text.lower() in MISSING for text in tally.others)


def _seen(tally: _Tally) -> tuple[str, ...]:
  return tuple(sorted(tally.others))


def _shown(words: Mapping[str, int], most: int = 5) -> str:
  ranked = sorted(words.items(), key=lambda item: (-item[1], item[0]))
  shown = ", ".join(f"{shorten(word)} ({count:,})" for word, count in ranked[:most])
  more = len(ranked) - most
  return shown + (f" and {more} more" if more > 0 else "")


def _unified(known: pa.DataType, found: pa.DataType) -> pa.DataType | None:
  """The type of lists of both types; None if there is none."""
  is_a = pa.types
  if known == found or is_a.is_null(found):
    return known
  if is_a.is_null(known):
    return found
  if is_a.is_list(known) and is_a.is_list(found):
    inner = _unified(known.value_type, found.value_type)
    return None if inner is None else pa.list_(inner)
  numbers = [is_a.is_integer(k) or is_a.is_floating(k) for k in (known, found)]
  return pa.float64() if all(numbers) else None


def _list_name(kind: pa.DataType) -> str | None:
  """The key of `TYPES` for a type of lists."""
  wide = _widened(kind) if pa.types.is_list(kind) else None
  return next((name for name, known in TYPES.items() if known == wide), None)
