"""A table of users or items from a file of theirs: a row each, with any columns.

The columns become fields as a spec beside the file says, `items.spec.json` for
`items.csv`; without one, as `proposal.propose` takes them. Scales and vocabularies are
fitted on all rows: nothing is predicted of a row, so that none gives an answer away.
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
from deepsets_jax.data.tables.schema import Schema, Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import DataError
from deepsets_jax.ragged import Ragged, from_lengths

Report = Callable[[str], Any]
# By name, how a column is a field, and what was fitted.
Fields = Mapping[str, tuple[ColumnType, Any]]
# Columns of titles, the first that there is.
_TITLES = ("title", "name")
# Characters of a title: an array of strings is as wide as the longest.
_TITLE_SIZE = 100


@dataclasses.dataclass(frozen=True)
class IdTable:
  """All rows of a file.

  Attributes:
    table: With the fields; its target is of kind "none".
    titles: What to call each, `[b]` strings: a column of titles, or the id.
    vocabularies: By modality of tokens, the string of every id.
  """

  table: Table
  titles: np.ndarray
  vocabularies: Mapping[str, tuple[str, ...]]


def of_ids(ids: np.ndarray) -> IdTable:
  """A table without fields."""
  return IdTable(_table({}, {}, ids), ids, {})


def read(path: str, column: str, report: Report) -> IdTable:
  """The table of a file.

  Args:
    path: Of the file, see `opening.open_source`.
    column: Of the ids.
    report: Told of each field of a proposal, and of pictures that cannot be read.

  Raises:
    DataError: The file cannot be read, a row has no id or that of another, or a value
      is not what the spec says; names file, row and column.
  """
  source = opening.open_source(path)
  check_ids(source, column, "call that of the ids as it is called in the events")
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
        f" {why}; mend it, or leave it out of {spec.path_beside(path)}"
      )
  else:
    fields = _proposed(source, column, report)
  if not fields:
    return IdTable(_table({}, {}, ids), titles, {})
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
  """Raises `DataError` for a column that is not there; `advice` is the way out."""
  if column not in source.schema.names:
    raise DataError(
      f"{source.where}: no column {column!r}; there are"
      f" {shorten_names(source.schema.names)}: {advice}"
    )


def check_ids(source: Source, column: str, advice: str) -> None:
  """Raises `DataError` for a column that is not there, or cannot be of ids."""
  check_column(source, column, advice)
  kind = source.schema.field(column).type
  if not cells.is_token(kind):
    raise DataError(
      f"{source.where}: column {column!r} is {kind}, and ids are strings or whole"
      f" numbers: {advice}"
    )


def _ids(source: Source, column: str) -> np.ndarray:
  """The id of every row, `[b]` strings, no two the same."""
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
      f" that of row {first[found[row]]}, too, and {len(found) - len(first)} rows have"
      " one that was before; leave all but one of each out"
    )
  return np.array(found, np.str_)


def _titles(source: Source, ids: np.ndarray) -> np.ndarray:
  """The titles, and ids where there is none."""
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
  """The spec in the file beside, which needs to name nothing but modalities."""
  beside = spec.path_beside(path)
  if not beside.exists():
    return None
  try:
    value = json.loads(beside.read_text("utf-8"))
    label = (value.get("label") or {}).get("column")
  except (OSError, ValueError, AttributeError) as error:
    raise DataError(
      f"{beside} is no spec of columns ({error}); mend it, or remove it for a proposal"
    ) from error
  if label not in (None, column):
    raise DataError(
      f"{beside}: the label is column {label!r}, and nothing is predicted of users or"
      " items; set it to null, and name the column as a modality, or leave it out"
    )
  wanted = {k: v for k, v in value.items() if k not in ("id", "split", "group")}
  label = dataclasses.asdict(_no_label(column))
  return spec.from_json(wanted | {"label": label}, str(beside))


def _no_label(column: str) -> Label:
  """What stands for the label, of which there is none: ids, which are not read."""
  return Label(column, "multiclass")


def _proposed(source: Source, column: str, report: Report) -> Fields:
  """The fields that the columns look like, of which there may be none."""
  others = [name for name in source.schema.names if name != column]
  if not others:
    return {}
  facts = profile_columns(source)
  try:
    proposed, unused = propose(facts, source.where, label=column)
  except DataError as error:  # There is none.
    report(f"no fields: {error}")
    return {}
  fields, unfit = _fit(source, proposed.modalities)
  marks = {proposed.id: "it names the rows", proposed.split: "it tells parts"}
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
) -> tuple[Fields, dict[str, str]]:
  """The fields that can be fitted, and of others why not.

  Raises:
    DataError: A value that cannot be of its kind.
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
  """The table of all rows; takes in the pictures that cannot be read."""
  columns = encoding.spec.columns
  parts = [
    encoding.table(
      batch, rows, source.where, labelled=False, unreadable=absent
    ).modalities
    for rows, batch in numbered_batches(source, columns)
  ]
  schema = encoding.schema.modalities
  modalities = {name: _joined([part[name] for part in parts]) for name in schema}
  return _table(modalities, schema, ids)


def _joined(parts: Sequence[Ragged]) -> Ragged:
  """The examples of all parts, one after the other."""
  lengths = np.concatenate([np.diff(part.offsets) for part in parts])
  joined = from_lengths(np.concatenate([part.values for part in parts]), lengths)
  if parts[0].weights is None:
    return joined
  return joined.replace(weights=np.concatenate([part.weights for part in parts]))


def _table(
  modalities: Mapping[str, Ragged], kinds: Mapping[str, Any], ids: np.ndarray
) -> Table:
  targets = np.zeros((len(ids), 0), np.float32)
  return Table(Schema(kinds, Target("none", 0)), modalities, targets, ids)
