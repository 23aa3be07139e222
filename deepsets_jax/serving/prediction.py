"""What a run says of a file of any size: row by row, in order, in constant memory.

The output grows part by part in a folder beside it, and is put together at the end; the
same command goes on where it was stopped. A part has a column `id`, the names of rows,
the columns of `Predictor.columns` and, if it is evaluated, those of
`label_metrics.truth`.
"""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deepsets_jax.data.ingest.columns import cells
from deepsets_jax.data.ingest.columns.encoding import Encoding
from deepsets_jax.data.ingest.columns.images import Unreadable
from deepsets_jax.data.ingest.columns.spec import NUMERIC
from deepsets_jax.data.ingest.columns.splits import located, numbered_batches
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
# Columns of parts that are not written to the output.
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
  """Predicts every row of a file, writes them in its order, and returns their number.

  A column of the spec that is not there is an absent modality.

  Args:
    predictor: The run.
    path: Of the file, see `opening.open_source`.
    output: File to write; see `prediction_files` for its kinds.
    report: Told once of every column that is absent or unknown.
    progress: Told of the number of rows that are done.
    evaluate: Whether to measure by the label in the file, and to write metrics to
      `label_metrics.file_beside(output)`.
    strict: Whether a picture that cannot be read is an error, instead of absent.

  Raises:
    FileExistsError: There is something where files are written.
    ValueError: An unknown ending of `output`.
    DataError: No column of the spec, or a bad value; or parts of another prediction.
  """
  output = _free(pathlib.Path(output), evaluate)
  encoding = predictor.encoding.at(paths.folder(path))
  source = encoding.spec.open(path, _wanted(encoding, path, evaluate))
  columns = _columns(encoding, source, evaluate, report)
  parts = output.with_name(f"{output.name}.parts")
  settings = {"evaluate": evaluate, "strict": strict}
  done = _adopt(parts, predictor, path, settings, report)
  progress(done)
  something, absent = done > 0, None if strict else _absent(parts)
  for rows, batch in numbered_batches(source, columns, done):
    batch = _matched(batch, encoding, rows, source.where)
    table = encoding.table(batch, rows, source.where, labelled=False, unreadable=absent)
    something |= any(len(elements.values) for elements in table.modalities.values())
    found = _found(predictor, table, batch, rows, source.where, evaluate)
    _keep(parts, rows, found, absent)
    done = int(rows[-1]) + 1
    progress(done)
  for line in _remarks(source.where, something, absent):
    report(line)
  identity = encoding.spec.id if encoding.spec.id in columns else "row"
  _finish(parts, output, predictor, identity, report, evaluate)
  return done


def _remarks(where: str, something: bool, absent: Unreadable | None) -> Iterator[str]:
  """What there is to say at the end of a file."""
  if not something:
    yield f"{where}: no row has anything to predict from; all are as one"
  if absent is not None and absent.counts:
    yield absent.describe(where)


def _free(output: pathlib.Path, evaluate: bool) -> pathlib.Path:
  """The output, after a look at whether it can be written."""
  prediction_files.check_name(output)
  for file in (output, *([label_metrics.file_beside(output)] if evaluate else [])):
    if file.exists():
      raise FileExistsError(f"{file} exists; remove it, or choose another --output")
  return output


def _absent(parts: pathlib.Path) -> Unreadable:
  """The pictures that could not be read in the parts that are there."""
  known = parts / _UNREADABLE
  return Unreadable(**json.loads(known.read_text())) if known.exists() else Unreadable()


def _found(
  predictor: Predictor,
  table: Table,
  batch: pa.RecordBatch,
  rows: np.ndarray,
  where: str,
  evaluate: bool,
) -> pa.Table:
  """The part of some rows; see the module."""
  identity = predictor.encoding.spec.id
  names = batch[identity] if identity in batch.schema.names else pa.array(rows)
  found = {"id": names} | predictor.columns(table)
  if evaluate:
    found |= label_metrics.truth(predictor.encoding, batch, rows, where)
  return pa.table(found)


