"""Read many columns of numbers and categories as one modality with an element per cell.

An element is a token of its column with a value: the scaled number, or 1 for a
category. One encoder serves all columns, so a model of a wide table compiles as fast as
a model of a narrow table.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from deepsets_jax.data.ingest.columns import cells
from deepsets_jax.data.ingest.columns.numeric import Scalar, Scale
from deepsets_jax.data.ingest.columns.tokens import Category, Vocabulary
from deepsets_jax.data.tables.schema import Modality
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged, from_lengths

# The fitted state of one column.
State = Scale | Vocabulary


@dataclasses.dataclass(frozen=True)
class FieldStates:
  """The fitted state per column; None for a column without a training value."""

  columns: Mapping[str, State | None]

  def to_json(self) -> dict[str, Any]:
    """Return the state as values of JSON."""
    return {
      name: None if state is None else state.to_json()
      for name, state in self.columns.items()
    }

  @property
  def groups(self) -> tuple[int, ...]:
    """Number of token ids per column: 1 for numbers, 0 without a training value."""
    return tuple(
      0 if state is None else 1 if isinstance(state, Scale) else state.size
      for state in self.columns.values()
    )


@dataclasses.dataclass(frozen=True)
class Quantity:
  """Names the elements of a column of numbers.

  Attributes:
    column: Name of the column.
    scale: The scale of its values.
    log: Whether the logarithm was taken before scaling.
    unit: Unit of `np.datetime64` to print dates or times in; None for numbers.
  """

  column: str
  scale: Scale
  log: bool = False
  unit: str | None = None

  def text(self, value: float) -> str:
    """Return the column with a value in its own unit, such as "age = 41".

    Args:
      value: The scaled value.
    """
    value = float(value * self.scale.deviation[0] + self.scale.mean[0])
    if self.log:
      value = float(np.sign(value) * np.expm1(abs(value)))
    if self.unit is None:
      return f"{self.column} = {value:.6g}"
    # Round to seconds, as float32 does not hold dates to the nanosecond.
    time = np.datetime64(round(value), "s")
    if self.unit == "D":
      time += np.timedelta64(12, "h")  # Round to the nearest day.
    return f"{self.column} = {time.astype(f'datetime64[{self.unit}]')}"


@dataclasses.dataclass(frozen=True)
class Fields:
  """Columns of numbers and categories; each present cell of a row is an element.

  A column without a value in the training part makes no elements.

  Attributes:
    number: Columns of numbers, dates or times; scaled as by `Scalar`.
    log: Columns of numbers, scaled as by `Scalar` with scale "log".
    category: Columns of strings, whole numbers or booleans, see `Category`.
    min_count: Minimum count of categories, see `Category`.
  """

  number: Sequence[str] = ()
  log: Sequence[str] = ()
  category: Sequence[str] = ()
  min_count: int = 2

  kind = "fields"

  def __post_init__(self):
    for name in ("number", "log", "category"):
      object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON gives lists.
    named = (*self.number, *self.log, *self.category)
    if not named:
      raise ConfigError(
        'there is no column; name some under "number", "log" or "category"'
      )
    twice = [n for n, count in collections.Counter(named).items() if count > 1]
    if twice:
      raise ConfigError(f"column {twice[0]!r} is named twice; name each column once")
    Category("", self.min_count)  # Raises if `min_count` is too small.

  @functools.cached_property
  def by_column(self) -> Mapping[str, Scalar | Category]:
    """The column type of each column, in the order of the token ids."""
    return (
      {name: Scalar(name) for name in self.number}
      | {name: Scalar(name, scale="log") for name in self.log}
      | {name: Category(name, self.min_count) for name in self.category}
    )

  def cells_in(self, batch: pa.RecordBatch) -> pa.StructArray | None:
    """Return the columns that a batch has; None if it has none of them."""
    names = [name for name in self.by_column if name in batch.schema.names]
    if not names:
      return None
    return pa.StructArray.from_arrays([batch[name] for name in names], names=names)

  def fitting(self) -> _FieldsFitting:
    """Return an object that fits the state on the training part."""
    return _FieldsFitting(self)

  def restore(self, value: Mapping[str, Any]) -> FieldStates:
    """Restore the state from values of JSON."""
    return FieldStates(
      {
        name: None if value[name] is None else kind.restore(value[name])
        for name, kind in self.by_column.items()
      }
    )

  def modality(self, fitted: FieldStates) -> Modality:
    """Return the schema of the modality."""
    groups = fitted.groups
    return Modality("tokens", sum(groups), weighted=True, valued=True, groups=groups)

  def names(self, fitted: FieldStates, schema: pa.Schema) -> tuple[str | Quantity, ...]:
    """Return the name of each token id.

    Args:
      fitted: The state of the columns.
      schema: Types of the columns.
    """
    found: list[str | Quantity] = []
    for name, state in fitted.columns.items():
      if isinstance(state, Scale):
        log = self.by_column[name].scale == "log"
        found.append(Quantity(name, state, log, _unit(schema.field(name).type)))
      elif state is not None:
        found += [f"{name} = {word}" for word in state.words]
    return tuple(found)

  def encode(self, columns: pa.StructArray, fitted: FieldStates) -> Ragged:
    """Encode rows as tokens, `[n]` int32, with the values as weights.

    Raises:
      CellError: A value cannot be an element; names the column.
    """
    shape = (len(columns), len(self.by_column))
    present = np.zeros(shape, bool)
    tokens, values = np.zeros(shape, np.int32), np.ones(shape, np.float32)
    cells_of = dict(_named_columns(columns))
    starts = np.cumsum((0, *fitted.groups))
    for index, (name, kind) in enumerate(self.by_column.items()):
      state = fitted.columns[name]
      if name not in cells_of or state is None:
        continue
      with _name_errors(name):
        found = kind.encode(cells_of[name], state)
      some = present[:, index] = found.lengths > 0
      if isinstance(state, Scale):
        tokens[:, index] = starts[index]
        values[some, index] = found.values[:, 0]
      else:
        tokens[some, index] = starts[index] + found.values
    ragged = from_lengths(tokens[present], present.sum(axis=1))
    return ragged.replace(weights=values[present])


class _FieldsFitting:
  """Fits the state of all columns on the training part."""

  def __init__(self, kind: Fields):
    self._fittings = {name: one.fitting() for name, one in kind.by_column.items()}

  def add(self, columns: pa.StructArray) -> None:
    """Add some rows."""
    for name, column in _named_columns(columns):
      with _name_errors(name):
        self._fittings[name].add(column)

  def merge(self, other: _FieldsFitting) -> None:
    """Merge the fitting of other rows."""
    for name, fitting in self._fittings.items():
      fitting.merge(other._fittings[name])

  def result(self) -> FieldStates:
    """Return the state.

    Raises:
      ConfigError: No column had a value.
    """
    found = {
      name: fitting.result() if fitting.has_values else None
      for name, fitting in self._fittings.items()
    }
    if all(state is None for state in found.values()):
      raise ConfigError("no training example has a value in any of its columns")
    return FieldStates(found)


def _named_columns(columns: pa.StructArray) -> Iterator[tuple[str, pa.Array]]:
  names = (field.name for field in columns.type)
  return zip(names, columns.flatten(), strict=True)


@contextlib.contextmanager
def _name_errors(column: str) -> Iterator[None]:
  """Set the column of cell errors in the block."""
  try:
    yield
  except cells.CellError as error:
    error.column = column
    raise


def _unit(kind: pa.DataType) -> str | None:
  """Return the unit of `np.datetime64` to print a column in; None for numbers."""
  if pa.types.is_date(kind):
    return "D"
  return "s" if pa.types.is_timestamp(kind) else None
