"""The types of the values in JSON lines, the same for all the lines of a file.

An integer and a number with a point have the type of the latter, null any type; a
string with a date or time in ISO form is a time where all of its column are. Nothing
else differs within a column, at any level.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from deepsets_jax.data.files.plain import is_list

# Nested deeper than any data is; a parser may recurse.
_DEEPEST = 64
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}\n"))
_LONG_INTEGER = re.compile(rb"[:\[,]\s*-?[0-9]{19}")
# Every digit to 0, and what is neither a digit nor a point to a space.
_DIGITS = bytes(
  ord("0" if chr(byte).isdecimal() else "." if chr(byte) == "." else " ")
  for byte in range(128)
).ljust(256)
_NULL_LINE = re.compile(rb"(?m)^[ \t]*null[ \t\r]*$")


class Difference(ValueError):
  """Two values of one column have types that are not one.

  Attributes:
    path: Of the column, and down from it.
    found: The type of the value.
    wanted: That of the values before it.
  """

  def __init__(self, path: str, found: pa.DataType, wanted: pa.DataType):
    super().__init__(f"column {path!r} is {found}, before it {wanted}")
    self.path, self.found, self.wanted = path, found, wanted


def is_deep(block: bytes) -> bool:
  """Whether values are nested deeper than a recursive reader may follow."""
  lines = block.translate(None, delete=_NO_BRACKETS).split(b"\n")
  for line in lines:
    if len(line) >= _DEEPEST:
      codes = np.frombuffer(line, np.uint8)
      opens = (codes == ord("[")) | (codes == ord("{"))
      if np.cumsum(np.where(opens, 1, -1)).max() >= _DEEPEST:
        return True
  return False


def has_long_integer(block: bytes) -> bool:
  """Whether there may be an integer of more than 64 bits."""
  if b" " + b"0" * 19 not in block.translate(_DIGITS):
    return False
  return _LONG_INTEGER.search(block) is not None


def has_null_line(block: bytes) -> bool:
  """Whether a line is null, which Arrow takes for an object without keys."""
  objects, lines = _begun(block)
  return objects < lines and _NULL_LINE.search(block) is not None


def count_rows(block: bytes) -> int:
  """Number of lines that are not blank."""
  objects, lines = _begun(block)
  if objects == lines:
    return lines
  return sum(bool(line.strip()) for line in block.split(b"\n"))


def _begun(block: bytes) -> tuple[int, int]:
  """Number of lines that begin with a brace, and of all lines."""
  objects = block.count(b"\n{") + block.startswith(b"{")
  return objects, block.count(b"\n") + (not block.endswith(b"\n"))


def parse(block: bytes, schema: pa.Schema | None = None) -> pa.Table:
  """The rows of some lines; with a schema the columns of it, without it all.

  Raises:
    pa.ArrowInvalid: A line is no JSON, or a value not of its type.
  """
  options = pj.ParseOptions(
    explicit_schema=schema,
    unexpected_field_behavior="infer" if schema is None else "ignore",
  )
  read = pj.ReadOptions(use_threads=False, block_size=len(block) + 1)
  return pj.read_json(pa.BufferReader(block), read, options)


def parsed_type(kind: pa.DataType) -> pa.DataType:
  """The type that a value is parsed as, before it becomes the one that is wanted.

  Raises:
    pa.ArrowInvalid: JSON has no such values.
  """
  is_a = pa.types
  if is_a.is_integer(kind):
    return pa.uint64() if is_a.is_uint64(kind) else pa.int64()
  if is_a.is_floating(kind):
    return pa.float64()
  if is_a.is_date(kind):
    return pa.timestamp("s")
  if is_list(kind):
    return pa.list_(parsed_type(kind.value_type))
  if is_a.is_struct(kind):
    return pa.struct([(field.name, parsed_type(field.type)) for field in kind])
  if (
    is_a.is_string(kind)
    or is_a.is_boolean(kind)
    or is_a.is_null(kind)
    or is_a.is_timestamp(kind)
    or is_a.is_decimal(kind)
  ):
    return kind
  raise pa.ArrowInvalid(f"JSON has no {kind}")


def unify(known: pa.DataType, found: pa.DataType, path: str = "") -> pa.DataType:
  """The type that values of two types have together.

  Raises:
    Difference: There is none.
  """
  is_a = pa.types
  if found == known or is_a.is_null(found):
    return known
  if is_a.is_null(known):
    return found
  kinds = (known, found)
  if all(is_a.is_integer(kind) or is_a.is_floating(kind) for kind in kinds):
    return pa.float64()
  if all(is_a.is_string(kind) or is_a.is_timestamp(kind) for kind in kinds):
    return pa.string()
  if all(map(is_a.is_list, kinds)):
    return pa.list_(unify(known.value_type, found.value_type, f"{path}[]"))
  if all(map(is_a.is_struct, kinds)):
    types = {field.name: field.type for field in known}
    for field in found:
      below = f"{path}.{field.name}" if path else field.name
      before = types.get(field.name, pa.null())
      types[field.name] = unify(before, field.type, below)
    return pa.struct(list(types.items()))
  raise Difference(path, found, known)


def type_of(value: Any, path: str = "") -> pa.DataType:
  """The type of a value as `json` reads it."""
  match value:
    case None:
      return pa.null()
    case bool():
      return pa.bool_()
    case int():
      return pa.int64()
    case float():
      return pa.float64()
    case str():
      return pa.string()
    case list():
      kind = pa.null()
      for element in value:
        kind = unify(kind, type_of(element, f"{path}[]"), f"{path}[]")
      return pa.list_(kind)
    case dict():
      return pa.struct(
        [
          (key, type_of(item, f"{path}.{key}" if path else key))
          for key, item in value.items()
        ]
      )
  raise TypeError(f"{type(value)} is no type of JSON")
