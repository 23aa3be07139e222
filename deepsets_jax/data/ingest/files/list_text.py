"""Lists in strings, as JSON, Python and numpy write them."""

from __future__ import annotations

import ast
import functools
import json
import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from deepsets_jax.data.ingest.files.source import READ_ERRORS, check_all, shorten

PATTERN = r"(?s)^(?:\[.*\]|\(.*\)|\{.*\})$"
# An integer that may not fit in 64 bits, and that a parser makes a float of.
LONG = r"(?:^|[^0-9.])[0-9]{19}"


def parse(cells: pa.Array, kind: pa.DataType) -> pa.Array:
  """The lists in strings.

  Args:
    cells: Strings.
    kind: Type of the lists.

  Raises:
    pa.ArrowInvalid: A string is no list, or has elements of another type.
  """
  if (values := parse_json(cells, kind)) is not None:
    return values
  check_all(pc.match_substring_regex(cells, PATTERN))
  values = [None if text is None else parse_one(text) for text in cells.to_pylist()]
  if pa.types.is_string(_innermost(kind)):
    values = [_as_texts(value) for value in values]
  return pa.array(values, kind)


def parse_json(cells: pa.Array, kind: pa.DataType | None) -> pa.Array | None:
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
    if table.column_names != ["v"] or table.num_rows != len(cells):
      return None
    # Lists of nothing but null are broken in some versions of Arrow.
    return table["v"].combine_chunks()
  except READ_ERRORS:
    return None


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


def parse_one(text: str) -> list:
  """The list that a text is, as JSON, Python or numpy write it.

  Raises:
    pa.ArrowInvalid: It is not a list.
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


def unified(known: pa.DataType, found: pa.DataType) -> pa.DataType | None:
  """The type of lists of both types; None if there is none."""
  is_a = pa.types
  if known == found or is_a.is_null(found):
    return known
  if is_a.is_null(known):
    return found
  if is_a.is_list(known) and is_a.is_list(found):
    inner = unified(known.value_type, found.value_type)
    return None if inner is None else pa.list_(inner)
  numbers = [is_a.is_integer(k) or is_a.is_floating(k) for k in (known, found)]
  return pa.float64() if all(numbers) else None


def widened(kind: pa.DataType) -> pa.DataType:
  """The type of `TYPES` that holds the values of another."""
  is_a = pa.types
  if is_a.is_list(kind) or is_a.is_fixed_size_list(kind):
    inner = widened(kind.value_type)
    nested = is_a.is_list(inner)
    return pa.list_(inner if not nested else pa.list_(_float(inner.value_type)))
  if is_a.is_integer(kind):
    return pa.int64()
  if is_a.is_floating(kind) or is_a.is_decimal(kind):
    return pa.float64()
  return pa.string() if is_a.is_null(kind) else kind


def _float(kind: pa.DataType) -> pa.DataType:
  return pa.float64() if pa.types.is_integer(kind) else kind
