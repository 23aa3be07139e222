"""Predict a file of any size row by row, in its order and in constant memory.

Parts of the output collect in a folder beside it, and are joined at the end. The same
command resumes an interrupted prediction. A part has a column `id` with the names of
the rows, the columns of `Predictor.columns` and, with `evaluate`, those of
`label_metrics.label_columns`.
"""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deepsets_jax.data.ingest.columns import cells
from deepsets_jax.data.ingest.columns.encoding import Encoding
from deepsets_jax.data.ingest.columns.images import Unreadable
from deepsets_jax.data.ingest.columns.spec import NUMERIC
from deepsets_jax.data.ingest.columns.splits import numbered_batches
from deepsets_jax.data.ingest.files import paths
from deepsets_jax.data.ingest.files.source import Source, shorten_names
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import DataError
from deepsets_jax.foundation.files import replacing, write_json
from deepsets_jax.serving import label_metrics, prediction_files
from deepsets_jax.serving.predictor import Predictor

__all__ = ["predict_file"]

_MANIFEST = "manifest.json"
_UNREADABLE = "unreadable.json"
_FORMAT = "parts 2"
# Columns of parts that the output leaves out.
_KEPT_BACK = ("logits", *label_metrics.COLUMNS)


def predict_file(
  predictor: Predictor,
  path: str,
  output: str | pathlib.Path,
  report: Callable[[str], Any],
  progress: Callable[[int], Any] = lambda rows: None,
  *,
  evaluate: bool = False,
  strict: bool = False,
) -> int:
  """Predict every row of a file, write them in its order, and return their number.

  The modality of a missing column is absent.

  Args:
    predictor: The run.
    path: Path of the file, see `opening.open_source`.
    output: File to write, see `prediction_files` for its kinds.
    report: Receives a line for each absent or unknown column, and other remarks.
    progress: Receives the number of finished rows.
    evaluate: Whether to measure predictions by the label in the file, and write the
      metrics to `label_metrics.file_beside(output)`.
    strict: Whether an image that cannot be read raises instead of being absent.

  Raises:
    FileExistsError: A file to write exists.
    ConfigError: `output` has an unknown ending.
    DataError: The file has no column of the spec or a bad value, or the folder holds
      parts of another prediction.
  """
  output = _check_output(pathlib.Path(output), evaluate)
  encoding = predictor.encoding.with_image_folder(paths.folder(path))
  source = encoding.spec.open(path, _types_of_untyped_file(encoding, path, evaluate))
  columns = _columns_to_read(encoding, source, evaluate, report)
  parts = output.with_name(f"{output.name}.parts")
  settings = {"evaluate": evaluate, "strict": strict}
  done = _open_parts(parts, predictor, path, settings, report)
  progress(done)
  any_element, absent = done > 0, None if strict else _unreadable_so_far(parts)
  for rows, batch in numbered_batches(source, columns, done):
    batch = _match_types(batch, encoding, rows, source.where)
    table = encoding.table(batch, rows, source.where, labelled=False, unreadable=absent)
    any_element |= any(len(elements.values) for elements in table.modalities.values())
    part = _predict_part(predictor, table, batch, rows, source.where, evaluate)
    _write_part(parts, rows, part, absent)
    done = int(rows[-1]) + 1
    progress(done)
  _report_absence(source.where, any_element, absent, report)
  identity = encoding.spec.id if encoding.spec.id in columns else "row"
  _join_parts(parts, output, predictor, identity, report, evaluate)
  return done


def _report_absence(
  where: str, any_element: bool, absent: Unreadable | None, report: Callable[[str], Any]
) -> None:
  if not any_element:
    report(f"{where}: all rows are alike, as all of their modalities are absent")
  if absent is not None and absent.counts:
    report(absent.describe(where))


def _check_output(output: pathlib.Path, evaluate: bool) -> pathlib.Path:
  """Return the output; raise if it has an unknown ending, or exists."""
  prediction_files.check_name(output)
  for file in (output, *([label_metrics.file_beside(output)] if evaluate else [])):
    if file.exists():
      raise FileExistsError(f"{file} exists; remove it, or choose another --output")
  return output


