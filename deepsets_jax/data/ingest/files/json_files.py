"""JSON lines as a `Source`, read by DuckDB: an object a line, or one array of objects.

A key that an object lacks is null. An object within an object becomes a column for each
of its keys, `outer.inner`. Values of several types in one column, such as 41 and "NA",
are read as strings.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from deepsets_jax.data.ingest.files import duck, source
from deepsets_jax.data.ingest.files.plain import Layout
from deepsets_jax.data.ingest.files.source import READ_ERRORS, reason, shorten
from deepsets_jax.data.ingest.files.text_files import beginning, open_text
from deepsets_jax.foundation.errors import DataError

_LARGEST_OBJECT = 1 << 24
_INT64 = 1 << 63


class JsonSource(source.Source):
  """A file of JSON objects, with the columns and types of all files of the table."""

  def __init__(self, where: str, columns: Mapping[str, Any], is_array: bool):
    """Open a file without reading it.

    Args:
      where: Path.
      columns: Keys of the objects, and their types in DuckDB.
      is_array: Whether the file is one array.

    Raises:
      DataError: Two columns of one name.
    """
    self.where, self._is_array = where, is_array
    types = (f"{duck.text(k)}: {duck.text(str(t))}" for k, t in columns.items())
    self._reader = _reader([where], is_array, f"columns={{{', '.join(types)}}}")
    names = {key: duck.name(key) for key in columns}
    self._picked = {
      k: f"{_plain(names[k], t)} AS {names[k]}" for k, t in columns.items()
    }
    self._layout = Layout.of(where, duck.schema(self._query(columns)))
    self.schema = self._layout.schema

  def _query(self, keys: Iterable[str]) -> str:
    picked = ", ".join(self._picked[key] for key in keys) or "1"
    return f"SELECT {picked} FROM {self._reader}"

  def _line(self, row: int) -> int | None:
    lines = () if self._is_array else _lines(self.where)
    return next((line for n, line, _ in lines if n == row), None)

  def _stream(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    row = 0
    try:
      for batch in duck.stream(self._query(self._layout.roots(names))):
        for piece in self._layout.read(batch, names, row):
          self._check_integers(piece, row)
          yield piece
          row += piece.num_rows
    except DataError:
      raise
    except READ_ERRORS as error:
      raise _explained([self.where], error) from error

  def _check_integers(self, batch: pa.RecordBatch, row: int) -> None:
    """Raises for a long integer that became a float, and lost digits."""
    for field, column in zip(batch.schema, batch.columns, strict=True):
      if not pa.types.is_float64(field.type):
        continue
      values = column.to_numpy(zero_copy_only=False)
      for index in (abs(values) >= _INT64).nonzero()[0][:1].tolist():
        if self._is_array:
          with open_text(self.where) as file:
            fault = _fault(file.read(), list)
        else:
          texts = (text for n, _, text in _lines(self.where) if n == row + index)
          fault = _fault(next(texts, ""))
        if fault:
          raise DataError(f"{self.at(row + index)}, column {field.name!r}: {fault}")


def open_files(paths: Sequence[str]) -> list[JsonSource]:
  """Open files with the types that all their objects have together.

  Raises:
    DataError: A line is not one object, or a column has lists and other values.
  """
  is_array = beginning(paths[0]).lstrip()[:1] == "["
  reader = _reader(paths, is_array, "sample_size=-1, union_by_name=true")
  try:
    found = duck.connect().sql(f"SELECT * FROM {reader}")
    types = dict(zip(found.columns, found.types, strict=True))
  except READ_ERRORS as error:
    raise _explained(paths, error) from error
  _check_renamed(paths[0], list(types))
  for key, kind in types.items():
    if str(kind) in ("JSON", "JSON[]"):
      _check_mixed(paths, reader, key, is_list=str(kind) == "JSON[]")
  return [JsonSource(path, types, is_array) for path in paths]


def _reader(paths: Sequence[str], is_array: bool, more: str) -> str:
  """The call in SQL that reads the files."""
  files = ", ".join(map(duck.path, paths))
  form = "array" if is_array else "newline_delimited"
  return (
    f"read_json([{files}], format='{form}', records=true, maximum_depth=-1,"
    f" map_inference_threshold=-1, maximum_object_size={_LARGEST_OBJECT}, {more})"
  )


def _plain(sql: str, kind: Any) -> str:
  """SQL for values of a type, so that JSON, UUID and TIME become strings."""
  text = str(kind)
  if kind.id == "struct":
    names = ((duck.name(key), inner) for key, inner in kind.children)
    fields = (f"{name} := {_plain(f'{sql}.{name}', inner)}" for name, inner in names)
    return f"struct_pack({', '.join(fields)})"
  if text == "JSON":
    return f"({sql} ->> '$')"
  if text in ("UUID", "TIME"):
    return f"{sql}::VARCHAR"
  # Integers of both signs are huge ones to DuckDB.
  if (narrow := re.sub(r"\b(UHUGE|HUGE|UBIG)INT\b", "BIGINT", text)) != text:
    return f"{sql}::{narrow}"
  if kind.id == "list" and str(kind.children[0][1]) in ("JSON", "UUID", "TIME"):
    inner = _plain("x", kind.children[0][1])
    return f"list_transform({sql}, lambda x: {inner})"
  return sql


def _check_renamed(where: str, keys: Sequence[str]) -> None:
  """Raises where DuckDB gave a key another name, as it takes "a" and "A" for one."""
  lower = {key.lower(): key for key in keys}
  for key in keys:
    match = re.fullmatch(r"(.+)_\d+", key)
    if match and match[1].lower() in lower and match[1] not in keys:
      raise DataError(
        f"{where}: keys {lower[match[1].lower()]!r} and {match[1]!r} differ only in"
        " case; rename one"
      )


def _check_mixed(paths: Sequence[str], reader: str, key: str, is_list: bool) -> None:
  """Raises where a column, or its lists, has lists or objects beside other values."""
  values = f"unnest({duck.name(key)})" if is_list else duck.name(key)
  counts = duck.connect().sql(
    f"SELECT t, count(*) FROM (SELECT json_type(x) AS t FROM (SELECT {values} AS x FROM"
    f" {reader})) WHERE t <> 'NULL' GROUP BY t"
  )
  types = dict(counts.fetchall())
  if len(types) == 1 or not types.keys() & {"ARRAY", "OBJECT"}:
    return
  most = max(types, key=lambda t: types[t])
  row = _first_of_other_type(paths, key, most in ("ARRAY", "OBJECT"), is_list)
  raise DataError(
    f"{row}, column {key!r}: lists or objects and other values in one column"
    f" ({', '.join(f'{t.lower()} {n:,}' for t, n in sorted(types.items()))}); write"
    " all values of a column as one type"
  )


def _first_of_other_type(
  paths: Sequence[str], key: str, nested: bool, is_list: bool
) -> str:
  """The first row with a value, or element of a list, that is nested or not."""
  # A file that is one array has no row a line, which is a `JSONDecodeError`.
  with contextlib.suppress(json.JSONDecodeError):
    for where in paths:
      for row, _, text in _lines(where):
        value = json.loads(text).get(key)
        for one in (value or []) if is_list else [value]:
          if one is not None and isinstance(one, list | dict) != nested:
            return f"{where}, row {row}"
  return paths[0]


def _lines(where: str) -> Iterator[tuple[int, int, str]]:
  """Row, line from 1 on, and text of each line that is not blank."""
  with open_text(where) as file:
    filled = ((n, text) for n, text in enumerate(file, 1) if text.strip())
    for row, (line, text) in enumerate(filled):
      yield row, line, text


def _explained(paths: Sequence[str], error: Exception) -> DataError:
  """The error with the row of the first line that is not one object."""
  for where in paths:
    try:
      for row, line, text in _lines(where):
        if fault := _fault(text):
          return DataError(f"{where}, row {row} (line {line}): {fault}")
    except READ_ERRORS as fault:
      return DataError(f"{where} cannot be read ({reason(fault)}); {source.DAMAGED}")
  if "non-record" in str(error):
    return DataError(f"{paths[0]} has no columns; write one JSON object a line")
  return DataError(
    f"{paths[0]} cannot be read ({reason(error)}); write one JSON object a line"
  )


def _fault(text: str, expected: type = dict) -> str:
  """Why a line is not one JSON object that can be read; "" if it is."""
  shown = shorten(text.strip())
  try:
    text.encode()
    value = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    json.dumps(value, ensure_ascii=False).encode()
  except UnicodeError as error:
    return f"{shown} is not UTF-8 ({error}); convert the file"
  except json.JSONDecodeError as error:
    return (
      f"{shown} is not one JSON object ({error.msg}); write one object a line (jq -c ."
      " does it)"
    )
  except RecursionError:
    return "values are nested too deep; flatten them"
  except ValueError as error:
    return str(error)
  if not isinstance(value, expected):
    return f'{shown} is not an object; write one a line, as {{"column": value}}'
  return ""


def _object(items: list[tuple[str, Any]]) -> dict[str, Any]:
  """A JSON object whose keys are different and not empty."""
  keys = [key for key, _ in items]
  for place, key in enumerate(keys):
    if key in keys[:place]:
      raise DataError(f"key {key!r} is there twice; leave one out")
    if not key:
      raise DataError("a key is empty; name it, or leave it out")
  return dict(items)


def _integer(digits: str) -> int:
  """A JSON integer that fits in 64 bits."""
  if len(digits) > 20 or not -_INT64 <= int(digits) < _INT64:
    raise DataError(
      f"{shorten(digits)} does not fit in an integer of 64 bits; write a name as a"
      " string, a measurement with a point"
    )
  return int(digits)
