"""Histories of a folder of a user's own: events, and what is known of users and items.

`events.*` has a row for each event, with a user, an item, a time and perhaps a rating.
`items.*` and `users.*` may be beside it: a row for each, with the id under the name
that it has in the events, and any columns, which become fields (see `id_tables`).
Without such a file there are those that occur in the events, and no fields. In place of
a file there may be a folder of that name, of files that follow each other.
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
from deepsets_jax.foundation.errors import DataError

EVENTS, USERS, ITEMS = "events", "users", "items"
_SETTINGS = "config.data.clicks."
# Of a timestamp, in a second.
_UNITS = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}
_DAY = 86_400
# The year 3000; what is later is no number of seconds.
_LATEST = 32_503_680_000
_YEAR = 31_556_952
# What strings may be meant for.
_WRITTEN = (Format("number"), Format("time with zone"))
# Ids in a message.
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
  """The data in a folder, every value looked at.

  Times are kept in whole seconds; events of one user and second stay in the order of
  the file. Events that are out of order are put in order, and of those that are there
  twice (user, item and second) one is kept: see `histories.of_events`.

  Args:
    path: The folder.
    user, item, time, rating: Names of columns. Where there is no column of ratings,
      events are clicks.
    report: Told, in a line each, of the fields of a proposal and of what was mended.

  Raises:
    DataError: No such file, or two; no such column; a value that cannot be. It names
      file, row, column and value.
  """
  events = str(find(path, EVENTS))
  names = {"user": user, "item": item, "time": time}
  log = _read(events, names, rating)
  users, user_rows = _side(path, USERS, log, user, events, report)
  items, item_rows = _side(path, ITEMS, log, item, events, report)
  found, mended = histories.of_events(
    users.table,
    items.table,
    user_rows,
    item_rows,
    _times(log[time], events, time),
    _ratings(log[rating], events, rating) if rating in log.column_names else None,
    where=events,
  )
  if any(mended.values()):
    report(
      f"{events}: events that were out of order, and are put in order:"
      f" {mended['out_of_order']:,}; that were there twice, and are left out:"
      f" {mended['duplicates']:,}"
    )
  vocabularies = {USERS: users.vocabularies, ITEMS: items.vocabularies}
  return ItemCatalog(found.validate(events), items.titles, vocabularies)


def find(path: str | None, stem: str) -> pathlib.Path | None:
  """The file of a stem in a folder; None where there is none, of events an error.

  Raises:
    DataError: No folder, no events, or two files of the stem.
  """
  if path is None:
    raise DataError(
      "config.data.path is not set: give the folder that holds events.csv or .parquet"
    )
  folder = pathlib.Path(path)
  if not folder.is_dir():
    raise DataError(f"{path} is no folder; give the one that holds events.*")
  inside = sorted(p for p in folder.iterdir() if p.name.split(".")[0] == stem)
  able = [p for p in inside if not p.name.endswith(".spec.json")]
  if len(able) > 1:
    raise DataError(
      f"{path} has {able[0].name} and {able[1].name}; leave one file of {stem}"
    )
  if stem == EVENTS and not able:
    there = sorted(p.name for p in folder.iterdir())[:10]
    raise DataError(
      f"{path} has no events.*, with a user, an item and a time in each row; it has"
      f" {there}"
    )
  return able[0] if able else None


def _read(path: str, names: Mapping[str, str], rating: str | None) -> pa.Table:
  """The columns of the events that there are."""
  source = opening.open_source(path)
  for key, column in names.items():
    check = id_tables.check_column if key == "time" else id_tables.check_ids
    check(source, column, f"rename one, or set {_SETTINGS}{key}")
  wanted = [*names.values(), *([rating] if rating in source.schema.names else [])]
  if len(set(wanted)) < len(wanted):
    raise DataError(f"{_SETTINGS[:-1]}: the columns {wanted} are not all different")
  return pa.Table.from_batches(source.batches(wanted))


def _side(
  path: str, stem: str, log: pa.Table, column: str, events: str, report: Report
) -> tuple[IdTable, np.ndarray]:
  """The table of users or of items, and the row in it of each event."""
  names, codes = _codes(log[column], events, column)
  file = find(path, stem)
  if file is None:
    return id_tables.of_ids(np.array(names.to_pylist(), np.str_)), codes
  side = id_tables.read(str(file), column, report)
  rows = pc.index_in(names, pa.array(side.table.ids.tolist(), pa.string()))
  unknown = rows.is_null().to_numpy(zero_copy_only=False)
  if unknown.any():
    some = [shorten(n) for n in names.filter(rows.is_null())[:_SHOWN].to_pylist()]
    more = ", ..." if unknown.sum() > len(some) else ""
    of_events = unknown[codes]
    raise DataError(
      f"{events}: row {np.argmax(of_events)}, column {column!r}: {some[0]} is no id of"
      f" {file}; in all {unknown.sum():,} are not there ({', '.join(some)}{more}), of"
      f" {of_events.sum():,} events: add them there, leave these events out, or remove"
      " that file"
    )
  return side, rows.to_numpy(zero_copy_only=False)[codes]


def _codes(
  column: pa.ChunkedArray, where: str, name: str
) -> tuple[pa.Array, np.ndarray]:
  """The different ids, as strings by first appearance, and which each event has."""
  _check_there(column, where, name)
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
    _raise_nothing(np.argmax(codes == np.argmin(lengths)), where, name)
  return strings, codes


def _times(column: pa.ChunkedArray, where: str, name: str) -> np.ndarray:
  """Seconds since 1970, `[n]` int64; parts of a second are left out."""
  _check_there(column, where, name)
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
    _raise_no_time(column, where, name)
  good = np.abs(seconds) <= _LATEST
  if not good.all():
    row = int(np.argmin(good))
    # No datetime is as late as a wrong timestamp.
    value = seconds[row] if is_a.is_temporal(kind) else column[row].as_py()
    if np.isnan(seconds[row]):
      _raise_nothing(row, where, name)
    year = 1970 + seconds[row] / _YEAR
    raise DataError(
      f"{where}: row {row}, column {name!r}: {value} is the year {year:.0f} in seconds"
      " since 1970; if it is in milliseconds, divide by 1000, or write timestamps"
    )
  return seconds.astype(np.int64)


def _ratings(column: pa.ChunkedArray, where: str, name: str) -> np.ndarray:
  """`[n]` float64, finite."""
  if not cells.is_number(column.type) or pa.types.is_temporal(column.type):
    raise DataError(
      f"{where}: column {name!r} is {column.type}, and ratings are numbers; set"
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
  """Float64, NaN where null."""
  if pa.types.is_boolean(column.type):
    column = column.cast(pa.int8())
  return column.cast(pa.float64(), safe=False).to_numpy()


def _check_there(column: pa.ChunkedArray, where: str, name: str) -> None:
  if column.null_count:
    row = np.argmin(column.is_valid().to_numpy())
    _raise_nothing(row, where, name)


def _raise_nothing(row: int, where: str, name: str) -> NoReturn:
  raise DataError(
    f"{where}: row {row}, column {name!r}: there is nothing; fill it in, or leave the"
    " event out"
  )


def _raise_no_time(column: pa.ChunkedArray, where: str, name: str) -> NoReturn:
  """Names, of strings, the first that is not written as the first of all is."""
  row = 0
  if pa.types.is_string(column.type):
    texts = column.combine_chunks()
    written = [form for form in _WRITTEN if form.fits(texts[:1])]
    if written and not written[0].fits(texts):
      row = written[0].first_misfit(texts)
  raise DataError(
    f"{where}: row {row}, column {name!r}: {shorten(column[row].as_py())} is no time,"
    f" but {column.type}; write seconds since 1970, dates or timestamps, of one kind"
    " throughout"
  )
