"""How good predictions of a file are, by the label that is in it."""

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
from deepsets_jax.data.ingest.columns.splits import located
from deepsets_jax.data.ingest.files.source import Source
from deepsets_jax.foundation.errors import DataError
from deepsets_jax.serving.predictor import Predictor
from deepsets_jax.training import metrics

# Of the parts of a prediction, see `truth`.
COLUMNS = ("targets", "measured")
# Kinds of label whose targets are rows of numbers.
_WIDE = ("multilabel", "regression")
_YES, _NO_LABEL, _UNKNOWN_CLASS = "yes", "no label", "unknown class"


def file_beside(output: pathlib.Path) -> pathlib.Path:
  """Where the metrics of an output are written: `films.metrics.json` of `films.csv`."""
  return output.with_name(f"{output.stem}.metrics.json")


def label_column(encoding: Encoding, source: Source) -> str:
  """The column with the label in a file.

  Raises:
    DataError: There is none, or it is of another type.
  """
  label = encoding.spec.label
  if label.column not in source.schema.names:
    raise DataError(
      f"{source.where}: no column {label.column!r}, the label, to evaluate by; leave"
      " out --evaluate to predict alone"
    )
  found = source.schema.field(label.column).type
  trained = encoding.columns.field(label.column).type
  if not label.accepts(cells.matched(pa.array([], found), trained).type):
    raise DataError(
      f"{source.where}: column {label.column!r} is {found}; a {label.kind} label is"
      f" {label.takes}"
    )
  return label.column


def truth(
  encoding: Encoding, batch: pa.RecordBatch, rows: np.ndarray, where: str
) -> dict[str, pa.Array]:
  """What some rows should be predicted as, for `measure`.

  Returns:
    "targets": `[b, k]` float64, of one number for classes and binary targets.
    "measured": Whether a row counts: "yes", or "no label", or "unknown class", which
      the run cannot predict.

  Raises:
    DataError: A label that is none of its kind; names row and column.
  """
  label = encoding.spec.label
  missing = "none" if label.missing == "none" else "drop"
  label, column = dataclasses.replace(label, missing=missing), batch[label.column]
  there = label.given(column)
  try:
    encoded = label.encode(column.filter(pa.array(there)), encoding.answers)
  except cells.CellError as error:
    raise located(error, where, label.column, rows[there]) from error
  encoded = encoded.reshape(int(there.sum()), -1).astype(np.float64)
  width = encoding.schema.target.size if label.kind in _WIDE else 1
  targets = np.zeros((len(batch), width))
  targets[there] = encoded
  states = np.where(there, _YES, _NO_LABEL).astype(object)
  if label.kind == "multiclass":
    states[there & (targets[:, 0] < 0)] = _UNKNOWN_CLASS
  flat = pa.array(targets.reshape(-1))
  return {
    "targets": pa.FixedSizeListArray.from_arrays(flat, width),
    "measured": pa.array(states, pa.string()),
  }


def measure(
  predictor: Predictor, parts: Sequence[pathlib.Path], report: Callable[[str], Any]
) -> dict[str, Any]:
  """The metrics of the predictions in some parts, in the units of a run's results.

  There is no loss among them, which would need the frequencies of the training part.

  Args:
    predictor: The run.
    parts: Files of parts, with the columns of `truth`.
    report: Told of rows that do not count.

  Returns:
    "rows", that count; "no label" and "unknown class", rows that do not; "threshold";
    and "metrics" by name, of `metrics.for_target`, empty if no row counts.
  """
  target, threshold = predictor.target, predictor.trained.threshold
  table = pa.concat_tables(
    pq.read_table(part, columns=["logits", *COLUMNS]) for part in parts
  )
  states = np.array(table["measured"].to_pylist(), object)
  counts = states == _YES
  logits, targets = (_matrix(table[name])[counts] for name in ("logits", "targets"))
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


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
  """Lists of one size, `[b, k]`."""
  whole = column.combine_chunks()
  return whole.flatten().to_numpy().reshape(len(whole), whole.type.list_size)
