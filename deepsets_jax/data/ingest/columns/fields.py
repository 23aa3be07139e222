"""Many columns of numbers and categories as one modality: each present cell an element.

An element is a token of its column with a value: the scaled number, or 1 for a
category. One encoder serves all columns, so that a model of a wide table compiles as
fast as one of a narrow table.
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

# The state that is fitted on one column.
State = Scale | Vocabulary


@dataclasses.dataclass(frozen=True)
class States:
  """What was fitted on the training part, by column; None for one without a value."""

  columns: Mapping[str, State | None]

  def to_json(self) -> dict[str, Any]:
    """Plain values."""
    return {
      name: None if state is None else state.to_json()
      for name, state in self.columns.items()
    }

  @property
  def groups(self) -> tuple[int, ...]:
    """Number of token ids of each column: 1 of numbers, 0 of one without a value."""
    return tuple(map(_size, self.columns.values()))


@dataclasses.dataclass(frozen=True)
class Quantity:
  """What the elements of a column of numbers are called.

  Attributes:
    column: Its name.
    scale: What its values were scaled by.
    log: Whether the logarithm was taken before.
    unit: Of a date or a time the unit of `np.datetime64` to show it in; None for a
      number.
  """

  column: str
  scale: Scale
  log: bool = False
  unit: str | None = None

  def text(self, value: float) -> str:
    """The column with a value in its own unit, such as "age = 41".

    Args:
      value: As scaled.
    """
    value = float(value * self.scale.deviation[0] + self.scale.mean[0])
    if self.log:
      value = float(np.sign(value) * np.expm1(abs(value)))
    if self.unit is None:
      return f"{self.column} = {value:.6g}"
    # Through seconds: float32 does not hold dates to the nanosecond.
    time = np.datetime64(round(value), "s")
    if self.unit == "D":
      time += np.timedelta64(12, "h")  # The nearest day.
    return f"{self.column} = {time.astype(f'datetime64[{self.unit}]')}"


@dataclasses.dataclass(frozen=True)
class Fields:
  """Columns of numbers and categories; each present cell of a row is an element.

  A column without a value in the training part makes no elements.

  Attributes:
    number: Columns of numbers, dates or times; scaled as by `Scalar`.
    log: Columns of numbers, scaled as by `Scalar` with scale "log".
    category: Columns of strings, whole numbers or booleans, as in `Category`.
    min_count: Of categories, as in `Category`.
  """

  number: Sequence[str] = ()
  log: Sequence[str] = ()
  category: Sequence[str] = ()
  min_count: int = 2

  kind = "fields"

  def __post_init__(self):
    for name in ("number", "log", "category"):
      object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON has lists.
    named = (*self.number, *self.log, *self.category)
    if not named:
      raise ConfigError('no column: name some under "number", "log" or "category"')
    twice = [n for n, count in collections.Counter(named).items() if count > 1]
    if twice:
      raise ConfigError(f"column {twice[0]!r} is named twice; name each column once")
    Category("", self.min_count)  # Raises where it is too small.

  @functools.cached_property
  def by_column(self) -> Mapping[str, Scalar | Category]:
    """What each column is, in the order of the token ids."""
    return (
      {name: Scalar(name) for name in self.number}
      | {name: Scalar(name, scale="log") for name in self.log}
      | {name: Category(name, self.min_count) for name in self.category}
    )

  def cells_in(self, batch: pa.RecordBatch) -> pa.StructArray | None:
    """The columns of some rows that are there; None if none is."""
    there = [name for name in self.by_column if name in batch.schema.names]
    if not there:
      return None
    return pa.StructArray.from_arrays([batch[name] for name in there], names=there)

  def fitting(self) -> _FieldsFitting:
    """What takes in the training part."""
    return _FieldsFitting(self)

  def restore(self, value: Mapping[str, Any]) -> States:
    """What was fitted, from its plain values."""
    return States(
      {
        name: None if value[name] is None else kind.restore(value[name])
        for name, kind in self.by_column.items()
      }
    )

  def modality(self, fitted: States) -> Modality:
    """What an element is."""
    groups = fitted.groups
    return Modality("tokens", sum(groups), weighted=True, valued=True, groups=groups)

  def names(self, fitted: States, schema: pa.Schema) -> tuple[str | Quantity, ...]:
    """What the elements of each token id are called.

    Args:
      fitted: On the training part.
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

  def encode(self, columns: pa.StructArray, fitted: States) -> Ragged:
    """The tokens of some rows, `[n]` int32 with values as weights.

    Raises:
      CellError: What is there cannot be an element; names the column.
    """
    shape = (len(columns), len(self.by_column))
    present = np.zeros(shape, bool)
    tokens, values = np.zeros(shape, np.int32), np.ones(shape, np.float32)
    there = dict(_each(columns))
    starts = np.cumsum((0, *fitted.groups))
    for index, (name, kind) in enumerate(self.by_column.items()):
      state = fitted.columns[name]
      if name not in there or state is None:
        continue
      with _named(name):
        found = kind.encode(there[name], state)
      some = present[:, index] = found.lengths > 0
      if isinstance(state, Scale):
        tokens[:, index] = starts[index]
        values[some, index] = found.values[:, 0]
      else:
        tokens[some, index] = starts[index] + found.values
    ragged = from_lengths(tokens[present], present.sum(axis=1))
    return ragged.replace(weights=values[present])


class _FieldsFitting:
  """Takes in the columns of the training part."""

  def __init__(self, kind: Fields):
    self._fittings = {name: one.fitting() for name, one in kind.by_column.items()}

  def add(self, columns: pa.StructArray) -> None:
    """Takes in some rows."""
    for name, column in _each(columns):
      with _named(name):
        self._fittings[name].add(column)

  def merge(self, other: _FieldsFitting) -> None:
    """Takes in what another has."""
    for name, fitting in self._fittings.items():
      fitting.merge(other._fittings[name])

  def result(self) -> States:
    """What was fitted.

    Raises:
      ConfigError: There was no value in any column.
    """
    found = {
      name: fitting.result() if fitting.has_values else None
      for name, fitting in self._fittings.items()
    }
    if all(state is None for state in found.values()):
      raise ConfigError("no training example has a value in any of its columns")
    return States(found)


def _each(columns: pa.StructArray) -> Iterator[tuple[str, pa.Array]]:
  """The columns of some rows by name."""
  names = (field.name for field in columns.type)
  return zip(names, columns.flatten(), strict=True)


@contextlib.contextmanager
def _named(column: str) -> Iterator[None]:
  """Gives an error of a cell the name of its column."""
  try:
    yield
  except cells.CellError as error:
    error.column = column
    raise


def _size(state: State | None) -> int:
  """Number of token ids of a column."""
  if state is None:
    return 0
  return 1 if isinstance(state, Scale) else state.size


def _unit(kind: pa.DataType) -> str | None:
  """The unit of `np.datetime64` to show a column in; None for numbers."""
  if pa.types.is_date(kind):
    return "D"
  return "s" if pa.types.is_timestamp(kind) else None
