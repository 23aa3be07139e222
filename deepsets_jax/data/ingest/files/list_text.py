"""Lists in strings, as JSON, Python and numpy write them."""

from __future__ import annotations

import ast
import contextlib
import functools
import json
import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from deepsets_jax.data.ingest.files.source import READ_ERRORS, check_all, shorten

PATTERN = r"(?s)^(?:\[.*\]|\(.*\)|\{.*\})$"
# An integer that may not fit in 64 bits, of which Arrow's parser would make a float.
LONG = r"(?:^|[^0-9.])[0-9]{19}"


def parse(cells: pa.Array, kind: pa.DataType) -> pa.Array:
  """Parse the lists in strings.

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
  innermost = kind
  while pa.types.is_list(innermost):
    innermost = innermost.value_type
  return pa.array(_as_texts(values) if pa.types.is_string(innermost) else values, kind)


def parse_json(cells: pa.Array, kind: pa.DataType | None) -> pa.Array | None:
  """Parse lists in JSON, all at once.

  Args:
    cells: Strings.
    kind: Type of the lists; None to find it.

  Returns:
    The lists; None if `parse_one` may be able to read what Arrow's parser is not.
  """
  # A parser must not recurse too deep, nor take the end of a cell for that of a line.
  odd = pc.match_substring_regex(cells, r"[\n\r]|^[^\[]|\[\s*\[\s*\[")
  if not len(cells) or pc.any(odd, min_count=0).as_py():
    return None
  texts = pc.binary_join_element_wise('{"v":', pc.fill_null(cells, "null"), "}\n", "")
  data = pc.binary_join(pa.ListArray.from_arrays([0, len(texts)], texts), "")[0]
  options = pj.ParseOptions(
    explicit_schema=None if kind is None else pa.schema([("v", kind)]),
    unexpected_field_behavior="infer" if kind is None else "error",
  )
  try:
    read = pj.ReadOptions(use_threads=False, block_size=len(data.as_py()) + 1)
    table = pj.read_json(pa.BufferReader(data.as_buffer()), read, options)
    if table.column_names != ["v"] or table.num_rows != len(cells):
      return None
    # Lists of nothing but null are broken in some versions of Arrow.
    return table["v"].combine_chunks()
  except READ_ERRORS:
    return None


def parse_one(text: str) -> list:
  """Parse a list as JSON, Python or numpy write it.

  Raises:
    pa.ArrowInvalid: It is not a list.
  """
  try:
    value = json.loads(text)
  except (ValueError, RecursionError):
    value = _literal(text)
  value = _as_list(value)
  if not isinstance(value, list):
    raise pa.ArrowInvalid(f"{shorten(text)} is not a list")
  return value


def _as_texts(value: Any) -> Any:
  if isinstance(value, list):
    return [_as_texts(item) for item in value]
  return value if value is None or isinstance(value, str) else json.dumps(value)


@functools.lru_cache(maxsize=4096)
def _literal(text: str) -> Any:
  """The value of a Python literal, or of an array that numpy printed, else None."""
  with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
    return ast.literal_eval(text)
  body = re.sub(r"^array\(|(?:, dtype=\w+)?\)$", "", text.strip())
  if re.fullmatch(r"[\[\]\s0-9.eE+\-,nainf]*", body):
    joined = re.sub(r"(?<=[0-9.\]nf])\s+(?=[\[0-9.+\-ni])", ", ", body)
    with contextlib.suppress(ValueError):
      return json.loads(re.sub(r"(\d)\.(?=[,\]\s])", r"\1.0", joined))
  return None


def _as_list(value: Any) -> Any:
  """The value with tuples and sets, at any depth, as lists."""
  if isinstance(value, set | frozenset):
    value = sorted(value, key=str)
  if isinstance(value, list | tuple):
    return [_as_list(item) for item in value]
  return value


def common_type(known: pa.DataType, found: pa.DataType) -> pa.DataType | None:
  """The type of lists of both types; None if there is none."""
  is_a = pa.types
  if known == found or is_a.is_null(found):
    return known
  if is_a.is_null(known):
    return found
  if is_a.is_list(known) and is_a.is_list(found):
    inner = common_type(known.value_type, found.value_type)
    return None if inner is None else pa.list_(inner)
  numbers = [is_a.is_integer(k) or is_a.is_floating(k) for k in (known, found)]
  return pa.float64() if all(numbers) else None
