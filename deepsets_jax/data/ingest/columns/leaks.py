"""Find leaks of the label: rows shared between parts, and columns that determine it."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
import sklearn.metrics
import sklearn.tree

from deepsets_jax.data.ingest.columns import cells
from deepsets_jax.data.ingest.columns.labels import Label
from deepsets_jax.data.ingest.columns.spec import PARTS, Spec
from deepsets_jax.data.ingest.columns.splits import (
  TRAIN,
  SplitAssignment,
  batches_with_parts,
)
from deepsets_jax.data.ingest.files import duck
from deepsets_jax.data.ingest.files.source import Source

# Number of rows to test columns on, one by one.
_SAMPLE = 20_000
_FEWEST = 40
# Report a column with this accuracy, unless the most frequent label has this share.
_RIGHT, _USUAL = 0.99, 0.95


def find_leaks(source: Source, spec: Spec, splits: SplitAssignment) -> list[str]:
  """Return sentences, with figures, on what may reveal the label.

  Args:
    source: The table.
    spec: The roles of its columns.
    splits: The part of each row.
  """
  return [*_equal_rows(source, spec, splits), *_leaking_columns(source, spec, splits)]


def _equal_rows(source: Source, spec: Spec, splits: SplitAssignment) -> Iterator[str]:
  """Count the rows of each part that equal a training row, features and label."""
  columns = dict.fromkeys(c for k in spec.modalities.values() for c in k.by_column)
  columns = [*columns, spec.label.column]
  # Columns go by number, as names in SQL do not distinguish "a" from "A".
  numbered = [f"c{place}" for place in range(len(columns))]
  types = [_type(source, name) for name in columns]
  schema = pa.schema([*zip(numbered, types, strict=True), ("_part", pa.int8())])

  def batches() -> Iterator[pa.RecordBatch]:
    for _, parts, batch in batches_with_parts(source, columns, splits.parts):
      arrays = [*(batch[name] for name in columns), pa.array(parts, pa.int8())]
      yield pa.RecordBatch.from_arrays(arrays, schema=schema)

  link = duck.connect()
  reader = pa.RecordBatchReader.from_batches(schema, batches())
  try:
    link.register("given", reader)
    picked = ", ".join(numbered)
    link.execute(
      f"CREATE OR REPLACE TEMP TABLE hashed AS SELECT _part, hash({picked}) AS row"
      " FROM given"
    )
  except duckdb.NotImplementedException:
    return  # DuckDB does not have a type of the table.
  (different,) = link.execute("SELECT count(DISTINCT row) FROM hashed").fetchone()
  if different < 0.5 * len(splits.parts):
    return  # So few different rows are possible that they must repeat.
  counts = link.execute(
    "SELECT _part, count(*), count(*) FILTER (row IN (SELECT row FROM hashed"
    f" WHERE _part = {TRAIN})) FROM hashed WHERE _part > {TRAIN}"
    " GROUP BY _part ORDER BY _part"
  ).fetchall()
  for part, rows, equal in counts:
    if equal:
      yield (
        f"{equal:,} of {rows:,} rows ({equal / rows:.1%}) of the {PARTS[part]} part"
        " equal a training row; remove duplicates, or group them"
      )


def _leaking_columns(
  source: Source, spec: Spec, splits: SplitAssignment
) -> Iterator[str]:
  """Find columns that predict the label alone, on rows that they were not fitted on."""
  if spec.label.kind == "multilabel" or cells.is_list(_type(source, spec.label.column)):
    return
  names = {
    column: spec.label.kind
    for kind in spec.modalities.values()
    for column in kind.by_column
    if cells.is_token(_type(source, column)) or cells.is_number(_type(source, column))
  }
  sample = _sample(source, [*names, spec.label.column], splits)
  sample = sample.filter(sample[spec.label.column].is_valid())
  if len(sample) < _FEWEST:
    return
  target = _target(sample[spec.label.column], spec.label)
  fit = np.random.default_rng(0).permutation(len(sample)) < len(sample) // 2
  for name in names:
    right, usual = _score(sample[name], target, fit, spec.label)
    if right < _RIGHT or usual > _USUAL:
      continue
    finding = f"predicts the label of {right:.1%} of the rows"
    finding += f" (the most frequent label has {usual:.0%})"
    if spec.label.kind == "regression":
      finding = f"explains {right:.1%} of the variance of the label"
    yield (
      f"{name}: this column alone {finding}; leave it out if it is not known before the"
      " label"
    )


def _type(source: Source, column: str) -> pa.DataType:
  return source.schema.field(column).type


def _sample(source: Source, columns: list[str], splits: SplitAssignment) -> pa.Table:
  """Return the first rows that are not left out."""
  taken, rows = [], 0
  for _, parts, batch in batches_with_parts(source, columns, splits.parts):
    taken.append(batch.filter(pa.array(parts >= TRAIN)))
    rows += len(taken[-1])
    if rows >= _SAMPLE:
      break
  return pa.Table.from_batches(taken)[:_SAMPLE].combine_chunks()


def _target(column: pa.ChunkedArray, label: Label) -> np.ndarray:
  if label.kind == "regression":
    return column.cast(pa.float64()).to_numpy()
  encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
  return encoded.indices.to_numpy(zero_copy_only=False)


def _score(
  column: pa.ChunkedArray, target: np.ndarray, fit: np.ndarray, label: Label
) -> tuple[float, float]:
  """Return the score of a column on the other half, and that of a constant."""
  column = column.combine_chunks()
  if pa.types.is_string(column.type):
    codes = _by_mean_target(column, target, fit)
  else:
    values, lengths = cells.numbers(column)
    codes = np.full(len(column), np.nan)
    codes[lengths > 0] = values
  regression = label.kind == "regression"
  tree = (
    sklearn.tree.DecisionTreeRegressor(max_leaf_nodes=256, random_state=0)
    if regression
    else sklearn.tree.DecisionTreeClassifier(max_leaf_nodes=256, random_state=0)
  )
  tree.fit(codes[fit, None], target[fit])
  predicted, true = tree.predict(codes[~fit, None]), target[~fit]
  if regression:
    return float(sklearn.metrics.r2_score(true, predicted)), 0.0
  usual = np.bincount(target).argmax()
  return float((predicted == true).mean()), float((true == usual).mean())


def _by_mean_target(
  column: pa.Array, target: np.ndarray, fit: np.ndarray
) -> np.ndarray:
  """Encode categories by their mean target in one half; NaN for unseen ones."""
  encoded = column.dictionary_encode()
  size = len(encoded.dictionary)
  codes = np.append(encoded.indices.fill_null(size).to_numpy(zero_copy_only=False), [])
  codes = codes.astype(np.int64)
  sums = np.bincount(codes[fit], target[fit], size + 1)
  counts = np.bincount(codes[fit], minlength=size + 1)
  with np.errstate(invalid="ignore"):
    return (sums / counts)[codes]
