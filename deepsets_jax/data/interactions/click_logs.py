"""Histories from a folder of your own with events, and perhaps users and items.

`events.*` has a row per event: a user, an item, a time, and perhaps a rating. `items.*`
and `users.*` are optional. They have a row per item or user, with the id in a column of
the same name as in the events, and any other columns, which become fields (see
`id_tables`). Without such a file, the items or users are those of the events, without
fields. Each file may also be a folder of that name with consecutive files.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.data.ingest.columns import cells
from deepsets_jax.data.ingest.files import opening
from deepsets_jax.data.ingest.files.formats import Format
from deepsets_jax.data.ingest.files.source import shorten
from deepsets_jax.data.interactions import histories, id_tables
from deepsets_jax.data.interactions.catalog import ItemCatalog
from deepsets_jax.data.interactions.id_tables import IdTable, Report
from deepsets_jax.foundation.errors import ConfigError, DataError

EVENTS, USERS, ITEMS = "events", "users", "items"
_SETTINGS = "config.data.clicks."
# Units of a timestamp per second.
_UNITS = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}
_DAY = 86_400
# The year 3000; later times are not in seconds.
_LATEST = 32_503_680_000
_YEAR = 31_556_952
# Formats of strings that could be times.
_WRITTEN = (Format("number"), Format("time with zone"))
# Number of ids in a message.
_SHOWN = 3


def load_click_logs(
  path: str | None,
  *,
  user: str,
  item: str,
  time: str,
  rating: str | None,
  report: Report,
) -> ItemCatalog:
  """Loads the data of a folder, and checks every value.

  Times are kept in whole seconds; events of one user in one second stay in the order of
  the file. Events out of order are sorted, and one of several events with the same
  user, item and second is kept: see `histories.of_events`.

  Args:
    path: The folder.
    user, item, time, rating: Names of the columns. Without a column of ratings, events
      are clicks.
    report: Called with a line per column of a proposal, and about repaired events.

  Raises:
    ConfigError: `path` is None.
    DataError: A file or column is missing or ambiguous, or a value is not valid. The
      message names file, row, column and value.
  """
  events = str(find(path, EVENTS))
  names = {"user": user, "item": item, "time": time}
  log = _read(events, names, rating)
  users, user_rows = _side(path, USERS, log, user, events, report)
  items, item_rows = _side(path, ITEMS, log, item, events, report)
  found, repaired = histories.of_events(
    users.table,
    items.table,
    user_rows,
    item_rows,
    _times(log[time], events, time),
    _ratings(log[rating], events, rating) if rating in log.column_names else None,
    where=events,
  )
  if any(repaired.values()):
    report(
      f"{events}: {repaired['out_of_order']:,} events out of order, which were sorted;"
      f" {repaired['duplicates']:,} duplicate events, which were left out"
    )
  vocabularies = {USERS: users.vocabularies, ITEMS: items.vocabularies}
  return ItemCatalog(found.validate(events), items.titles, vocabularies)


def find(path: str | None, stem: str) -> pathlib.Path | None:
  """Finds the file with a stem in a folder; None without one, except for events.

  Raises:
    ConfigError: `path` is None.
    DataError: The folder or the events are missing, or two files have the stem.
  """
  if path is None:
    raise ConfigError(
      "config.data.path is not set: give the folder that holds events.csv or .parquet"
    )
  folder = pathlib.Path(path)
  if not folder.is_dir():
    raise DataError(f"{path} is not a folder; give the one that holds events.*")
  inside = sorted(p for p in folder.iterdir() if p.name.split(".")[0] == stem)
  able = [p for p in inside if not p.name.endswith(".spec.json")]
  if len(able) > 1:
    raise DataError(
      f"{path} has {able[0].name} and {able[1].name}; keep one file of {stem}"
    )
  if stem == EVENTS and not able:
    there = sorted(p.name for p in folder.iterdir())[:10]
    raise DataError(
      f"{path} has no events.*, with a user, an item and a time in each row; it has"
      f" {there}"
    )
  return able[0] if able else None


def _read(path: str, names: Mapping[str, str], rating: str | None) -> pa.Table:
  """The columns of the events."""
  source = opening.open_source(path)
  for key, column in names.items():
    check = id_tables.check_column if key == "time" else id_tables.check_ids
    check(source, column, f"rename one, or set {_SETTINGS}{key}")
  wanted = [*names.values(), *([rating] if rating in source.schema.names else [])]
  if len(set(wanted)) < len(wanted):
    raise DataError(f"{_SETTINGS[:-1]}: the columns {wanted} are not distinct")
  return pa.Table.from_batches(source.batches(wanted))


def _side(
  path: str, stem: str, log: pa.Table, column: str, events: str, report: Report
) -> tuple[IdTable, np.ndarray]:
  """The table of users or of items, and the row of each event in it."""
  names, codes = _codes(log[column], events, column)
  file = find(path, stem)
  if file is None:
    return id_tables.table_of_ids(np.array(names.to_pylist(), np.str_)), codes
  side = id_tables.read_id_table(str(file), column, report)
  rows = pc.index_in(names, pa.array(side.table.ids.tolist(), pa.string()))
  unknown = rows.is_null().to_numpy(zero_copy_only=False)
  if unknown.any():
    some = [shorten(n) for n in names.filter(rows.is_null())[:_SHOWN].to_pylist()]
    more = ", ..." if unknown.sum() > len(some) else ""
    of_events = unknown[codes]
    raise DataError(
      f"{events}: row {np.argmax(of_events)}, column {column!r}: {some[0]} is not an id"
      f" of {file}, which lacks {unknown.sum():,} ids ({', '.join(some)}{more}) of"
      f" {of_events.sum():,} events: add the ids, leave out the events, or remove the"
      " file"
    )
  return side, rows.to_numpy(zero_copy_only=False)[codes]


def _codes(
  column: pa.ChunkedArray, where: str, name: str
) -> tuple[pa.Array, np.ndarray]:
  """The distinct ids as strings, by first appearance, and the index of each event."""
  _check_valid(column, where, name)
  encoded = column.dictionary_encode().combine_chunks()
  codes = encoded.indices.to_numpy()
  try:
    strings, lengths = cells.strings(encoded.dictionary)
  except cells.CellError as error:
    row = np.argmax(codes == error.index)
    raise DataError(
      f"{where}: row {row}, column {name!r}: {error.problem}; {error.advice}"
    ) from error
  if not lengths.all():
    _raise_missing(np.argmax(codes == np.argmin(lengths)), where, name)
  return strings, codes


def _times(column: pa.ChunkedArray, where: str, name: str) -> np.ndarray:
  """Whole seconds since 1970, rounded down: `[n]` int64."""
  _check_valid(column, where, name)
  kind, is_a = column.type, pa.types
  if is_a.is_timestamp(kind):
    seconds = column.cast(pa.int64()).to_numpy() // _UNITS[kind.unit]
  elif is_a.is_date32(kind):
    seconds = column.cast(pa.int32()).to_numpy().astype(np.int64) * _DAY
  elif is_a.is_date64(kind):
    seconds = column.cast(pa.int64()).to_numpy() // _UNITS["ms"]
  elif is_a.is_integer(kind) or is_a.is_floating(kind) or is_a.is_decimal(kind):
    seconds = np.floor(_floats(column))
  else:
    _raise_not_times(column, where, name)
  good = np.abs(seconds) <= _LATEST
  if not good.all():
    row = int(np.argmin(good))
    # A datetime cannot be as late as a wrong timestamp.
    value = seconds[row] if is_a.is_temporal(kind) else column[row].as_py()
    if np.isnan(seconds[row]):
      _raise_missing(row, where, name)
    year = 1970 + seconds[row] / _YEAR
    raise DataError(
      f"{where}: row {row}, column {name!r}: {value} is the year {year:.0f} in seconds"
      " since 1970; if it is in milliseconds, divide by 1000, or write timestamps"
    )
  return seconds.astype(np.int64)


def _ratings(column: pa.ChunkedArray, where: str, name: str) -> np.ndarray:
  """The ratings, `[n]` finite float64."""
  if not cells.is_number(column.type) or pa.types.is_temporal(column.type):
    raise DataError(
      f"{where}: column {name!r} is {column.type}, but ratings are numbers; set"
      f" {_SETTINGS}rating to another column, or to None"
    )
  values = _floats(column)
  finite = np.abs(values) <= np.finfo(np.float32).max
  if not finite.all():
    row = int(np.argmin(finite))
    raise DataError(
      f"{where}: row {row}, column {name!r}: the rating is {column[row].as_py()}; give"
      f" a finite number, leave the event out, or set {_SETTINGS}rating to None"
    )
  return values


def _floats(column: pa.ChunkedArray) -> np.ndarray:
  """The column as float64, with NaN for null."""
  if pa.types.is_boolean(column.type):
    column = column.cast(pa.int8())
  return column.cast(pa.float64(), safe=False).to_numpy()


def _check_valid(column: pa.ChunkedArray, where: str, name: str) -> None:
  if column.null_count:
    row = np.argmin(column.is_valid().to_numpy())
    _raise_missing(row, where, name)


def _raise_missing(row: int, where: str, name: str) -> NoReturn:
  raise DataError(
    f"{where}: row {row}, column {name!r}: the value is missing; fill it in, or leave"
    " the event out"
  )


def _raise_not_times(column: pa.ChunkedArray, where: str, name: str) -> NoReturn:
  """Raises an error; names the first string that differs in format from the first."""
  row = 0
  if pa.types.is_string(column.type):
    texts = column.combine_chunks()
    written = [form for form in _WRITTEN if form.fits(texts[:1])]
    if written and not written[0].fits(texts):
      row = written[0].first_misfit(texts)
  raise DataError(
    f"{where}: row {row}, column {name!r}: {shorten(column[row].as_py())} is of type"
    f" {column.type}, not a time; write seconds since 1970, dates or timestamps, all in"
    " one format"
  )
