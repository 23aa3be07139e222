"""A spec with what was fitted on the training part: from rows of a file to a table."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from deepsets_jax.data.ingest.columns import cells, spec
from deepsets_jax.data.ingest.columns.fields import Quantity, States
from deepsets_jax.data.ingest.columns.images import ImageColumn, ImageFolder, Unreadable
from deepsets_jax.data.ingest.columns.labels import LabelEncoder
from deepsets_jax.data.ingest.columns.numeric import Moments, Scale
from deepsets_jax.data.ingest.columns.spec import Spec
from deepsets_jax.data.ingest.columns.splits import (
  TRAIN,
  SplitAssignment,
  batches_with_parts,
  example_names,
  located,
)
from deepsets_jax.data.ingest.columns.tokens import Vocabulary
from deepsets_jax.data.ingest.files.source import Source, shorten_names
from deepsets_jax.data.tables.schema import Schema
from deepsets_jax.data.tables.table import Table, blank
from deepsets_jax.foundation.errors import DataError

FORMAT = "deepsets_jax columns 1"


@dataclasses.dataclass(frozen=True)
class Encoding:
  """From columns to modalities and targets, the same for every row of every file.

  Attributes:
    spec: What the columns are.
    fitted: Of the training part, by modality: scales and vocabularies.
    answers: Of the label.
    columns: All columns of the file that was trained on; of those of modalities the
      types that other files' cells are read as, where these have none of their own.
  """

  spec: Spec
  fitted: Mapping[str, Scale | Vocabulary | ImageFolder | States]
  answers: LabelEncoder
  columns: pa.Schema

  @property
  def schema(self) -> Schema:
    """Of the tables."""
    modalities = {
      name: kind.modality(self.fitted[name])
      for name, kind in self.spec.modalities.items()
    }
    return Schema(modalities, self.spec.label.target(self.answers))

  def names(self) -> dict[str, tuple[str | Quantity, ...]]:
    """Names of the token ids, by modality; hash buckets have none."""
    found: dict[str, tuple[str | Quantity, ...]] = {}
    for name, fitted in self.fitted.items():
      if isinstance(fitted, States):
        found[name] = self.spec.modalities[name].names(fitted, self.columns)
      elif isinstance(fitted, Vocabulary) and fitted.words is not None:
        found[name] = tuple(fitted.words)
    return found

  def at(self, folder: str) -> Encoding:
    """The same for a file in a folder, where the paths of pictures begin."""
    fitted = {
      name: ImageFolder(folder) if isinstance(state, ImageFolder) else state
      for name, state in self.fitted.items()
    }
    return dataclasses.replace(self, fitted=fitted)

  def table(
    self,
    batch: pa.RecordBatch,
    rows: np.ndarray,
    where: str,
    *,
    labelled: bool,
    unreadable: Unreadable | None = None,
  ) -> Table:
    """The table of some rows of a file. A column that is not there is absent.

    Args:
      batch: The rows.
      rows: Their numbers in the file.
      where: What to call the file in a message.
      labelled: Whether there is a label and an id in each row; else targets are zeros
        and ids the rows' numbers.
      unreadable: Takes in pictures that cannot be read and are absent; None makes these
        an error.

    Raises:
      DataError: A value that cannot be what the spec says; names row and column.
    """
    nothing = blank(self.schema).select(np.zeros(len(batch), np.int64))
    modalities = dict(nothing.modalities)
    for name, kind in self.spec.modalities.items():
      found = kind.cells_in(batch)
      if found is None:
        continue
      try:
        if isinstance(kind, ImageColumn) and unreadable is not None:

          def skip(index: int, reason: str, name: str = kind.column) -> None:
            unreadable.add(rows[index], name, reason)

          modalities[name] = kind.encode(found, self.fitted[name], skip)
        else:
          modalities[name] = kind.encode(found, self.fitted[name])
      except cells.CellError as error:
        raise located(error, where, next(iter(kind.by_column)), rows) from error
    targets, ids = nothing.targets, None
    if labelled:
      targets = self._targets(batch, rows, where)
      ids = batch[self.spec.id] if self.spec.id else None
    names = np.array(example_names(ids, where, self.spec.id, rows), np.str_)
    return Table(nothing.schema, modalities, targets, names)

  def _targets(self, batch: pa.RecordBatch, rows: np.ndarray, where: str) -> np.ndarray:
    column = self.spec.label.column
    try:
      return self.spec.label.encode(batch[column], self.answers)
    except cells.CellError as error:
      raise located(error, where, column, rows) from error

  def to_json(self) -> dict[str, Any]:
    """Of plain values."""
    return {
      "format": FORMAT,
      "spec": self.spec.to_json(),
      "fitted": {name: state.to_json() for name, state in self.fitted.items()},
      "answers": self.answers.to_json(),
      "columns": base64.b64encode(self.columns.serialize()).decode(),
    }


def from_json(value: Mapping[str, Any], where: str) -> Encoding:
  """The encoding that `to_json` gave.

  Raises:
    DataError: It is of another format, or damaged.
  """
  found = value.get("format") if isinstance(value, Mapping) else None
  if found != FORMAT:
    raise DataError(f"{where}: format {found!r}, expected {FORMAT!r}; train anew")
  try:
    columns = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(value["columns"])))
    of_spec = spec.from_json(value["spec"], where)
    fitted = {
      name: kind.restore(value["fitted"][name])
      for name, kind in of_spec.modalities.items()
    }
    answers = LabelEncoder.from_json(value["answers"])
  except (KeyError, TypeError, ValueError) as error:
    raise DataError(f"{where} is damaged ({error!r}); train anew") from error
  return Encoding(of_spec, fitted, answers, columns)


class Fitting:
  """Takes in the training rows of a file, all at once or in parts that are merged."""

  def __init__(self, of_spec: Spec, where: str):
    self._spec, self._where = of_spec, where
    self._fittings = {name: k.fitting() for name, k in of_spec.modalities.items()}
    self._moments = Moments()

  def add(self, batch: pa.RecordBatch, rows: np.ndarray, parts: np.ndarray) -> None:
    """Takes in those of some rows that are of the training part.

    Args:
      batch: The rows.
      rows: Their numbers in the file.
      parts: Of each, as in `SplitAssignment`.

    Raises:
      DataError: A value that cannot be what the spec says; names row and column.
    """
    mask = parts == TRAIN
    batch, rows = batch.filter(pa.array(mask)), rows[mask]
    for name, kind in self._spec.modalities.items():
      try:
        self._fittings[name].add(kind.cells_in(batch))
      except cells.CellError as error:
        raise located(error, self._where, next(iter(kind.by_column)), rows) from error
    label = self._spec.label
    if label.kind == "regression" and len(batch):
      try:
        self._moments.add(label.numbers(batch[label.column]))
      except cells.CellError as error:
        raise located(error, self._where, label.column, rows) from error

  def merge(self, other: Fitting) -> None:
    """Takes in what another has, of other rows.

    Raises:
      DataError: Vectors of one column are not of one size.
    """
    for name, fitting in self._fittings.items():
      try:
        fitting.merge(other._fittings[name])
      except ValueError as error:
        raise self._of_column(name, error) from error
    self._moments.merge(other._moments)

  def result(self, schema: pa.Schema, labels: Sequence[str]) -> Encoding:
    """The encoding of the file.

    Args:
      schema: Of the file.
      labels: As in `SplitAssignment`.

    Raises:
      DataError: A column with nothing to learn from.
    """
    fitted = {}
    for name, fitting in self._fittings.items():
      try:
        fitted[name] = fitting.result()
      except ValueError as error:
        raise self._of_column(name, error) from error
    label, scale = self._spec.label, None
    if label.kind == "regression":
      scale = self._moments.scale()
      if not self._moments.varies:
        raise DataError(
          f"{self._where}: label column {label.column!r}: every training row has"
          f" {scale.mean.tolist()}: there is nothing to learn"
        )
    columns = _wanted(schema, self._spec)
    return Encoding(self._spec, fitted, LabelEncoder(labels, scale), columns)

  def _of_column(self, name: str, error: ValueError) -> DataError:
    columns = list(self._spec.modalities[name].by_column)
    called = repr(columns[0]) if len(columns) == 1 else shorten_names(columns)
    return DataError(
      f"{self._where}: column {called}, modality {name!r}: {error}; fix it, or leave"
      " it out of the spec"
    )


def fit(source: Source, of_spec: Spec, survey: SplitAssignment) -> Encoding:
  """The encoding of a file; scales and vocabularies are of the training part alone.

  Raises:
    DataError: A value that cannot be what the spec says, or a column with nothing to
      learn from.
  """
  fitting = Fitting(of_spec, source.where)
  for rows, parts, batch in batches_with_parts(source, of_spec.columns, survey.parts):
    fitting.add(batch, rows, parts)
  return fitting.result(source.schema, survey.labels)


def _wanted(schema: pa.Schema, of_spec: Spec) -> pa.Schema:
  """The schema with float64 wherever numbers are read, whole ones or not."""
  fields = {field.name: field for field in schema}
  for kind in of_spec.modalities.values():
    for column, one in kind.by_column.items():
      if one.kind in spec.NUMERIC:
        fields[column] = pa.field(column, _floats(fields[column].type))
  return pa.schema(list(fields.values()), metadata=schema.metadata)


def _floats(kind: pa.DataType) -> pa.DataType:
  if cells.is_list(kind):
    return pa.list_(_floats(kind.value_type))
  return kind if pa.types.is_temporal(kind) else pa.float64()