def _unreadable_so_far(parts: pathlib.Path) -> Unreadable:
  """Return the images that could not be read for the finished parts."""
  known = parts / _UNREADABLE
  return Unreadable(**json.loads(known.read_text())) if known.exists() else Unreadable()


def _predict_part(
  predictor: Predictor,
  table: Table,
  batch: pa.RecordBatch,
  rows: np.ndarray,
  where: str,
  evaluate: bool,
) -> pa.Table:
  """Return the part of some rows, see the docstring of the module."""
  identity = predictor.encoding.spec.id
  names = batch[identity] if identity in batch.schema.names else pa.array(rows)
  found = {"id": names} | predictor.columns(table)
  if evaluate:
    found |= label_metrics.label_columns(predictor.encoding, batch, rows, where)
  return pa.table(found)


def _types_of_untyped_file(encoding: Encoding, path: str, evaluate: bool) -> pa.Schema:
  """Return the types to read a file with that has none of its own, such as CSV.

  Images have no entry, as they may be bytes or paths. A file with types keeps them, see
  `_match_types`.
  """
  if paths.have_types(path):
    return pa.schema([])
  of_spec = encoding.spec
  names = {
    column: None
    for kind in of_spec.modalities.values()
    for column, one in kind.by_column.items()
    if one.kind != "image"
  }
  names |= {of_spec.id: None} if of_spec.id else {}
  fields = {name: encoding.columns.field(name) for name in names}
  if evaluate:
    label = encoding.columns.field(of_spec.label.column)
    if of_spec.label.kind == "regression" and pa.types.is_integer(label.type):
      label = label.with_type(pa.float64())
    fields[label.name] = label
  return pa.schema(list(fields.values()))


def _match_types(
  batch: pa.RecordBatch, encoding: Encoding, rows: np.ndarray, where: str
) -> pa.RecordBatch:
  """Cast columns to the types of training where their meaning is clear."""
  kinds = {
    column: kind
    for whole in encoding.spec.modalities.values()
    for column, kind in whole.by_column.items()
  }
  kinds[encoding.spec.label.column] = None
  for index, name in enumerate(batch.schema.names):
    if name not in kinds:  # The id keeps its type.
      continue
    field = encoding.columns.field(name)
    with cells.locate_errors(where, name, rows):
      column = _match_type(batch[name], kinds[name], field)
    batch = batch.set_column(index, name, column)
  return batch


def _match_type(column: pa.Array, kind: Any, field: pa.Field) -> pa.Array:
  wanted = field.type
  if kind is not None and kind.kind in NUMERIC:
    # Numbers and times of all types can be read.
    if not pa.types.is_string(column.type):
      return column
    wanted = pa.timestamp("us") if pa.types.is_date(wanted) else wanted
  return cells.match_type(column, wanted)


