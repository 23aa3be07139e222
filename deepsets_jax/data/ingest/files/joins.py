"""Tables of which many rows belong to one row of another, and queries over files."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from deepsets_jax.data.ingest.files import duck, formats, source
from deepsets_jax.data.ingest.files.formats import Format
from deepsets_jax.data.ingest.files.plain import Layout
from deepsets_jax.data.ingest.files.source import Source, reason
from deepsets_jax.foundation.errors import ConfigError, DataError

_numbers = itertools.count()


@dataclasses.dataclass(frozen=True)
class Many:
  """A table of which many rows, or none, belong to each row of the main table.

  Attributes:
    path: Its file, see `opening.open_source`; relative to the folder of the main table,
      or else to the current one.
    key: Column that says which row of the main table a row belongs to.
    of: Column of the main table with the same values; None for one of the same name.
    order: Column by which the rows of one key are ordered; None for the first column of
      times, or else the order of the file.
    columns: Formats of columns of strings; those of others are found.
  """

  path: str
  key: str
  of: str | None = None
  order: str | None = None
  columns: Mapping[str, Format] | None = None

  def to_json(self) -> dict[str, Any]:
    """Plain values, as a person edits them."""
    return {**vars(self), "columns": formats.to_json(self.columns or {})}

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> Many:
    """The table that `to_json` gave.

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
  """The tables that `NAME=FILE:KEY` or `NAME=FILE:KEY=COLUMN` names, by name.

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


class QuerySource(source.Streamed):
  """The result of a query of DuckDB as a `Source`."""

  def __init__(self, query: str):
    """Looks at the types of the result.

    Args:
      query: SQL, `SELECT ... FROM 'films.parquet' ...`.

    Raises:
      DataError: The query cannot be run.
    """
    query = query.strip().rstrip(";")
    self.where, self._query = f"sql:{query}", query
    try:
      found = duck.connect().sql(f"SELECT * FROM ({query}) LIMIT 0")
      types = found.to_arrow_reader(1).schema
    except (duckdb.Error, AttributeError, *source.READ_ERRORS) as error:
      raise DataError(
        f"{self.where} cannot be run: {' '.join(str(error).split())[:300]}; give one"
        " SELECT over files, such as SELECT * FROM 'films.parquet'"
      ) from error
    self._layout = Layout.of(self.where, types)
    self.schema = self._layout.schema

  def _read(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    row = 0
    try:
      for batch in duck.stream(duck.connect(), self._query):
        for piece in source.cut(batch):
          yield self._layout.read(piece, names, row)
          row += piece.num_rows
    except DataError:
      raise
    except (duckdb.Error, *source.READ_ERRORS) as error:
      raise DataError(f"{self.where}, after row {row}: {reason(error)}") from error


class Joined:
  """A main table with columns of lists more: what other tables have of each row.

  A column `faces.box` holds, for each row, the values of the column `box` in the rows
  of the table `faces` that have the row's key. Rows are sorted by DuckDB, which writes
  to disk what does not fit in memory.

  Attributes:
    lists: Names of the columns of lists, with the table they are of.
    ambiguous: Columns of dates that could be day or month first.
    formats: Formats of the main table's strings; `tables` has those of the others.
    tables: The others, by name.
  """

  def __init__(
    self, main: Source, many: Mapping[str, Many], tables: Mapping[str, Source]
  ):
    """Sorts the rows of the other tables by those of the main table.

    Args:
      main: One row for each example.
      many: How the others belong to it, by name.
      tables: The others, by name.

    Raises:
      DataError: A column is missing, or two rows of the main table have one key.
    """
    self.where, self.num_rows = main.where, main.num_rows
    self._main, self.tables = main, tables
    self.formats = getattr(main, "formats", {})
    self.notes = list(main.notes)
    self.lists: dict[str, str] = {}
    self.ambiguous = set(getattr(main, "ambiguous", ()))
    for name, table in tables.items():
      unclear = getattr(table, "ambiguous", ())
      self.ambiguous |= {f"{name}.{column}" for column in unclear}
    self._tables: dict[str, tuple[str, dict[str, str]]] = {}
    self._connection = duck.connect()
    fields = list(main.schema)
    for name, one in many.items():
      self.notes += [f"{name}: {note}" for note in tables[name].notes]
      of = one.of or one.key
      _check_column(
        main,
        of,
        f"the main table has no key of {name!r}: say which column"
        f" it is with --many={name}={one.path}:{one.key}=COLUMN",
      )
      _check_column(tables[name], one.key, f"it is the key of {name!r}")
      try:
        fields += self._sort(name, one, of, tables[name])
      except (duckdb.Error, pa.ArrowException, OSError) as error:
        # A bad cell of a table is an error of DuckDB's here: reading it alone names it.
        for table in (main, tables[name]):
          collections.deque(table.batches(), maxlen=0)
        raise DataError(
          f"{tables[name].where} cannot be joined to {main.where}: {reason(error)}"
        ) from error
    self.schema = pa.schema(fields)

  def at(self, row: int) -> str:
    """Where a row of the main table is, for messages."""
    return self._main.at(row)

  def batches(
    self, columns: Sequence[str] | None = None, *, start: int = 0
  ) -> Iterator[pa.RecordBatch]:
    """Batches as `Source` describes."""
    names = source.select(self.where, self.schema, columns)
    schema = pa.schema([self.schema.field(name) for name in names])
    own = [name for name in names if name not in self.lists]
    row = start
    for batch in self._main.batches(own, start=start):
      found = {name: batch[name] for name in own}
      for table in {self.lists[name] for name in names if name in self.lists}:
        wanted = [name for name in names if self.lists.get(name) == table]
        found |= self._read(table, wanted, row, batch.num_rows)
      row += batch.num_rows
      if names:
        arrays = [found[name].cast(schema.field(name).type) for name in names]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
      else:
        yield batch

  def _sort(self, name: str, one: Many, of: str, table: Source) -> list[pa.Field]:
    """Makes the table of rows in the order of the main table; returns the columns."""
    number, link = next(_numbers), self._connection
    keys, rows, made = (f"{kind}_{number}" for kind in ("keys", "rows", "many"))
    link.register("given", _reader(self._main, [of]))
    link.execute(
      f"CREATE TEMP TABLE {keys} AS SELECT row_number() OVER () - 1 AS _row,"
      f" {_key(self._main.schema.field(of).type, 0)} AS _key FROM given"
    )
    link.unregister("given")
    twice = link.execute(
      f"SELECT _key, min(_row), max(_row) FROM {keys} WHERE _key IS NOT NULL"
      " GROUP BY _key HAVING count(*) > 1 ORDER BY min(_row) LIMIT 1"
    ).fetchone()
    if twice is not None:
      raise DataError(
        f"{self._main.at(twice[2])}, column {of!r}: {twice[0]!r} is the key of row"
        f" {twice[1]}, too; the main table has one row for each key of {name!r}"
      )
    columns = [f for f in table.schema if f.name != one.key]
    order = one.order or next(
      (f.name for f in columns if pa.types.is_temporal(f.type)), None
    )
    if order is not None:
      _check_column(table, order, f"it is the order of {name!r}")
    names = table.schema.names
    link.register("given", _reader(table, names))
    link.execute(
      f"CREATE TEMP TABLE {rows} AS SELECT *, row_number() OVER () AS _place,"
      f" {_key(table.schema.field(one.key).type, names.index(one.key))} AS _key"
      " FROM given"
    )
    link.unregister("given")
    by = [*([f"m.c{names.index(order)}"] if order else []), "m._place"]
    picked = ", ".join(f"m.c{names.index(f.name)}" for f in columns)
    link.execute(
      f"CREATE TEMP TABLE {made} AS SELECT k._row,"
      f" row_number() OVER (ORDER BY k._row, {', '.join(by)}) AS _place, {picked}"
      f" FROM {rows} m JOIN {keys} k USING (_key)"
      " ORDER BY k._row, _place"
    )
    self._report(name, one, of, keys, rows, made)
    link.execute(f"DROP TABLE {keys}; DROP TABLE {rows}")
    places = {f"{name}.{f.name}": f"c{names.index(f.name)}" for f in columns}
    self._tables[name] = (made, places)
    self.lists |= dict.fromkeys(places, name)
    return [pa.field(f"{name}.{f.name}", pa.list_(f.type)) for f in columns]

  def _report(
    self, name: str, one: Many, of: str, keys: str, rows: str, made: str
  ) -> None:
    """Notes what matches nothing."""

    def count(sql: str) -> int:
      return self._connection.execute(f"SELECT {sql}").fetchone()[0]

    total = count(f"count(*) FROM {rows}")
    matched = count(f"count(*) FROM {made}")
    all_keys = count(f"count(*) FROM {keys}")
    having = count(f"count(DISTINCT _row) FROM {made}")
    note = (
      f"{name}: {matched:,} of {total:,} rows of {one.path} belong to a row by"
      f" {one.key!r}; {all_keys - having:,} of {all_keys:,} rows have none"
    )
    if matched < total:
      odd = self._connection.execute(
        f"SELECT m._key FROM {rows} m ANTI JOIN {keys} k USING (_key)"
        " ORDER BY m._place LIMIT 1"
      ).fetchone()[0]
      note += (
        f"; without a match: {total - matched:,}, such as {odd!r}, which are left out"
      )
    self.notes.append(note)

  def _read(
    self, table: str, names: Sequence[str], start: int, count: int
  ) -> dict[str, pa.Array]:
    """The lists of some rows of the main table; null where there are none."""
    made, places = self._tables[table]
    picked = ", ".join(f"list({places[n]} ORDER BY _place)" for n in names)
    found = self._connection.sql(
      f"SELECT _row, {picked} FROM {made} WHERE _row >= {start}"
      f" AND _row < {start + count} GROUP BY _row ORDER BY _row"
    ).to_arrow_table()
    rows = found.column(0).to_numpy() - start
    slots = [None] * count
    for slot, row in enumerate(rows.tolist()):
      slots[row] = slot
    taken = pa.array(slots, pa.int64())
    return {
      name: found.column(1 + i).combine_chunks().take(taken)
      for i, name in enumerate(names)
    }


def _key(kind: pa.DataType, place: int) -> str:
  """The values of a column in SQL as strings, the same for 1 and 1.0; NaN is null."""
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
  names = [f"c{place}" for place in range(len(columns))]
  types = [table.schema.field(column).type for column in columns]
  schema = pa.schema(list(zip(names, types, strict=True)))
  batches = (
    pa.RecordBatch.from_arrays(batch.columns, schema=schema)
    for batch in table.batches(columns)
  )
  return pa.RecordBatchReader.from_batches(schema, batches)


def _check_column(table: Source, column: str, why: str) -> None:
  if column not in table.schema.names:
    raise DataError(
      f"{table.where}: no column {column!r}; there are {table.schema.names}; {why}"
    )
