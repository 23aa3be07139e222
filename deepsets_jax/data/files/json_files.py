"""JSON lines as a `Source`: an object a line, parsed in blocks, of one type."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from deepsets_jax.data.files import json_lines, json_types, source
from deepsets_jax.data.files.json_lines import Rows
from deepsets_jax.data.files.plain import Layout
from deepsets_jax.data.files.source import READ_ERRORS, first_failing, reason, shorten
from deepsets_jax.data.files.text_files import line_blocks
from deepsets_jax.data.table import DataError


class JsonLinesSource:
  """A file of JSON lines. A key that an object lacks is null."""

  def __init__(self, where: str, found: pa.Schema, num_rows: int | None = None):
    """Opens a file; reads nothing.

    Args:
      where: Path.
      found: The types of its objects.
      num_rows: Where it is known.

    Raises:
      DataError: A type cannot be written in JSON; two columns of one name.
    """
    self.where = where
    self._layout = Layout.of(where, found, None, self._at)
    self._parsed = {field.name: _parsed_type(where, field) for field in found}
    self.schema = self._layout.schema
    self.num_rows = num_rows

  def batches(
    self, columns: Sequence[str] | None = None, *, start: int = 0
  ) -> Iterator[pa.RecordBatch]:
    """As `Source` says; rows before `start` are counted, not parsed."""
    names = source.select(self.where, self.schema, columns)
    return source.joined(self._read(names, start))

  def _at(self, row: int) -> str:
    for block, rows in _blocks(self.where):
      if rows.row + json_types.count_rows(block) > row:
        lines = (i for i, line in enumerate(block.split(b"\n"), 1) if line.strip())
        line = next(itertools.islice(lines, row - rows.row, None))
        return f"{self.where}, row {row} (line {rows.line + line})"
    return f"{self.where}, row {row}"

  def _read(self, names: Sequence[str], start: int) -> Iterator[pa.RecordBatch]:
    roots = self._layout.roots(names)
    schema = pa.schema([(root, self._parsed[root]) for root in roots])
    for block, rows in _blocks(self.where):
      count = json_types.count_rows(block)
      skipped = max(start - rows.row, 0)
      if skipped >= count:
        continue
      table = self._parse(block, schema, rows, count)
      if not names:
        yield source.rows_only(count - skipped)
        continue
      row = rows.row + skipped
      for batch in table.slice(skipped).combine_chunks().to_batches():
        for piece in source.cut(batch):
          yield self._layout.read(piece, names, row)
          row += piece.num_rows

  def _parse(self, block: bytes, schema: pa.Schema, rows: Rows, count: int) -> pa.Table:
    try:
      block.decode()
      if json_types.is_deep(block):
        raise ValueError("nested too deep")
      table = json_types.parse(block, schema)
      if table.num_rows != count:
        raise ValueError("rows are not lines")
    except READ_ERRORS as error:
      self._raise_bad_line(block, schema, rows, error)
    return table

  def _raise_bad_line(
    self, block: bytes, schema: pa.Schema, rows: Rows, error: Exception
  ) -> None:
    """Raises for the first line that cannot be parsed alone."""
    lines = [(i, text) for i, text in enumerate(block.split(b"\n"), 1) if text.strip()]

    def fails(begin: int, count: int) -> bool:
      return not _parses([text for _, text in lines[begin : begin + count]], schema)

    index = first_failing(len(lines), fails)
    number, line = lines[index]
    where = f"{rows.where}, row {rows.row + index} (line {rows.line + number})"
    value = json_lines.decode(line, where)
    for field in schema:
      if not _parses([line], pa.schema([field])):
        raise DataError(
          f"{where}, column {field.name!r}: {shorten(value.get(field.name))} is no"
          f" {field.type}; write it as {field.type}, or leave it out"
        ) from error
    raise DataError(
      f"{where}: {shorten(line.decode())} cannot be read ({reason(error)}); write one"
      " JSON object a line"
    ) from error


def open_files(paths: Sequence[str], wanted: pa.Schema | None) -> list[JsonLinesSource]:
  """Some files, of the types that are wanted, or that all their objects have together.

  Args:
    paths: The files.
    wanted: Types that columns of these names shall have, whatever else there is; of
      each file the first block is read. None to read all.

  Raises:
    DataError: A line is not one object, or a value has a type of its own.
  """
  if wanted is not None:
    types = [_with_wanted(path, _first(path), wanted) for path in paths]
    return [JsonLinesSource(*pair) for pair in zip(paths, types, strict=True)]
  found, counts = _infer(paths)
  return [JsonLinesSource(p, found, n) for p, n in zip(paths, counts, strict=True)]


def _infer(paths: Sequence[str]) -> tuple[pa.Schema, list[int]]:
  """The types of the objects in some files together, and the rows of each file."""
  known, counts = pa.struct([]), []
  for path in paths:
    total = 0
    for block, rows in _blocks(path):
      known, count = json_lines.infer(block, known, rows)
      total += count
    counts.append(total)
  return pa.schema(list(known)), counts


def _blocks(where: str) -> Iterator[tuple[bytes, Rows]]:
  row = line = 0
  for block in line_blocks(where):
    if not row and block.lstrip()[:1] == b"[":
      raise DataError(
        f"{where} holds one array, expected an object a line; convert it: jq -c '.[]'"
      )
    yield block, Rows(where, row, line)
    row += json_types.count_rows(block)
    line += block.count(b"\n")


def _first(where: str) -> pa.Schema:
  """The types of the objects in the first block."""
  for block, rows in _blocks(where):
    return pa.schema(list(json_lines.infer(block, pa.struct([]), rows)[0]))
  return pa.schema([])


def _with_wanted(where: str, first: pa.Schema, wanted: pa.Schema) -> pa.Schema:
  """The types to parse: those wanted, and what else the first block has."""
  seen = Layout.of(where, first, None)
  columns = {path: seen.schema.field(name).type for name, path in seen.paths.items()}
  for field in wanted:
    path = seen.paths.get(field.name)
    if path is None:
      outer = field.name.partition(".")[0]
      nested = outer not in wanted.names and not any(
        path == (outer,) for path in columns
      )
      path = tuple(field.name.split(".")) if nested else (field.name,)
      if inner := [p for p in columns if p[: len(path)] == path]:
        raise DataError(
          f"{where}, column {field.name!r}: an object with {inner[0][len(path)]!r},"
          f" expected {field.type}; write it as {field.type}, or leave it out"
        )
    columns[path] = field.type
  return pa.schema(list(_nested(columns)))


def _nested(columns: Mapping[tuple[str, ...], pa.DataType]) -> pa.StructType:
  """The struct with these leaves."""
  fields = {}
  for outer in dict.fromkeys(path[0] for path in columns):
    inner = {path[1:]: kind for path, kind in columns.items() if path[0] == outer}
    fields[outer] = inner[()] if () in inner else _nested(inner)
  return pa.struct(list(fields.items()))


def _parsed_type(where: str, field: pa.Field) -> pa.DataType:
  try:
    return json_types.parsed_type(field.type)
  except pa.ArrowInvalid as error:
    raise DataError(
      f"{where}, column {field.name!r}: {error}; give the table as Parquet, or leave"
      " the column out"
    ) from error


def _parses(lines: Sequence[bytes], schema: pa.Schema) -> bool:
  block = b"\n".join(lines)
  try:
    block.decode()
    if json_types.is_deep(block):
      return False
    return json_types.parse(block, schema).num_rows == len(lines)
  except READ_ERRORS:
    return False