def _columns_to_read(
  encoding: Encoding, source: Source, evaluate: bool, report: Callable[[str], Any]
) -> list[str]:
  """Check the columns of the file, report differences, and return those to read."""
  for note in source.notes:
    report(f"{source.where}: {note}")
  spec, there = encoding.spec, source.schema
  unknown = sorted(set(there.names) - set(encoding.columns.names))
  if unknown:
    report(
      f"{source.where}: columns that training did not have are ignored:"
      f" {shorten_names(unknown)}"
    )
  kinds = [
    (name, column, kind)
    for name, whole in spec.modalities.items()
    for column, kind in whole.by_column.items()
  ]
  if not any(column in there.names for _, column, _ in kinds):
    named = shorten_names(sorted(column for _, column, _ in kinds))
    raise DataError(
      f"{source.where}: the file has none of the columns of the run; it has"
      f" {shorten_names(there.names)}, the run reads {named}"
    )
  used = {}
  for name, column, kind in kinds:
    several = len(spec.modalities[name].by_column) > 1
    absent = f"{'its part of ' if several else ''}{name!r} is absent"
    if column not in there.names:
      report(f"{source.where}: no column {column!r}: {absent}")
      continue
    found = there.field(column).type
    if pa.types.is_null(found):
      report(f"{source.where}: column {column!r} is empty: {absent}")
      continue
    as_trained = _match_type(pa.array([], found), kind, encoding.columns.field(column))
    if not kind.accepts(as_trained.type):
      raise DataError(
        f"{source.where}: column {column!r} is {found}, but the run reads {kind.takes};"
        " change its type, or leave it out"
      )
    used[column] = None
    was_string = pa.types.is_string(encoding.columns.field(column).type)
    if was_string and cells.is_number(found):
      report(
        f"{source.where}: column {column!r} is {found}, but was string in training; 7"
        " is read as '7'"
      )
  used |= {spec.id: None} if spec.id in there.names else {}
  used |= {label_metrics.label_column(encoding, source): None} if evaluate else {}
  return list(used)


def _open_parts(
  parts: pathlib.Path,
  predictor: Predictor,
  path: str,
  settings: Mapping[str, bool],
  report: Callable[[str], Any],
) -> int:
  """Make or resume the folder of parts, and return the number of finished rows."""
  files = [*paths.files(path), *predictor.encoding.spec.files(path)]
  facts = [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]
  manifest = {
    "format": _FORMAT,
    "run": predictor.digest,
    "method": predictor.method,
    "input": facts,
    **settings,
  }
  known = parts / _MANIFEST
  if not known.exists():
    parts.mkdir(parents=True, exist_ok=True)
    write_json(known, manifest)
    return 0
  if json.loads(known.read_text()) != manifest:
    raise DataError(
      f"{parts} holds parts of another prediction (run, input, --importance, --evaluate"
      " or --strict differ); remove it, or choose another --output"
    )
  done = 0
  for part in sorted(parts.glob("*.parquet")):
    if int(part.stem) != done:
      raise DataError(
        f"{parts}: the part with row {done} is missing; remove the folder"
      )
    done += pq.read_metadata(part).num_rows
  if done:
    report(f"{parts}: resuming after {done} finished rows")
  return done


def _write_part(
  parts: pathlib.Path, rows: np.ndarray, part: pa.Table, absent: Unreadable | None
) -> None:
  """Write the part of some rows, and the list of unreadable images so far."""
  with replacing(parts / f"{rows[0]:015d}.parquet") as temporary:
    pq.write_table(part, temporary)
  if absent is not None:
    write_json(parts / _UNREADABLE, absent.to_json())


def _join_parts(
  parts: pathlib.Path,
  output: pathlib.Path,
  predictor: Predictor,
  identity: str,
  report: Callable[[str], Any],
  evaluate: bool,
) -> None:
  """Join all parts to the output, write the metrics, and remove the parts."""
  found = sorted(parts.glob("*.parquet"))
  if not found:
    raise DataError("the file has no rows, so there is nothing to predict")
  for name in pq.read_schema(found[0]).names[1:]:
    if (other := prediction_files.output_name(name, identity)) != name:
      report(f"{output}: {name!r} is the id of the row, {other!r} the prediction")
  columns = pq.read_schema(found[0]).names
  columns = [name for name in columns if name not in _KEPT_BACK]
  temporary = parts / "all.tmp"
  target = predictor.target
  prediction_files.write_predictions(
    temporary,
    output.suffix,
    (pq.read_table(part, columns=columns) for part in found),
    identity=identity,
    names=target.names,
    separator=predictor.encoding.spec.label.separator,
    metadata={
      "labels": target.names,
      "importance": predictor.method,
      "threshold": predictor.trained.threshold,
    },
  )
  if evaluate:
    facts = label_metrics.measure(predictor, found, report)
    write_json(label_metrics.file_beside(output), facts)
  temporary.replace(output)
  shutil.rmtree(parts)
