"""Lines of JSON: parsed a block at a time, and looked at one by one if one is bad."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from deepsets_jax.data.files import json_types
from deepsets_jax.data.files.source import READ_ERRORS, reason, shorten
from deepsets_jax.data.table import DataError

_INT64 = 1 << 63


class Rows(NamedTuple):
  """Where a block of lines stands in its file.

  Attributes:
    where: The file.
    row: Of the first row of the block.
    line: Before the block's first.
  """

  where: str
  row: int
  line: int


def infer(block: bytes, known: pa.StructType, rows: Rows) -> tuple[pa.StructType, int]:
  """The type of the rows of a block and of those before it, and the block's length.

  Args:
    block: Whole lines.
    known: The type of the rows before it.
    rows: Where it stands.

  Raises:
    DataError: A line is not one JSON object, or has a value of a type of its own.
  """
  count = json_types.count_rows(block)
  try:
    if json_types.is_deep(block) or json_types.has_null_line(block):
      raise ValueError("nested too deep, or null")
    block.decode()
    table = json_types.parse(block)
    found = json_types.unify(known, pa.struct(table.schema))
    if table.num_rows != count:
      raise ValueError("rows are not lines")
  except READ_ERRORS as error:
    look_at_lines(block, known, rows)
    raise DataError(
      f"{rows.where}, rows {rows.row} to {rows.row + count - 1}: {reason(error)}; write"
      " one JSON object a line"
    ) from error
  if json_types.has_long_integer(block):
    look_at_lines(block, known, rows)
  return found, count


def look_at_lines(block: bytes, known: pa.DataType, rows: Rows) -> None:
  """Raises the `DataError` of the first bad line, if there is one. Slow."""
  row = rows.row
  for number, line in enumerate(block.split(b"\n"), start=rows.line + 1):
    if not line.strip():
      continue
    where = f"{rows.where}, row {row} (line {number})"
    value = decode(line, where)
    try:
      known = json_types.unify(known, json_types.type_of(value))
    except json_types.Difference as error:
      column = error.path.partition("[")[0]
      raise DataError(
        f"{where}, column {column!r}: {_differing(value, error)} is {error.found}, in"
        f" the rows before it {error.wanted}{_place(error.path)}; write all values of a"
        " column as one type"
      ) from error
    row += 1


def decode(line: bytes, where: str) -> dict[str, Any]:
  """The object in a line.

  Raises:
    DataError: There is none, or one that would not be read as it stands.
  """
  try:
    text = line.decode()
    value = json.loads(text, **_hooks(where))
    # Half of a pair of surrogates is JSON, and no character.
    if "\\u" in text:
      json.dumps(value, ensure_ascii=False).encode()
  except UnicodeError as error:
    raise DataError(
      f"{where}: {shorten(line)} is not UTF-8 ({error}); convert the file, or leave the"
      " value out"
    ) from error
  except RecursionError as error:
    raise DataError(f"{where}: nested too deep; flatten it") from error
  except json.JSONDecodeError as error:
    raise DataError(
      f"{where}: {shorten(text)} is not one JSON object ({error.msg}); write one object"
      " a line (jq -c . does it)"
    ) from error
  if not isinstance(value, dict):
    raise DataError(
      f"{where}: {shorten(text)} is not an object; write one a line, as"
      ' {"column": value}'
    )
  if json_types.is_deep(line):
    raise DataError(f"{where}: nested too deep; flatten it")
  return value


def _hooks(where: str) -> dict[str, Callable]:
  """What `json` is to make of objects and numbers, so that nothing is lost."""

  def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) < len(items):
      keys = [key for key, _ in items]
      twice = next(key for key in keys if keys.count(key) > 1)
      raise DataError(f"{where}: key {twice!r} is there twice; leave one out")
    return found

  def integer(digits: str) -> int:
    if len(digits) > 20 or not -_INT64 <= int(digits) < _INT64:
      raise DataError(
        f"{where}: {shorten(digits)} does not fit in an integer of 64 bits; write"
        " a name as a string, a measurement with a point"
      )
    return int(digits)

  def number(digits: str) -> float:
    if math.isinf(value := float(digits)):
      raise DataError(
        f"{where}: {shorten(digits)} does not fit in a number of 64 bits; leave it out"
      )
    return value

  return {"object_pairs_hook": pairs, "parse_int": integer, "parse_float": number}


def _place(path: str) -> str:
  return f" (at {path!r})" if "[" in path else ""


def _differing(row: dict[str, Any], error: json_types.Difference) -> str:
  """The first value of the type that differs."""
  values = _values_at(row, re.split(r"\.|(?=\[)", error.path))
  return shorten(next((v for v in values if json_types.type_of(v) == error.found), row))


def _values_at(value: Any, parts: Sequence[str]) -> Iterator[Any]:
  """The values at a path, of which a list has many."""
  if not parts:
    yield value
  elif parts[0] == "[]" and isinstance(value, list):
    for item in value:
      yield from _values_at(item, parts[1:])
  elif isinstance(value, dict) and parts[0] in value:
    yield from _values_at(value[parts[0]], parts[1:])
