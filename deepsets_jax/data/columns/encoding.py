"""A spec with what was fitted on the training part: from rows of a file to a table."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from deepsets_jax.data.columns import cells, spec
from deepsets_jax.data.columns.images import Folder
from deepsets_jax.data.columns.labels import Answers
from deepsets_jax.data.columns.numeric import Moments, Scale
from deepsets_jax.data.columns.spec import Spec
from deepsets_jax.data.columns.survey import (
  TRAIN,
  Survey,
  located,
  names_of,
  numbered,
)
from deepsets_jax.data.columns.tokens import Vocabulary
from deepsets_jax.data.files.source import Source
from deepsets_jax.data.table import DataError, Table, blank
from deepsets_jax.schema import Schema

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
  fitted: Mapping[str, Scale | Vocabulary | Folder]
  answers: Answers
  columns: pa.Schema

  @property
  def schema(self) -> Schema:
    """Of the tables."""
    modalities = {
      name: kind.modality(self.fitted[name])
      for name, kind in self.spec.modalities.items()
    }
    return Schema(modalities, self.spec.label.target(self.answers))

  def names(self) -> dict[str, tuple[str, ...]]:
    """The string of every token id, by modality; not of buckets."""
    return {
      name: tuple(fitted.words)
      for name, fitted in self.fitted.items()
      if isinstance(fitted, Vocabulary) and fitted.words is not None
    }

  def at(self, folder: str) -> Encoding:
    """The same for a file in a folder, where the paths of pictures begin."""
    fitted = {
      name: Folder(folder) if isinstance(state, Folder) else state
      for name, state in self.fitted.items()
    }
    return dataclasses.replace(self, fitted=fitted)

  def table(
    self, batch: pa.RecordBatch, rows: np.ndarray, where: str, *, labelled: bool
  ) -> Table:
    """The table of some rows of a file. A column that is not there is absent.

    Args:
      batch: The rows.
      rows: Their numbers in the file.
      where: What to call the file in a message.
      labelled: Whether there is a label and an id in each row; else targets are zeros
        and ids the rows' numbers.

    Raises:
      DataError: A value that cannot be what the spec says; names row and column.
    """
    nothing = blank(self.schema).select(np.zeros(len(batch), np.int64))
    modalities = dict(nothing.modalities)
    for name, kind in self.spec.modalities.items():
      if kind.column not in batch.schema.names:
        continue
      try:
        modalities[name] = kind.encode(batch[kind.column], self.fitted[name])
      except cells.CellError as error:
        raise located(error, where, kind.column, rows) from error
    targets, ids = nothing.targets, None
    if labelled:
      targets = self._targets(batch, rows, where)
      ids = batch[self.spec.id] if self.spec.id else None
    names = np.array(names_of(ids, where, self.spec.id, rows), np.str_)
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
    answers = Answers.from_json(value["answers"])
  except (KeyError, TypeError, ValueError) as error:
    raise DataError(f"{where} is damaged ({error!r}); train anew") from error
  return Encoding(of_spec, fitted, answers, columns)


def fit(source: Source, of_spec: Spec, survey: Survey) -> Encoding:
  """The encoding of a file; scales and vocabularies are of the training part alone.

  Raises:
    DataError: A value that cannot be what the spec says, or a column with nothing to
      learn from.
  """
  fittings = {name: kind.fitting() for name, kind in of_spec.modalities.items()}
  moments, label = Moments(), of_spec.label
  for rows, batch in numbered(source, of_spec.columns):
    mask = survey.parts[rows] == TRAIN
    batch, rows = batch.filter(pa.array(mask)), rows[mask]
    for name, kind in of_spec.modalities.items():
      try:
        fittings[name].add(batch[kind.column])
      except cells.CellError as error:
        raise located(error, source.where, kind.column, rows) from error
    if label.kind == "regression" and len(batch):
      try:
        moments.add(label.numbers(batch[label.column]))
      except cells.CellError as error:
        raise located(error, source.where, label.column, rows) from error
  fitted = {}
  for name, kind in of_spec.modalities.items():
    try:
      fitted[name] = fittings[name].result()
    except ValueError as error:
      raise DataError(
        f"{source.where}: column {kind.column!r}, modality {name!r}: {error}; mend it,"
        " or leave it out of the spec"
      ) from error
  scale = moments.scale() if label.kind == "regression" else None
  if scale is not None and not moments.varies:
    raise DataError(
      f"{source.where}: label column {label.column!r}: every training row has"
      f" {scale.mean.tolist()}: there is nothing to learn"
    )
  columns = _wanted(source.schema, of_spec)
  return Encoding(of_spec, fitted, Answers(survey.labels, scale), columns)


def _wanted(schema: pa.Schema, of_spec: Spec) -> pa.Schema:
  """The schema with float64 wherever numbers are read, whole ones or not."""
  for kind in of_spec.modalities.values():
    if kind.kind in ("number", "numbers", "vector", "vectors"):
      place = schema.get_field_index(kind.column)
      floats = pa.field(kind.column, _floats(schema.field(place).type))
      schema = schema.set(place, floats)
  return schema


def _floats(kind: pa.DataType) -> pa.DataType:
  if cells.is_list(kind):
    return pa.list_(_floats(kind.value_type))
  return kind if pa.types.is_temporal(kind) else pa.float64()
