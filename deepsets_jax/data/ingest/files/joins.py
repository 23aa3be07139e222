"""Tables of which many rows belong to one row of another, and queries over files."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.data.ingest.files import duck, formats, source
from deepsets_jax.data.ingest.files.formats import Format
from deepsets_jax.data.ingest.files.plain import Layout
from deepsets_jax.data.ingest.files.source import READ_ERRORS, Source
from deepsets_jax.foundation.errors import ConfigError, DataError

_numbers = itertools.count()


@dataclasses.dataclass(frozen=True)
class Many:
  """A table of which many rows, or none, belong to each row of the main table.

  Attributes:
    path: Its file, see `opening.open_source`; relative to the folder of the main table
      if it is there, else to the current folder.
    key: Column that says to which row of the main table a row belongs.
    of: Column of the main table with the same values; None for one of the same name.
    order: Column by which the rows of one key are ordered; None for the first column of
      dates or times, and without such a column the order of the file.
    columns: Formats of columns of strings; those of other columns are found.
  """

  path: str
  key: str
  of: str | None = None
  order: str | None = None
  columns: Mapping[str, Format] | None = None

  @property
  def main_key(self) -> str:
    """Column of the main table with the same values as `key`."""
    return self.of or self.key

  def to_json(self) -> dict[str, Any]:
    """Plain values, as a person edits them."""
    return {**vars(self), "columns": formats.to_json(self.columns or {})}

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> Many:
    """The table that `to_json` wrote, perhaps edited.

    Raises:
      ConfigError: An unknown setting, or one that is missing.
    """
    given = dict(value)
    columns = formats.from_json(given.pop("columns", []))
    try:
      return cls(**given, columns=columns)
    except TypeError as error:
      legal = [field.name for field in dataclasses.fields(cls)]
      raise ConfigError(f"many: {error}; there are {legal}") from error


def parse_many(texts: Sequence[str]) -> dict[str, Many]:
  """Parse tables that are written as `NAME=FILE:KEY` or `NAME=FILE:KEY=COLUMN`.

  Returns:
    The tables, by name.

  Raises:
    DataError: A text is not of this form.
  """
  found = {}
  for text in texts:
    name, equals, rest = text.partition("=")
    path, colon, key = rest.rpartition(":")
    if not (name and equals and colon and path and key):
      raise DataError(
        f"--many={text}: expected NAME=FILE:KEY, such as faces=faces.parquet:film_id;"
        " NAME=FILE:KEY=COLUMN where the column of the main table has another name"
      )
    key, _, of = key.partition("=")
    found[name] = Many(path, key, of or None)
  return found


class QuerySource(Source):
  """The result of a query of DuckDB as a `Source`."""

  def __init__(self, query: str):
    """Find the types of the result.

    Args:
      query: SQL, `SELECT ... FROM 'films.parquet' ...`.

    Raises:
      DataError: The query cannot be run.
    """
    self._query = query.strip().rstrip(";")
    self.where = f"sql:{self._query}"
    try:
      types = duck.schema(self._query)
    except (AttributeError, *READ_ERRORS) as error:
      raise DataError(
        f"{self.where} cannot be run: {' '.join(str(error).split())[:300]}; give one"
        " SELECT over files, such as SELECT * FROM 'films.parquet'"
      ) from error
    self._layout = Layout.of(self.where, types)
    self.schema = self._layout.schema

  def _stream(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    row, found = 0, duck.stream(self._query)
    while True:
      with source.located_errors(f"{self.where}, after row {row}:", "change the query"):
        if (batch := next(found, None)) is None:
          return
      yield from self._layout.read(batch, names, row)
      row += batch.num_rows


class Joined(Source):
  """A main table with columns of lists from other tables.

  A column `faces.box` holds, for each row, the values of the column `box` in the rows
  of the table `faces` that have the row's key. DuckDB sorts the rows, and writes to
  disk what does not fit in memory.

  Attributes:
    tables: The other tables, by name.
    formats: Formats of the main table's strings; `tables` has those of the others.
    ambiguous: Columns of dates in which day or month could come first.
  """

  def __init__(
    self, main: Source, many: Mapping[str, Many], tables: Mapping[str, Source]
  ):
    """Sort the rows of the other tables by those of the main table.

    Args:
      main: One row for each example.
      many: How the other tables belong to it, by name.
      tables: The other tables, by name.

    Raises:
      DataError: A column is missing, or two rows of the main table have one key.
    """
    self._main, self.where, self.num_rows = main, main.where, main.num_rows
    self.tables, self.formats = tables, getattr(main, "formats", {})
    self.notes = list(main.notes)
    self.ambiguous = set(getattr(main, "ambiguous", ()))
    # For each column of lists: its name among all, its table and column in DuckDB.
    self._lists: dict[str, tuple[str, str]] = {}
    self._connection = duck.connect()
    fields = list(main.schema)
    for name, one in many.items():
      table = tables[name]
      self.notes += [f"{name}: {note}" for note in table.notes]
      self.ambiguous |= {f"{name}.{c}" for c in getattr(table, "ambiguous", ())}
      _check_column(
        main,
        one.main_key,
        f"the main table has no key of {name!r}: say which column it is with"
        f" --many={name}={one.path}:{one.key}=COLUMN",
      )
      _check_column(table, one.key, f"it is the key of {name!r}")
      if one.order is not None:
        _check_column(table, one.order, f"it is the order of {name!r}")
      try:
        fields += self._sort(name, one, table)
      except (duckdb.Error, pa.ArrowException, OSError) as error:
        # A bad cell of a table is an error of DuckDB here. Reading the table alone
        # raises the error that names the cell.
        for either in (main, table):
          collections.deque(either.batches(), maxlen=0)
        raise DataError(
          f"{table.where} cannot be joined to {main.where}: {source.reason(error)}"
        ) from error
    self.schema = pa.schema(fields)

  def at(self, row: int) -> str:
    """Place of a row of the main table, for messages."""
    return self._main.at(row)

  def batches(
    self, columns: Sequence[str] | None = None, *, start: int = 0
  ) -> Iterator[pa.RecordBatch]:
    """Read batches as `Source` describes."""
    names = self._select(columns)
    schema = pa.schema([self.schema.field(name) for name in names])
    own = [name for name in names if name not in self._lists]
    lists = collections.defaultdict(list)
    for name in names:
      if name in self._lists:
        lists[self._lists[name][0]].append(name)
    row = start
    for batch in self._main.batches(own, start=start):
      found = dict(zip(own, batch.columns, strict=True))
      for made, wanted in lists.items():
        found |= self._read_lists(made, wanted, row, batch.num_rows)
      arrays = [found[name].cast(schema.field(name).type) for name in names]
      yield source.make_batch(arrays, schema, batch.num_rows)
      row += batch.num_rows

  def _sort(self, name: str, one: Many, table: Source) -> list[pa.Field]:
    """Makes a table in DuckDB of the rows of `table` by rows of the main table.

    Returns:
      The columns of lists.
    """
    number, run = next(_numbers), self._connection.execute
    keys, rows, made = (f"{kind}_{number}" for kind in ("keys", "rows", "many"))
    self._load(self._main, [one.main_key], keys, one.main_key)
    twice = run(
      f"SELECT _key, min(_row), max(_row) FROM {keys} WHERE _key IS NOT NULL"
      " GROUP BY _key HAVING count(*) > 1 ORDER BY min(_row) LIMIT 1"
    ).fetchone()
    if twice is not None:
      raise DataError(
        f"{self.at(twice[2])}, column {one.main_key!r}: {twice[0]!r} is the key of row"
        f" {twice[1]}, too; the main table has one row for each key of {name!r}: leave"
        " one of them out"
      )
    names = table.schema.names
    self._load(table, names, rows, one.key)
    columns = {f.name: f"c{names.index(f.name)}" for f in table.schema}
    times = (f.name for f in table.schema if pa.types.is_temporal(f.type))
    order = one.order or next((t for t in times if t != one.key), None)
    by = "m._row" if order is None else f"m.{columns[order]}, m._row"
    del columns[one.key]
    run(
      f"CREATE TEMP TABLE {made} AS SELECT k._row, row_number() OVER (ORDER BY k._row,"
      f" {by}) AS _place, {', '.join(f'm.{c}' for c in columns.values())}"
      f" FROM {rows} m JOIN {keys} k USING (_key) ORDER BY k._row, _place"
    )
    self.notes.append(self._matches(name, one, keys, rows, made))
    run(f"DROP TABLE {keys}; DROP TABLE {rows}")
    self._lists |= {f"{name}.{column}": (made, c) for column, c in columns.items()}
    return [
      pa.field(f"{name}.{c}", pa.list_(table.schema.field(c).type)) for c in columns
    ]

  def _load(self, table: Source, columns: Sequence[str], made: str, key: str) -> None:
    """Makes a table in DuckDB of columns of a source, with `_row` and `_key`."""
    kind = table.schema.field(key).type
    self._connection.register("given", _reader(table, columns))
    self._connection.execute(
      f"CREATE TEMP TABLE {made} AS SELECT *, row_number() OVER () - 1 AS _row,"
      f" {_key(kind, columns.index(key))} AS _key FROM given"
    )
    self._connection.unregister("given")

  def _matches(self, name: str, one: Many, keys: str, rows: str, made: str) -> str:
    """A sentence on how many rows have a match, in both tables."""
    total, matched, all_keys, having = self._connection.execute(
      f"SELECT (SELECT count(*) FROM {rows}), (SELECT count(*) FROM {made}),"
      f" (SELECT count(*) FROM {keys}), (SELECT count(DISTINCT _row) FROM {made})"
    ).fetchone()
    note = (
      f"{name}: {matched:,} of {total:,} rows of {one.path} belong to a row by"
      f" {one.key!r}; {all_keys - having:,} of {all_keys:,} rows have none"
    )
    if matched == total:
      return note
    (odd,) = self._connection.execute(
      f"SELECT _key FROM {rows} ANTI JOIN {keys} USING (_key) ORDER BY {rows}._row"
      " LIMIT 1"
    ).fetchone()
    return (
      f"{note}; without a match: {total - matched:,}, such as {odd!r}, which are left"
      " out"
    )

  def _read_lists(
    self, made: str, names: Sequence[str], start: int, count: int
  ) -> dict[str, pa.Array]:
    """The lists of some rows of the main table; null where there are none."""
    columns = (self._lists[name][1] for name in names)
    found = self._connection.sql(
      f"SELECT _row, {', '.join(f'list({c} ORDER BY _place)' for c in columns)}"
      f" FROM {made} WHERE _row >= {start} AND _row < {start + count} GROUP BY _row"
    ).to_arrow_table()
    taken = pc.index_in(pa.array(range(start, start + count)), found.column(0))
    lists = found.columns[1:]
    return {
      name: column.combine_chunks().take(taken)
      for name, column in zip(names, lists, strict=True)
    }


def _key(kind: pa.DataType, place: int) -> str:
  """SQL for the values of a column as strings: the same for 1 and 1.0, null for NaN."""
  name = f"c{place}"
  if not pa.types.is_floating(kind):
    return f"{name}::VARCHAR"
  whole = f"coalesce(TRY_CAST({name} AS BIGINT)::VARCHAR, {name}::VARCHAR)"
  return (
    f"CASE WHEN isnan({name}) THEN NULL WHEN {name} = floor({name}) THEN {whole}"
    f" ELSE {name}::VARCHAR END"
  )


def _reader(table: Source, columns: Sequence[str]) -> pa.RecordBatchReader:
  """The columns by number, as names of SQL do not distinguish "a" from "A"."""
  fields = [(f"c{i}", table.schema.field(name).type) for i, name in enumerate(columns)]
  schema, batches = pa.schema(fields), table.batches(columns)
  batches = (pa.RecordBatch.from_arrays(b.columns, schema=schema) for b in batches)
  return pa.RecordBatchReader.from_batches(schema, batches)


def _check_column(table: Source, column: str, why: str) -> None:
  if column not in table.schema.names:
    raise DataError(
      f"{table.where}: no column {column!r}; there are {table.schema.names}; {why}"
    )
