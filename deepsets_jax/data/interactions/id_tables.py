"""A table of users or items, read from a file with a row each and any columns.

The columns become fields by the spec beside the file, such as `items.spec.json` for
`items.csv`; without one, by a proposal. Scales and vocabularies are fitted on all rows.
This leaks no targets, because none are predicted from a row.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from deepsets_jax.data.ingest.columns import cells, spec
from deepsets_jax.data.ingest.columns.encoding import Encoding
from deepsets_jax.data.ingest.columns.images import Unreadable
from deepsets_jax.data.ingest.columns.labels import Label, LabelEncoder
from deepsets_jax.data.ingest.columns.profiling import profile_columns
from deepsets_jax.data.ingest.columns.proposal import propose
from deepsets_jax.data.ingest.columns.spec import ColumnType, Spec
from deepsets_jax.data.ingest.columns.splits import numbered_batches
from deepsets_jax.data.ingest.files import opening, paths
from deepsets_jax.data.ingest.files.source import Source, shorten, shorten_names
from deepsets_jax.data.tables.table import Table, table_without_target
from deepsets_jax.foundation.errors import DataError
from deepsets_jax.ragged import Ragged, from_lengths

Report = Callable[[str], Any]
# {field: (the type of its column, what was fitted)}.
Fitted = Mapping[str, tuple[ColumnType, Any]]
# Names of columns of titles; the first that exists is taken.
_TITLES = ("title", "name")
# Longest title in characters: an array of strings is as wide as its longest.
_TITLE_SIZE = 100


@dataclasses.dataclass(frozen=True)
class IdTable:
  """The users or items of a file.

  Attributes:
    table: Their fields, with a target of kind "none".
    titles: The title of each, or its id, for people to read: `[b]` strings.
    vocabularies: {modality of tokens: the string of every id}.
  """

  table: Table
  titles: np.ndarray
  vocabularies: Mapping[str, tuple[str, ...]]


def table_of_ids(ids: np.ndarray, titles: np.ndarray | None = None) -> IdTable:
  """Returns a table without fields; titles are the ids by default."""
  table = table_without_target({}, {}, ids)
  return IdTable(table, ids if titles is None else titles, {})


def read_id_table(path: str, column: str, report: Report) -> IdTable:
  """Reads the table of a file.

  Args:
    path: The file, see `opening.open_source`.
    column: The column of ids.
    report: Called with a line per column of a proposal, and about unreadable pictures.

  Raises:
    DataError: The file cannot be read, an id is missing or occurs twice, or a value
      does not fit the spec. The message names file, row and column.
  """
  source = opening.open_source(path)
  check_ids(source, column, "name the column of ids as in the events")
  ids = _ids(source, column)
  titles = _titles(source, ids)
  given = _given(path, column)
  if given is not None:
    given.check(source.schema, source.where)
    fields, unfit = _fit(source, given.modalities)
    if unfit:
      name, why = next(iter(unfit.items()))
      raise DataError(
        f"{source.where}: column"
        f" {', '.join(map(repr, given.modalities[name].by_column))}, modality {name!r}:"
        f" {why}; repair it, or leave it out of {spec.path_beside(path)}"
      )
  else:
    fields = _proposed(source, column, report)
  if not fields:
    return table_of_ids(ids, titles)
  kinds = {name: kind for name, (kind, _) in fields.items()}
  fitted = {name: state for name, (_, state) in fields.items()}
  of_fields = Spec(kinds, _no_label(column))
  encoding = Encoding(of_fields, fitted, LabelEncoder(), source.schema)
  encoding = encoding.with_image_folder(paths.folder(path))
  absent = Unreadable()
  table = _encoded(source, encoding, ids, absent)
  if absent.counts:
    report(absent.describe(source.where))
  return IdTable(table, titles, encoding.names())


def check_column(source: Source, column: str, advice: str) -> None:
  """Raises `DataError` for a missing column; `advice` says how to repair it."""
  if column not in source.schema.names:
    raise DataError(
      f"{source.where}: no column {column!r}; there are"
      f" {shorten_names(source.schema.names)}: {advice}"
    )


def check_ids(source: Source, column: str, advice: str) -> None:
  """Raises `DataError` for a missing column, or one that cannot hold ids."""
  check_column(source, column, advice)
  kind = source.schema.field(column).type
  if not cells.is_token(kind):
    raise DataError(
      f"{source.where}: column {column!r} is {kind}, but ids are strings or whole"
      f" numbers: {advice}"
    )


def _ids(source: Source, column: str) -> np.ndarray:
  """The id of every row, `[b]` distinct strings."""
  found: list[str] = []
  for rows, batch in numbered_batches(source, [column]):
    with cells.locate_errors(source.where, column, rows):
      strings, lengths = cells.strings(batch[column])
    if not lengths.all():
      raise DataError(
        f"{source.where}: row {rows[np.argmin(lengths)]}, column {column!r}: there is"
        " no id; fill it in, or leave the row out"
      )
    found += strings.to_pylist()
  first = {name: row for row, name in reversed(list(enumerate(found)))}
  if len(first) < len(found):
    row = next(row for row, name in enumerate(found) if first[name] != row)
    raise DataError(
      f"{source.where}: row {row}, column {column!r}: the id {shorten(found[row])} is"
      f" also that of row {first[found[row]]}; {len(found) - len(first)} rows repeat an"
      " id: keep one row of each"
    )
  return np.array(found, np.str_)


def _titles(source: Source, ids: np.ndarray) -> np.ndarray:
  """The title of every row, or its id if it has none."""
  names = {field.name.lower(): field for field in source.schema}
  able = [names[name] for name in _TITLES if name in names]
  able = [field.name for field in able if pa.types.is_string(field.type)]
  if not able:
    return ids
  texts = [
    text for _, b in numbered_batches(source, able[:1]) for text in b[0].to_pylist()
  ]
  lines = [" ".join((text or "").split())[:_TITLE_SIZE] for text in texts]
  return np.array([a or b for a, b in zip(lines, ids.tolist(), strict=True)], np.str_)


def _given(path: str, column: str) -> Spec | None:
  """The spec beside the file, which needs to name only modalities; None without one."""
  beside = spec.path_beside(path)
  if not beside.exists():
    return None
  try:
    value = json.loads(beside.read_text("utf-8"))
    label = (value.get("label") or {}).get("column")
  except (OSError, ValueError, AttributeError) as error:
    raise DataError(
      f"{beside} is not a spec of columns ({error}); repair it, or remove it for a"
      " proposal"
    ) from error
  if label not in (None, column):
    raise DataError(
      f"{beside}: the label is column {label!r}, but users and items have no label; set"
      " it to null, and name the column as a modality or leave it out"
    )
  wanted = {k: v for k, v in value.items() if k not in ("id", "split", "group")}
  label = dataclasses.asdict(_no_label(column))
  return spec.from_json(wanted | {"label": label}, str(beside))


def _no_label(column: str) -> Label:
  """A label that is never read, in place of the missing one: the column of ids."""
  return Label(column, "multiclass")


def _proposed(source: Source, column: str, report: Report) -> Fitted:
  """The fields that a proposal finds in the columns, possibly none."""
  others = [name for name in source.schema.names if name != column]
  if not others:
    return {}
  facts = profile_columns(source)
  try:
    proposed, unused = propose(facts, source.where, label=column)
  except DataError as error:  # No column can be a field.
    report(f"no fields: {error}")
    return {}
  fields, unfit = _fit(source, proposed.modalities)
  marks = {proposed.id: "it names the rows", proposed.split: "it names the split"}
  taken = {name: f"left out: {text}" for name, text in (unused | marks).items()}
  for name, kind in proposed.modalities.items():
    for field, one in kind.by_column.items():
      left_out = f"left out: {unfit[name]}" if name in unfit else None
      taken[field] = left_out or f"a field, {one.kind}"
  for name in others:
    report(f"{source.where}: column {name!r} is {taken[name]}")
  return fields


def _fit(
  source: Source, kinds: Mapping[str, ColumnType]
) -> tuple[Fitted, dict[str, str]]:
  """The fields that can be fitted, and {other field: the reason}.

  Raises:
    DataError: A value does not fit its kind.
  """
  fittings = {name: kind.fitting() for name, kind in kinds.items()}
  columns = list(dict.fromkeys(c for kind in kinds.values() for c in kind.by_column))
  for rows, batch in numbered_batches(source, columns):
    for name, kind in kinds.items():
      with cells.locate_errors(source.where, next(iter(kind.by_column)), rows):
        fittings[name].add(kind.cells_in(batch))
  fields, unfit = {}, {}
  for name, kind in kinds.items():
    try:
      fields[name] = kind, fittings[name].result()
    except ValueError as error:
      unfit[name] = str(error)
  return fields, unfit


def _encoded(
  source: Source, encoding: Encoding, ids: np.ndarray, absent: Unreadable
) -> Table:
  """The table of all rows; adds unreadable pictures to `absent`."""
  columns = encoding.spec.columns
  parts = [
    encoding.table(
      batch, rows, source.where, labelled=False, unreadable=absent
    ).modalities
    for rows, batch in numbered_batches(source, columns)
  ]
  schema = encoding.schema.modalities
  modalities = {name: _joined([part[name] for part in parts]) for name in schema}
  return table_without_target(modalities, schema, ids)


def _joined(parts: Sequence[Ragged]) -> Ragged:
  """The examples of all parts, in order."""
  lengths = np.concatenate([np.diff(part.offsets) for part in parts])
  joined = from_lengths(np.concatenate([part.values for part in parts]), lengths)
  if parts[0].weights is None:
    return joined
  return joined.replace(weights=np.concatenate([part.weights for part in parts]))
