"""Numbers in strings, with the marks and signs that people write."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.data.ingest.files.source import READ_ERRORS, check_all

CURRENCY = r"(?:US\$|R\$|[$€£¥₹₽₩₺₪]|USD|EUR|GBP|CHF|JPY|kr\.?|Rs\.?)"
_BEFORE = rf"^(\(?)([+-]?)\s*(?:{CURRENCY}\s*)?([+-]?)\s*(\.?[0-9])"
_AFTER = rf"\s*(?:{CURRENCY}|%)?\s*\)?$"
_POWER = "(?:[eE][+-]?[0-9]+)?"
_WHOLE = "(?:0|[1-9][0-9]*)"
_SHORT = "(?:0|[1-9][0-9]{0,17})"
INTEGER = rf"^[+-]?{_WHOLE}$"
# An integer of 19 digits is a name, or fits in int64: as a float it may lose digits.
_PLAIN = rf"(?:{_SHORT}|{_WHOLE}\.[0-9]*|\.[0-9]+){_POWER}"
_NAMED = "(?i:inf(?:inity)?|nan)"
SIMPLE = rf"^[+-]?(?:{_PLAIN}|{_NAMED})$"
_SPACE = "[ '\u2019\u00a0\u202f]"


def _marked(decimal: str, thousands: str) -> str:
  """The pattern of numbers with these marks."""
  between = {"": "", " ": _SPACE}.get(thousands, re.escape(thousands))
  groups = rf"|[1-9][0-9]{{0,2}}(?:{between}[0-9]{{3}})+" if between else ""
  return rf"^[+-]?(?:{_SHORT}{groups})(?:{re.escape(decimal)}[0-9]*)?$"


# Marks of decimals and of thousands, with the pattern of such numbers.
MARKS: Mapping[tuple[str, str], str] = {
  (".", ""): rf"^[+-]?{_PLAIN}$",
  **{
    marks: _marked(*marks)
    for marks in ((".", ","), (",", ""), (",", "."), (".", " "), (",", " "))
  },
}


def parse(cells: pa.Array, kind: pa.DataType, decimal: str, thousands: str) -> pa.Array:
  """Parse the numbers in strings.

  Args:
    cells: Strings.
    kind: int64 or float64.
    decimal: Mark of decimals.
    thousands: Mark of thousands; the two are a key of `MARKS`.

  Raises:
    pa.ArrowInvalid: A string is not such a number.
  """
  if (decimal, thousands) == (".", ""):
    try:
      return cast(cells, kind)
    except READ_ERRORS:
      pass  # There may be a sign of a currency.
  cells = without_signs(cells)
  # "2e308" is beyond float64, and must not become infinite.
  fits = pc.match_substring_regex(cells, MARKS[decimal, thousands])
  named = pc.match_substring_regex(cells, rf"^[+-]?{_NAMED}$")
  check_all(pc.or_(fits, named))
  if thousands:
    mark = _SPACE if thousands == " " else re.escape(thousands)
    cells = pc.replace_substring_regex(cells, mark, "")
  return cast(pc.replace_substring(cells, decimal, "."), kind)


def cast(cells: pa.Array, kind: pa.DataType) -> pa.Array:
  """Parse numbers with a decimal point, and without marks of thousands.

  Raises:
    pa.ArrowInvalid: A string is not such a number, or is beyond the type.
  """
  cells = pc.replace_substring_regex(cells, r"^\+", "")
  if not pa.types.is_integer(kind):
    values = cells.cast(pa.float64())
    named = pc.match_substring(cells, "inf", ignore_case=True)
    check_all(pc.or_(pc.invert(pc.is_inf(values)), named))
    return values
  try:
    return cells.cast(kind)
  except READ_ERRORS:
    # 20095.0, as pandas writes integers of a column with gaps.
    check_all(pc.match_substring_regex(cells, r"^-?[0-9]{1,15}(?:\.0*)?$"))
    return cells.cast(pa.float64()).cast(kind)


def without_signs(cells: pa.Array) -> pa.Array:
  """Numbers without signs of currencies and percent; minus for parentheses."""
  negative = pc.match_substring_regex(cells, r"^\(.*\)$")
  cells = pc.replace_substring(cells, "\u2212", "-")
  cells = pc.replace_substring_regex(cells, _BEFORE, r"\2\3\4")
  cells = pc.replace_substring_regex(cells, _AFTER, "")
  return pc.if_else(negative, pc.binary_join_element_wise("-", cells, ""), cells)
