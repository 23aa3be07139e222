"""Encode rows of a file as a table, with what was fitted on the training part."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from deepsets_jax.data.ingest.columns import cells, spec
from deepsets_jax.data.ingest.columns.fields import FieldStates, Quantity
from deepsets_jax.data.ingest.columns.images import ImageColumn, ImageFolder, Unreadable
from deepsets_jax.data.ingest.columns.labels import LabelEncoder
from deepsets_jax.data.ingest.columns.numeric import Moments, Scale
from deepsets_jax.data.ingest.columns.spec import Spec
from deepsets_jax.data.ingest.columns.splits import (
  TRAIN,
  SplitAssignment,
  batches_with_parts,
  example_names,
)
from deepsets_jax.data.ingest.columns.tokens import Vocabulary
from deepsets_jax.data.ingest.files.source import Source, shorten_names
from deepsets_jax.data.tables.schema import Schema
from deepsets_jax.data.tables.table import Table, blank
from deepsets_jax.foundation.errors import DataError

FORMAT = "deepsets_jax columns 1"


@dataclasses.dataclass(frozen=True)
class Encoding:
  """Encodes columns as modalities and targets, alike for all rows of all files.

  Attributes:
    spec: The roles of the columns.
    fitted: State of each modality from the training part: scales and vocabularies.
    label_encoder: State of the label.
    columns: All columns of the training file. Other files without types of their own
      are read with the types of these.
  """

  spec: Spec
  fitted: Mapping[str, Scale | Vocabulary | ImageFolder | FieldStates]
  label_encoder: LabelEncoder
  columns: pa.Schema

  @property
  def schema(self) -> Schema:
    """The schema of the tables."""
    modalities = {
      name: kind.modality(self.fitted[name])
      for name, kind in self.spec.modalities.items()
    }
    return Schema(modalities, self.spec.label.target(self.label_encoder))

  def names(self) -> dict[str, tuple[str | Quantity, ...]]:
    """Return the names of the token ids per modality; hash buckets have none."""
    found: dict[str, tuple[str | Quantity, ...]] = {}
    for name, fitted in self.fitted.items():
      if isinstance(fitted, FieldStates):
        found[name] = self.spec.modalities[name].names(fitted, self.columns)
      elif isinstance(fitted, Vocabulary) and fitted.words is not None:
        found[name] = tuple(fitted.words)
    return found

  def with_image_folder(self, folder: str) -> Encoding:
    """Return the encoding with another folder that paths of images are relative to."""
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
    """Encode some rows of a file. The modality of a missing column is absent.

    Args:
      batch: Cells of the rows.
      rows: Row numbers in the file, `[b]`.
      where: Name of the file in messages.
      labelled: Whether each row has a label and an id. If not, targets are zeros and
        ids are row numbers.
      unreadable: Receives images that cannot be read, which are then absent; with None
        such an image raises.

    Raises:
      DataError: A value that does not fit the spec; names row and column.
    """
    nothing = blank(self.schema).select(np.zeros(len(batch), np.int64))
    modalities = dict(nothing.modalities)
    for name, kind in self.spec.modalities.items():
      found, column = kind.cells_in(batch), next(iter(kind.by_column))
      if found is None:
        continue
      skip = []
      if isinstance(kind, ImageColumn) and unreadable is not None:
        skip.append(_unreadable_adder(unreadable, rows, column))
      with cells.locate_errors(where, column, rows):
        modalities[name] = kind.encode(found, self.fitted[name], *skip)
    targets, ids, label = nothing.targets, None, self.spec.label
    if labelled:
      with cells.locate_errors(where, label.column, rows):
        targets = label.encode(batch[label.column], self.label_encoder)
      ids = batch[self.spec.id] if self.spec.id else None
    names = np.array(example_names(ids, where, self.spec.id, rows), np.str_)
    return Table(nothing.schema, modalities, targets, names)

  def to_json(self) -> dict[str, Any]:
    """Return the encoding as values of JSON."""
    return {
      "format": FORMAT,
      "spec": self.spec.to_json(),
      "fitted": {name: state.to_json() for name, state in self.fitted.items()},
      "answers": self.label_encoder.to_json(),
      "columns": base64.b64encode(self.columns.serialize()).decode(),
    }


def _unreadable_adder(
  unreadable: Unreadable, rows: np.ndarray, column: str
) -> Callable[[int, str], None]:
  return lambda index, reason: unreadable.add(rows[index], column, reason)


def from_json(value: Mapping[str, Any], where: str) -> Encoding:
  """Restore an encoding from the value of `to_json`.

  Raises:
    DataError: The value has another format, or is damaged.
  """
  found = value.get("format") if isinstance(value, Mapping) else None
  if found != FORMAT:
    raise DataError(f"{where}: format {found!r}, expected {FORMAT!r}; train again")
  try:
    columns = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(value["columns"])))
    of_spec = spec.from_json(value["spec"], where)
    fitted = {
      name: kind.restore(value["fitted"][name])
      for name, kind in of_spec.modalities.items()
    }
    label_encoder = LabelEncoder.from_json(value["answers"])
  except (KeyError, TypeError, ValueError) as error:
    raise DataError(f"{where} is damaged ({error!r}); train again") from error
  return Encoding(of_spec, fitted, label_encoder, columns)


class Fitting:
  """Fits an encoding on training rows, in one go or in pieces that are merged."""

  def __init__(self, of_spec: Spec, where: str):
    self._spec, self._where = of_spec, where
    self._fittings = {name: k.fitting() for name, k in of_spec.modalities.items()}
    self._moments = Moments()

  def add(self, batch: pa.RecordBatch, rows: np.ndarray, parts: np.ndarray) -> None:
    """Add the training rows among some rows.

    Args:
      batch: Cells of the rows.
      rows: Row numbers in the file, `[b]`.
      parts: The part of each row, see `SplitAssignment`.

    Raises:
      DataError: A value that does not fit the spec; names row and column.
    """
    mask = parts == TRAIN
    batch, rows = batch.filter(pa.array(mask)), rows[mask]
    for name, kind in self._spec.modalities.items():
      with cells.locate_errors(self._where, next(iter(kind.by_column)), rows):
        self._fittings[name].add(kind.cells_in(batch))
    label = self._spec.label
    if label.kind == "regression" and len(batch):
      with cells.locate_errors(self._where, label.column, rows):
        self._moments.add(label.numbers(batch[label.column]))

  def merge(self, other: Fitting) -> None:
    """Merge the fitting of other rows.

    Raises:
      DataError: Vectors of one column differ in size.
    """
    for name, fitting in self._fittings.items():
      with self._column_errors(name):
        fitting.merge(other._fittings[name])
    self._moments.merge(other._moments)

  def result(self, schema: pa.Schema, labels: Sequence[str]) -> Encoding:
    """Return the encoding of the file.

    Args:
      schema: Types of the columns of the file.
      labels: See `SplitAssignment`.

    Raises:
      DataError: A column has nothing to learn from.
    """
    fitted = {}
    for name, fitting in self._fittings.items():
      with self._column_errors(name):
        fitted[name] = fitting.result()
    label, scale = self._spec.label, None
    if label.kind == "regression":
      scale = self._moments.scale()
      if not self._moments.varies:
        raise DataError(
          f"{self._where}: label column {label.column!r}: every training row has"
          f" {scale.mean.tolist()}, so there is nothing to learn"
        )
    columns = _with_float_columns(schema, self._spec)
    return Encoding(self._spec, fitted, LabelEncoder(labels, scale), columns)

  @contextlib.contextmanager
  def _column_errors(self, name: str) -> Iterator[None]:
    """Name the columns of a modality in errors."""
    try:
      yield
    except ValueError as error:
      columns = list(self._spec.modalities[name].by_column)
      called = repr(columns[0]) if len(columns) == 1 else shorten_names(columns)
      raise DataError(
        f"{self._where}: column {called}, modality {name!r}: {error}; fix it, or leave"
        " it out of the spec"
      ) from error


def fit_encoding(source: Source, of_spec: Spec, splits: SplitAssignment) -> Encoding:
  """Fit the encoding of a file on its training part.

  Raises:
    DataError: A value does not fit the spec, or a column has nothing to learn from.
  """
  fitting = Fitting(of_spec, source.where)
  for rows, parts, batch in batches_with_parts(source, of_spec.columns, splits.parts):
    fitting.add(batch, rows, parts)
  return fitting.result(source.schema, splits.labels)


def _with_float_columns(schema: pa.Schema, of_spec: Spec) -> pa.Schema:
  """Return the schema with float64 for all columns that are read as numbers."""
  fields = {field.name: field for field in schema}
  for kind in of_spec.modalities.values():
    for column, one in kind.by_column.items():
      if one.kind in spec.NUMERIC:
        fields[column] = pa.field(column, _float_type(fields[column].type))
  return pa.schema(list(fields.values()), metadata=schema.metadata)


def _float_type(kind: pa.DataType) -> pa.DataType:
  if cells.is_list(kind):
    return pa.list_(_float_type(kind.value_type))
  return kind if pa.types.is_temporal(kind) else pa.float64()
