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
# An integer of 19 digits may lose some as a float: it is a name, or fits in int64.
_PLAIN = rf"(?:{_SHORT}|{_WHOLE}\.[0-9]*|\.[0-9]+){_POWER}"
SIMPLE = rf"^[+-]?(?:{_PLAIN}|(?i:inf(?:inity)?|nan))$"
_SPACE = "[ '\u2019\u00a0\u202f]"
_SPACED = rf"[1-9][0-9]{{0,2}}(?:{_SPACE}[0-9]{{3}})+"
# Marks of decimals and of thousands, with what a number is then written as.
MARKS: Mapping[tuple[str, str], str] = {
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


def parse(cells: pa.Array, kind: pa.DataType, decimal: str, thousands: str) -> pa.Array:
  """The numbers in strings.

  Args:
    cells: Strings.
    kind: int64 or float64.
    decimal, thousands: Marks, a key of `MARKS`.

  Raises:
    pa.ArrowInvalid: A string is not such a number.
  """
  if (decimal, thousands) == (".", ""):
    try:
      return cast(cells, kind)
    except READ_ERRORS:
      pass  # A sign of a currency, say.
  cells = without_signs(cells)
  # "2e308" is beyond float64, and must not become infinite.
  fits = pc.match_substring_regex(cells, MARKS[decimal, thousands])
  named = pc.match_substring_regex(cells, r"^[+-]?(?i:inf(?:inity)?|nan)$")
  check_all(pc.or_(fits, named))
  if thousands:
    mark = _SPACE if thousands == " " else re.escape(thousands)
    cells = pc.replace_substring_regex(cells, mark, "")
  if decimal != ".":
    cells = pc.replace_substring(cells, decimal, ".")
  return cast(cells, kind)


def cast(cells: pa.Array, kind: pa.DataType) -> pa.Array:
  """Numbers with a decimal point, and without marks between thousands.

  Raises:
    pa.ArrowInvalid: A string is no such number, or is beyond the type.
  """
  cells = pc.replace_substring_regex(cells, r"^\+", "")
  if not pa.types.is_integer(kind):
    values = cells.cast(pa.float64())
    infinite = pc.is_inf(values)
    if pc.any(infinite, min_count=0).as_py():
      named = pc.match_substring(cells, "inf", ignore_case=True)
      check_all(pc.or_(pc.invert(infinite), named))
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
  if pc.any(negative, min_count=0).as_py():
    cells = pc.if_else(negative, pc.binary_join_element_wise("-", cells, ""), cells)
  return cells


def are_finite(cells: pa.Array) -> bool:
  """Whether no number is beyond float64; one that is written as infinite may be."""
  try:
    cast(cells, pa.float64())
  except READ_ERRORS:
    return False
  return True