def _wanted(encoding: Encoding, path: str, evaluate: bool) -> pa.Schema:
  """The types that columns of a file without types shall have.

  Pictures may be bytes or paths. Files that have types keep them, see `_matched`.
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


def _matched(
  batch: pa.RecordBatch, encoding: Encoding, rows: np.ndarray, where: str
) -> pa.RecordBatch:
  """Some rows, in the types of training where it is plain what they mean."""
  kinds = {
    column: kind
    for whole in encoding.spec.modalities.values()
    for column, kind in whole.by_column.items()
  }
  kinds[encoding.spec.label.column] = None
  for index, name in enumerate(batch.schema.names):
    if name not in kinds:  # The id's type is the file's own.
      continue
    field = encoding.columns.field(name)
    try:
      column = _as_trained(batch[name], kinds[name], field)
    except cells.CellError as error:
      raise located(error, where, name, rows) from error
    batch = batch.set_column(index, name, column)
  return batch


def _as_trained(column: pa.Array, kind: Any, field: pa.Field) -> pa.Array:
  wanted = field.type
  if kind is not None and kind.kind in NUMERIC:
    # Numbers and times of all types are read as they are.
    if not pa.types.is_string(column.type):
      return column
    wanted = pa.timestamp("us") if pa.types.is_date(wanted) else wanted
  return cells.matched(column, wanted)


def _columns(
  encoding: Encoding, source: Source, evaluate: bool, report: Callable[[str], Any]
) -> list[str]:
  """The columns to read, after a look at all of the file's."""
  for note in source.notes:
    report(f"{source.where}: {note}")
  spec, there = encoding.spec, source.schema
  unknown = sorted(set(there.names) - set(encoding.columns.names))
  if unknown:
    report(
      f"{source.where}: columns that training had not are not read:"
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
      f"{source.where}: no column of the run's spec; it has"
      f" {shorten_names(there.names)}, the spec {named}"
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
    as_trained = _as_trained(pa.array([], found), kind, encoding.columns.field(column))
    if not kind.accepts(as_trained.type):
      raise DataError(
        f"{source.where}: column {column!r} is {found}, and the run reads"
        f" {kind.takes} in it; write it so, or leave it out"
      )
    else:
      used[column] = None
      if _is_now_a_string(found, encoding.columns.field(column).type):
        report(
          f"{source.where}: column {column!r} is {found}, in training it was string: 7"
          " is read as '7'"
        )
  used |= {spec.id: None} if spec.id in there.names else {}
  used |= {label_metrics.label_column(encoding, source): None} if evaluate else {}
  return list(used)


def _is_now_a_string(found: pa.DataType, trained: pa.DataType) -> bool:
  return pa.types.is_string(trained) and cells.is_number(found)


def _adopt(
  parts: pathlib.Path,
  predictor: Predictor,
  path: str,
  settings: Mapping[str, bool],
  report: Callable[[str], Any],
) -> int:
  """Makes the folder of parts, or takes it over; returns the rows that are done."""
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
      f"{parts} holds parts of another prediction (of another run, input, method,"
      " --evaluate or --strict): remove it, or choose another --output"
    )
  done = 0
  for part in sorted(parts.glob("*.parquet")):
    if int(part.stem) != done:
      raise DataError(f"{parts}: no part of row {done}; remove the folder")
    done += pq.read_metadata(part).num_rows
  if done:
    report(f"{parts}: {done} rows are there already")
  return done


def _keep(
  parts: pathlib.Path, rows: np.ndarray, part: pa.Table, absent: Unreadable | None
) -> None:
  """Writes the part of some rows, and which pictures could not be read so far."""
  with replacing(parts / f"{rows[0]:015d}.parquet") as temporary:
    pq.write_table(part, temporary)
  if absent is not None:
    write_json(parts / _UNREADABLE, absent.to_json())


def _finish(
  parts: pathlib.Path,
  output: pathlib.Path,
  predictor: Predictor,
  identity: str,
  report: Callable[[str], Any],
  evaluate: bool,
) -> None:
  """One file of all parts, and one of metrics, and then no more parts; or nothing."""
  found = sorted(parts.glob("*.parquet"))
  if not found:
    raise DataError("the file has no rows: there is nothing to predict")
  for name in pq.read_schema(found[0]).names[1:]:
    if (other := prediction_files.renamed(name, identity)) != name:
      report(f"{output}: {name!r} is the id of rows, {other!r} the predicted one")
  temporary = parts / "all.tmp"
  target = predictor.target
  prediction_files.write_predictions(
    temporary,
    output.suffix,
    (_said(pq.read_table(part)) for part in found),
    identity=identity,
    names=target.names,
    separator=predictor.encoding.spec.label.separator,
    facts={
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


def _said(part: pa.Table) -> pa.Table:
  kept = [name for name in part.column_names if name not in _KEPT_BACK]
  return part.select(kept)
