"""JSON lines as a `Source`, read by DuckDB: an object a line, or one array of objects.

A key that an object lacks is null. An object within an object becomes a column for each
of its keys, `outer.inner`. Values of several types in one column, such as 41 and "NA",
are read as strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from deepsets_jax.data.ingest.files import dialect, duck, source
from deepsets_jax.data.ingest.files.csv_files import glob_free
from deepsets_jax.data.ingest.files.plain import check_names, plain_type
from deepsets_jax.data.ingest.files.source import READ_ERRORS, reason, shorten
from deepsets_jax.foundation.errors import ConfigError, DataError

_LARGEST_OBJECT = 1 << 24
_INT64 = 1 << 63


class JsonSource(source.Streamed):
  """A file of JSON objects, all columns of the types that all objects have."""

  def __init__(self, where: str, columns: Sequence[tuple[str, str]], is_array: bool):
    """Opens a file; reads nothing.

    Args:
      where: Path.
      columns: Keys of the objects, and their types in SQL.
      is_array: Whether the file is one array.

    Raises:
      DataError: Two columns of one name.
    """
    self.where, self._columns, self._is_array = where, columns, is_array
    picked = list(_leaves(columns, where))
    check_names(where, [name for name, _ in picked])
    self._picked = dict(picked)
    listed = ", ".join(f"{sql} AS c{i}" for i, sql in enumerate(self._picked.values()))
    found = duck.connect().sql(f"SELECT {listed} FROM {self._reader()} LIMIT 0")
    types = found.to_arrow_reader(1).schema.types
    plain = [plain_type(kind) for kind in types]
    self.schema = pa.schema(list(zip(self._picked, plain, strict=True)))

  def at(self, row: int) -> str:
    """Where a row is, for messages."""
    if self._is_array:
      return f"{self.where}, row {row}"
    rows = (n for n, text in enumerate(dialect.lines_of(self.where), 1) if text.strip())
    line = next((n for i, n in enumerate(rows) if i == row), None)
    return f"{self.where}, row {row}" + (f" (line {line})" if line else "")

  def _reader(self) -> str:
    columns = ", ".join(f"{duck.text(k)}: {duck.text(t)}" for k, t in self._columns)
    return _reader([self.where], self._is_array, f", columns={{{columns}}}")

  def _read(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    picked = ", ".join(self._picked[name] for name in names) or "1"
    schema = pa.schema([self.schema.field(name) for name in names])
    row = 0
    try:
      for batch in duck.stream(
        duck.connect(), f"SELECT {picked} FROM {self._reader()}"
      ):
        if names:
          for piece in source.cut(batch):
            self._check_integers(piece, names, row)
            pairs = zip(piece.columns, schema.types, strict=True)
            arrays = [array.cast(kind) for array, kind in pairs]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
            row += piece.num_rows
        else:
          yield source.rows_only(batch.num_rows)
    except (duckdb.Error, *READ_ERRORS) as error:
      raise _explained([self.where], error) from error

  def _check_integers(
    self, batch: pa.RecordBatch, names: Sequence[str], row: int
  ) -> None:
    """Raises for a long integer that became a float, and lost digits."""
    for name, column in zip(names, batch.columns, strict=True):
      if not pa.types.is_float64(column.type):
        continue
      values = column.to_numpy(zero_copy_only=False)
      for index in (abs(values) >= _INT64).nonzero()[0][:1].tolist():
        if fault := _fault(_line_text(self.where, row + index)):
          raise DataError(f"{self.at(row + index)}, column {name!r}: {fault}")


def open_files(paths: Sequence[str]) -> list[JsonSource]:
  """Some files, of the types that all their objects have together.

  Raises:
    DataError: A line is not one object, or a column has lists and other values.
  """
  is_array = _is_array(paths[0])
  reader = _reader(paths, is_array, ", sample_size=-1, union_by_name=true")
  try:
    found = duck.connect().sql(f"SELECT * FROM {reader}")
    columns = [(k, str(t)) for k, t in zip(found.columns, found.types, strict=True)]
  except (duckdb.Error, *READ_ERRORS) as error:
    raise _explained(paths, error) from error
  _check_renamed(paths, [key for key, _ in columns])
  _check_mixed(paths, reader, columns)
  return [JsonSource(path, columns, is_array) for path in paths]


def _reader(paths: Sequence[str], is_array: bool, more: str) -> str:
  files = ", ".join(duck.text(glob_free(path)) for path in paths)
  form = "array" if is_array else "newline_delimited"
  return (
    f"read_json([{files}], format='{form}', records=true, maximum_depth=-1,"
    f" map_inference_threshold=-1, maximum_object_size={_LARGEST_OBJECT}{more})"
  )


def _is_array(path: str) -> bool:
  return dialect.beginning(path).lstrip()[:1] == "["


def _leaves(
  columns: Sequence[tuple[str, str]], where: str
) -> Iterator[tuple[str, str]]:
  """Name and expression in SQL of each column, objects opened."""
  types = duck.connect().sql(
    "SELECT " + ", ".join(f"NULL::{kind}" for _, kind in columns)
  )
  for (key, _), kind in zip(columns, types.types, strict=True):
    yield from _opened(key, duck.name(key), kind, where)


def _opened(name: str, sql: str, kind: Any, where: str) -> Iterator[tuple[str, str]]:
  if kind.id == "struct":
    for key, inner in kind.children:
      yield from _opened(f"{name}.{key}", f"{sql}.{duck.name(key)}", inner, where)
  else:
    yield name, _plain(sql, kind)


def _plain(sql: str, kind: Any) -> str:
  """The expression with values of types that are read."""
  text = str(kind)
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


def _check_renamed(paths: Sequence[str], keys: Sequence[str]) -> None:
  """Raises where DuckDB gave a key another name, as it sees "a" and "A" as one."""
  lower = {key.lower(): key for key in keys}
  for key in keys:
    match = re.fullmatch(r"(.+)_\d+", key)
    if match and match[1].lower() in lower and match[1] not in keys:
      raise DataError(
        f"{paths[0]}: keys {lower[match[1].lower()]!r} and {match[1]!r} differ only in"
        " case; rename one"
      )


def _check_mixed(
  paths: Sequence[str], reader: str, columns: Sequence[tuple[str, str]]
) -> None:
  """Raises where a column holds lists or objects beside other values."""
  for key, kind in columns:
    if kind not in ("JSON", "JSON[]"):
      continue
    name = duck.name(key) if kind == "JSON" else f"unnest({duck.name(key)})"
    counts = duck.connect().sql(
      f"SELECT t, count(*) FROM (SELECT json_type(x) AS t FROM (SELECT {name} AS x FROM"
      f" {reader})) WHERE t <> 'NULL' GROUP BY t"
    )
    types = dict(counts.fetchall())
    nested = {t for t in types if t in ("ARRAY", "OBJECT")}
    if not nested or len(types) == 1:
      continue
    most = max(types, key=lambda t: types[t])
    row = _first_of_other_type(paths, key, most in nested, kind == "JSON[]")
    raise DataError(
      f"{row}, column {key!r}: lists or objects and other values in one"
      f" column ({', '.join(f'{t.lower()} {n:,}' for t, n in sorted(types.items()))});"
      " write all values of a column as one type"
    )


def _first_of_other_type(
  paths: Sequence[str], key: str, nested: bool, inside: bool
) -> str:
  """The first row in which a value, or an element of a list, is of another type."""
  for where in paths:
    for row, line in enumerate(filter(str.strip, dialect.lines_of(where))):
      value = json.loads(line).get(key)
      for one in (value or []) if inside else [value]:
        if one is not None and isinstance(one, list | dict) != nested:
          return f"{where}, row {row}"
  return paths[0]


def _line_text(where: str, row: int) -> str:
  lines = filter(str.strip, dialect.lines_of(where))
  return next((text for i, text in enumerate(lines) if i == row), "")


def _explained(paths: Sequence[str], error: Exception) -> DataError:
  """The error with the row of the first line that is not one object."""
  for where in paths:
    if (bad := _first_bad_line(where)) is not None:
      return DataError(f"{where}{bad}")
  if "non-record" in str(error):
    return DataError(f"{paths[0]} has no columns; write one JSON object a line")
  return DataError(
    f"{paths[0]} cannot be read ({reason(error)}); write one JSON object a line"
  )


def _first_bad_line(where: str) -> str | None:
  """Row, line and fault of the first line that is not one JSON object."""
  row = 0
  try:
    for number, text in enumerate(dialect.lines_of(where), 1):
      if not text.strip():
        continue
      if fault := _fault(text):
        return f", row {row} (line {number}): {fault}"
      row += 1
  except READ_ERRORS as error:
    return (
      f" cannot be read ({reason(error)}); it is truncated or damaged, write it again"
    )
  return None


def _fault(text: str) -> str:
  """What is wrong with a line; "" for nothing."""

  def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in items]
    for place, key in enumerate(keys):
      if key in keys[:place]:
        raise ConfigError(f"key {key!r} is there twice; leave one out")
      if not key:
        raise ConfigError("a key is empty; name it, or leave it out")
    return dict(items)

  def integer(digits: str) -> int:
    if len(digits) > 20 or not -_INT64 <= int(digits) < _INT64:
      raise ConfigError(
        f"{shorten(digits)} does not fit in an integer of 64 bits; write a name as a"
        " string, a measurement with a point"
      )
    return int(digits)

  try:
    text.encode()
    value = json.loads(text, object_pairs_hook=pairs, parse_int=integer)
    json.dumps(value, ensure_ascii=False).encode()
  except UnicodeError as error:
    return f"{shorten(text.strip())} is not UTF-8 ({error}); convert the file"
  except json.JSONDecodeError as error:
    return (
      f"{shorten(text.strip())} is not one JSON object ({error.msg}); write one"
      " object a line (jq -c . does it)"
    )
  except RecursionError:
    return "values are nested too deep; flatten them"
  except ValueError as error:
    return str(error)
  if not isinstance(value, dict):
    return (
      f"{shorten(text.strip())} is not an object; write one a line, as"
      ' {"column": value}'
    )
  return ""
