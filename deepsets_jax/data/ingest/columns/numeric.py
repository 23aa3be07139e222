"""Columns of numbers and of vectors as modalities, scaled by the training part."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from deepsets_jax.data.ingest.columns import cells
from deepsets_jax.data.tables.schema import Modality
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged, from_lengths

_SCALES = ("standard", "log", "none")
# Its square is a finite float64, and it is a finite float32.
_TOO_LARGE = 1e38


class Scale(NamedTuple):
  """What is taken off every feature, and what it is divided by after: `[d]` each."""

  mean: np.ndarray
  deviation: np.ndarray

  def to_json(self) -> dict[str, Any]:
    """Of plain values."""
    return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

  def apply(self, values: np.ndarray) -> np.ndarray:
    """Scaled values `[n, d]`, float32."""
    return ((values - self.mean) / self.deviation).astype(np.float32)


class Moments:
  """Mean and deviation of what comes in parts (Chan et al., 1979)."""

  def __init__(self):
    self.count, self.mean, self.squares = 0, None, None

  def add(self, values: np.ndarray) -> None:
    """Takes in `[n, d]`."""
    if not len(values):
      return
    some = Moments()
    some.count, some.mean = len(values), values.mean(axis=0, dtype=np.float64)
    some.squares = np.square(values - some.mean).sum(axis=0, dtype=np.float64)
    self.merge(some)

  def merge(self, other: Moments) -> None:
    """Takes in what another has."""
    if not self.count or not other.count:
      if other.count:
        self.count, self.mean, self.squares = other.count, other.mean, other.squares
      return
    total, step = self.count + other.count, other.mean - self.mean
    self.squares = (
      other.squares + self.squares + step**2 * (self.count * other.count / total)
    )
    self.mean = self.mean + step * (other.count / total)
    self.count = total

  @property
  def varies(self) -> bool:
    """Whether any feature does."""
    return bool((self._deviation() > 0).any())

  def scale(self) -> Scale:
    """Mean and deviation; 1 of what does not vary."""
    deviation = self._deviation()
    return Scale(self.mean, np.where(deviation > 0, deviation, 1.0))

  def _deviation(self) -> np.ndarray:
    deviation = np.sqrt(self.squares / self.count)
    # What rounding leaves of a constant is none.
    return np.where(deviation <= 1e-7 * np.abs(self.mean), 0.0, deviation)


@dataclasses.dataclass(frozen=True)
class _Numeric(cells.OneColumn):
  """What the four have in common.

  Attributes:
    column: Its name in the file.
    scale: "standard" takes off the mean of the training part and divides by its
      deviation, feature by feature; "log" does so with sign(x) log(1 + |x|); "none"
      leaves the numbers as they are.
  """

  column: str
  scale: str = "standard"

  kind: ClassVar[str]

  def __post_init__(self):
    if self.scale not in _SCALES:
      raise ConfigError(f"unknown scale {self.scale!r}; one of {list(_SCALES)}")

  def _elements(self, column: pa.Array, size: int | None) -> cells.Elements:
    raise NotImplementedError

  def fitting(self) -> _NumericFitting:
    """What takes in the training part."""
    return _NumericFitting(self)

  def found(self, column: pa.Array, size: int | None) -> cells.Elements:
    """The elements `[n, d]`, on a log scale if that is wanted."""
    values, lengths = self._elements(column, size)
    if self.scale == "log":
      values = np.sign(values) * np.log1p(np.abs(values))
    _check_size(np.abs(values) < _TOO_LARGE, lengths)
    return cells.Elements(values, lengths)

  @staticmethod
  def restore(value: Mapping[str, Any]) -> Scale:
    """What was fitted, from its plain values."""
    return Scale(np.asarray(value["mean"]), np.asarray(value["deviation"]))

  def modality(self, fitted: Scale) -> Modality:
    """What an element is."""
    return Modality("vectors", len(fitted.mean))

  def encode(self, column: pa.Array, fitted: Scale) -> Ragged:
    """The elements of some cells, `[n, d]` float32.

    Raises:
      CellError: What is there cannot be an element.
    """
    values, lengths = self.found(column, len(fitted.mean))
    with np.errstate(over="ignore"):
      values = fitted.apply(values)
    _check_size(np.isfinite(values), lengths)
    return from_lengths(values, lengths)


def _check_size(good: np.ndarray, lengths: np.ndarray) -> None:
  """Raises for the first vector with a number that is not `good`, `[n, d]`."""
  if good.all():
    return
  slot = int(np.argmin(good.all(axis=1)))
  raise cells.CellError(
    cells.cell_of(lengths, slot),
    "a number is too large for float32",
    'leave it out, or set the scale to "log"',
  )


class _NumericFitting:
  """Takes in columns of the training part."""

  def __init__(self, kind: _Numeric):
    self._kind, self._moments = kind, Moments()
    self._size: int | None = None

  def add(self, column: pa.Array) -> None:
    """Takes in some cells."""
    values, _ = self._kind.found(column, self._size)
    if len(values):
      self._size = values.shape[1]
    self._moments.add(values)

  def merge(self, other: _NumericFitting) -> None:
    """Takes in what another has.

    Raises:
      ConfigError: Its vectors are of another size.
    """
    sizes = self._size or other._size, other._size or self._size
    if sizes[0] != sizes[1]:
      raise ConfigError(f"vectors of {sizes[0]} and of {sizes[1]} numbers")
    self._size = sizes[0]
    self._moments.merge(other._moments)

  @property
  def has_values(self) -> bool:
    """Whether there was an element."""
    return self._moments.count > 0

  def result(self) -> Scale:
    """What was fitted.

    Raises:
      ConfigError: There was no element.
    """
    if not self.has_values:
      raise ConfigError("no training example has a value in it")
    if self._kind.scale == "none":
      return Scale(np.zeros(self._size), np.ones(self._size))
    return self._moments.scale()


@dataclasses.dataclass(frozen=True)
class Scalar(_Numeric):
  """A number, or none: one element of one feature."""

  kind = "number"
  takes = "a number, a date or a time"

  @staticmethod
  def accepts(kind: pa.DataType) -> bool:
    """Whether a column of this type can be read so."""
    return cells.is_number(kind)

  def _elements(self, column: pa.Array, size: int | None) -> cells.Elements:
    del size
    values, lengths = cells.numbers(column)
    return cells.Elements(values[:, None], lengths)


@dataclasses.dataclass(frozen=True)
class ScalarList(Scalar):
  """A list of numbers, each an element of one feature."""

  kind = "numbers"
  takes = "a list of numbers"

  @staticmethod
  def accepts(kind: pa.DataType) -> bool:
    """Whether a column of this type can be read so."""
    null = pa.types.is_null(kind)
    return null or (cells.is_list(kind) and cells.is_number(kind.value_type))


@dataclasses.dataclass(frozen=True)
class Vector(_Numeric):
  """A list of so many numbers, or none: one element."""

  kind = "vector"
  takes = "a list of numbers, always as many"

  @staticmethod
  def accepts(kind: pa.DataType) -> bool:
    """Whether a column of this type can be read so."""
    return cells.is_list(kind) and cells.is_number(kind.value_type)

  def _elements(self, column: pa.Array, size: int | None) -> cells.Elements:
    return cells.vectors(column, one=True, size=size)


@dataclasses.dataclass(frozen=True)
class VectorList(_Numeric):
  """A list of vectors of one size, each an element."""

  kind = "vectors"
  takes = "a list of lists of numbers, these always as many"

  @staticmethod
  def accepts(kind: pa.DataType) -> bool:
    """Whether a column of this type can be read so."""
    return (
      cells.is_list(kind)
      and cells.is_list(kind.value_type)
      and cells.is_number(kind.value_type.value_type)
    )

  def _elements(self, column: pa.Array, size: int | None) -> cells.Elements:
    return cells.vectors(column, one=False, size=size)
