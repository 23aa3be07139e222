"""Measure predictions of a file by the labels in the file."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deepsets_jax.data.ingest.columns import cells
from deepsets_jax.data.ingest.columns.encoding import Encoding
from deepsets_jax.data.ingest.files.source import Source
from deepsets_jax.data.tables.arrow_lists import vectors_from_arrow, vectors_to_arrow
from deepsets_jax.foundation.errors import DataError
from deepsets_jax.serving.predictor import Predictor
from deepsets_jax.training import metrics

# Columns of `label_columns`.
COLUMNS = ("targets", "measured")
# Kinds of label with several numbers per target.
_WIDE = ("multilabel", "regression")
_YES, _NO_LABEL, _UNKNOWN_CLASS = "yes", "no label", "unknown class"


def file_beside(output: pathlib.Path) -> pathlib.Path:
  """Return the file for the metrics of an output: `films.metrics.json`, `films.csv`."""
  return output.with_name(f"{output.stem}.metrics.json")


def label_column(encoding: Encoding, source: Source) -> str:
  """Return the name of the label column of a file.

  Raises:
    DataError: The file does not have the column, or its type does not fit.
  """
  label = encoding.spec.label
  if label.column not in source.schema.names:
    raise DataError(
      f"{source.where}: --evaluate needs the label, column {label.column!r}, which the"
      " file does not have; leave --evaluate out to predict only"
    )
  found = source.schema.field(label.column).type
  trained = encoding.columns.field(label.column).type
  if not label.accepts(cells.match_type(pa.array([], found), trained).type):
    raise DataError(
      f"{source.where}: column {label.column!r} is {found}, but a {label.kind} label is"
      f" {label.takes}"
    )
  return label.column


def label_columns(
  encoding: Encoding, batch: pa.RecordBatch, rows: np.ndarray, where: str
) -> dict[str, pa.Array]:
  """Read the labels of some rows, for `measure`.

  Args:
    encoding: The encoding of the run.
    batch: Cells of the rows.
    rows: Row numbers in the file, `[b]`.
    where: Name of the file in messages.

  Returns:
    "targets": `[b, k]` float64; `k` is 1 for classes and binary targets.
    "measured": "yes" for rows that count, else "no label", or "unknown class" for a
      class that the run cannot predict.

  Raises:
    DataError: A label does not fit its kind; names row and column.
  """
  label = encoding.spec.label
  missing = "none" if label.missing == "none" else "drop"
  label, column = dataclasses.replace(label, missing=missing), batch[label.column]
  there = label.label_mask(column)
  with cells.locate_errors(where, label.column, rows[there]):
    encoded = label.encode(column.filter(pa.array(there)), encoding.label_encoder)
  encoded = encoded.reshape(int(there.sum()), -1).astype(np.float64)
  width = encoding.schema.target.size if label.kind in _WIDE else 1
  targets = np.zeros((len(batch), width))
  targets[there] = encoded
  states = np.where(there, _YES, _NO_LABEL).astype(object)
  if label.kind == "multiclass":
    states[there & (targets[:, 0] < 0)] = _UNKNOWN_CLASS
  return {
    "targets": vectors_to_arrow(targets),
    "measured": pa.array(states, pa.string()),
  }


def measure(
  predictor: Predictor, parts: Sequence[pathlib.Path], report: Callable[[str], Any]
) -> dict[str, Any]:
  """Compute the metrics of predictions, in the units of the results of a run.

  The loss is not among them, as it needs the label frequencies of the training part.

  Args:
    predictor: The run.
    parts: Files of parts, with the columns of `label_columns`.
    report: Receives a line about rows that do not count.

  Returns:
    "rows": Number of rows that count.
    "no label", "unknown class": Numbers of rows that do not count.
    "threshold": Threshold of probabilities.
    "metrics": Values of `metrics.for_target` by name; empty if no row counts.
  """
  target, threshold = predictor.target, predictor.trained.threshold
  table = pa.concat_tables(
    pq.read_table(part, columns=["logits", *COLUMNS]) for part in parts
  )
  states = np.array(table["measured"].to_pylist(), object)
  counts = states == _YES
  columns = (table[name] for name in ("logits", "targets"))
  logits, targets = (vectors_from_arrow(column)[counts] for column in columns)
  for state in (_NO_LABEL, _UNKNOWN_CLASS):
    if number := int((states == state).sum()):
      report(f"{number} of {len(states)} rows are not evaluated: {state}")
  found = {}
  if counts.any():
    targets = targets if predictor.encoding.spec.label.kind in _WIDE else targets[:, 0]
    weights = np.ones(len(logits))
    found = metrics.for_target(target, logits, targets, weights, threshold)
  return {
    "rows": int(counts.sum()),
    _NO_LABEL: int((states == _NO_LABEL).sum()),
    _UNKNOWN_CLASS: int((states == _UNKNOWN_CLASS).sum()),
    "threshold": threshold,
    "metrics": found,
  }
