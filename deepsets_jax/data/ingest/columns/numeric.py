"""Read columns of numbers and vectors as modalities, scaled by the training part."""

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
# Smaller numbers are finite in float32, and their squares in float64.
_TOO_LARGE = 1e38


class Scale(NamedTuple):
  """Mean and deviation of each feature, `[d]` each."""

  mean: np.ndarray
  deviation: np.ndarray

  def to_json(self) -> dict[str, Any]:
    """Return the state as values of JSON."""
    return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

  def apply(self, values: np.ndarray) -> np.ndarray:
    """Return the scaled values, `[n, d]` float32."""
    return ((values - self.mean) / self.deviation).astype(np.float32)


class Moments:
  """Mean and deviation of values that arrive in batches (Chan et al., 1979)."""

  def __init__(self):
    self.count, self.mean, self.squares = 0, None, None

  def add(self, values: np.ndarray) -> None:
    """Add values `[n, d]`."""
    if not len(values):
      return
    some = Moments()
    some.count, some.mean = len(values), values.mean(axis=0, dtype=np.float64)
    some.squares = np.square(values - some.mean).sum(axis=0, dtype=np.float64)
    self.merge(some)

  def merge(self, other: Moments) -> None:
    """Merge the moments of other values."""
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
    """Whether any feature varies."""
    return bool((self._deviation() > 0).any())

  def scale(self) -> Scale:
    """Return mean and deviation; the deviation of constants is 1."""
    deviation = self._deviation()
    return Scale(self.mean, np.where(deviation > 0, deviation, 1.0))

  def _deviation(self) -> np.ndarray:
    deviation = np.sqrt(self.squares / self.count)
    # Rounding leaves a tiny deviation of constants.
    return np.where(deviation <= 1e-7 * np.abs(self.mean), 0.0, deviation)


@dataclasses.dataclass(frozen=True)
class _Numeric(cells.OneColumn):
  """Common part of the four numeric column types.

  Attributes:
    column: Name of the column in the file.
    scale: "standard" subtracts the mean of the training part and divides by its
      deviation, per feature; "log" does the same to sign(x) log(1 + |x|); "none" keeps
      the numbers.
  """

  column: str
  scale: str = "standard"

  kind: ClassVar[str]

  def __post_init__(self):
    if self.scale not in _SCALES:
      raise ConfigError(f"unknown scale {self.scale!r}; one of {list(_SCALES)}")

  def _unscaled(self, column: pa.Array, size: int | None) -> cells.Elements:
    raise NotImplementedError

  def fitting(self) -> _NumericFitting:
    """Return an object that fits the state on the training part."""
    return _NumericFitting(self)

  def elements(self, column: pa.Array, size: int | None) -> cells.Elements:
    """Return the elements `[n, d]`, on a log scale if `scale` is "log"."""
    values, lengths = self._unscaled(column, size)
    if self.scale == "log":
      values = np.sign(values) * np.log1p(np.abs(values))
    _check_size(np.abs(values) < _TOO_LARGE, lengths)
    return cells.Elements(values, lengths)

  @staticmethod
  def restore(value: Mapping[str, Any]) -> Scale:
    """Restore the state from values of JSON."""
    return Scale(np.asarray(value["mean"]), np.asarray(value["deviation"]))

  def modality(self, fitted: Scale) -> Modality:
    """Return the schema of the modality."""
    return Modality("vectors", len(fitted.mean))

  def encode(self, column: pa.Array, fitted: Scale) -> Ragged:
    """Encode cells as elements, `[n, d]` float32.

    Raises:
      CellError: A value cannot be an element.
    """
    values, lengths = self.elements(column, len(fitted.mean))
    with np.errstate(over="ignore"):
      values = fitted.apply(values)
    _check_size(np.isfinite(values), lengths)
    return from_lengths(values, lengths)


def _check_size(good: np.ndarray, lengths: np.ndarray) -> None:
  """Raise for the first vector with a number that is not `good`, `[n, d]`."""
  if good.all():
    return
  slot = int(np.argmin(good.all(axis=1)))
  raise cells.CellError(
    cells.cell_of(lengths, slot),
    "a number is too large for float32",
    'leave it out, or set "scale" of the modality to "log"',
  )


class _NumericFitting:
  """Fits the scale on the training part."""

  def __init__(self, kind: _Numeric):
    self._kind, self._moments = kind, Moments()
    self._size: int | None = None

  def add(self, column: pa.Array) -> None:
    """Add some cells."""
    values, _ = self._kind.elements(column, self._size)
    if len(values):
      self._size = values.shape[1]
    self._moments.add(values)

  def merge(self, other: _NumericFitting) -> None:
    """Merge the fitting of other rows.

    Raises:
      ConfigError: The vectors differ in size.
    """
    sizes = self._size or other._size, other._size or self._size
    if sizes[0] != sizes[1]:
      raise ConfigError(f"vectors of {sizes[0]} and of {sizes[1]} numbers")
    self._size = sizes[0]
    self._moments.merge(other._moments)

  @property
  def has_values(self) -> bool:
    """Whether any cell had an element."""
    return self._moments.count > 0

  def result(self) -> Scale:
    """Return the scale.

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
  """At most one number per cell: an element with one feature."""

  kind = "number"
  takes = "a number, a date or a time"

  @staticmethod
  def accepts(kind: pa.DataType) -> bool:
    """Whether columns of this Arrow type can be read as this column type."""
    return cells.is_number(kind)

  def _unscaled(self, column: pa.Array, size: int | None) -> cells.Elements:
    del size
    values, lengths = cells.numbers(column)
    return cells.Elements(values[:, None], lengths)


@dataclasses.dataclass(frozen=True)
class ScalarList(Scalar):
  """A list of numbers per cell, each an element with one feature."""

  kind = "numbers"
  takes = "a list of numbers"

  @staticmethod
  def accepts(kind: pa.DataType) -> bool:
    """Whether columns of this Arrow type can be read as this column type."""
    null = pa.types.is_null(kind)
    return null or (cells.is_list(kind) and cells.is_number(kind.value_type))


@dataclasses.dataclass(frozen=True)
class Vector(_Numeric):
  """At most one vector per cell: a list of a fixed number of numbers."""

  kind = "vector"
  takes = "a list of a fixed number of numbers"

  @staticmethod
  def accepts(kind: pa.DataType) -> bool:
    """Whether columns of this Arrow type can be read as this column type."""
    return cells.is_list(kind) and cells.is_number(kind.value_type)

  def _unscaled(self, column: pa.Array, size: int | None) -> cells.Elements:
    return cells.vectors(column, one=True, size=size)


@dataclasses.dataclass(frozen=True)
class VectorList(_Numeric):
  """A list of vectors of one size per cell, each an element."""

  kind = "vectors"
  takes = "a list of lists of a fixed number of numbers"

  @staticmethod
  def accepts(kind: pa.DataType) -> bool:
    """Whether columns of this Arrow type can be read as this column type."""
    return (
      cells.is_list(kind)
      and cells.is_list(kind.value_type)
      and cells.is_number(kind.value_type.value_type)
    )

  def _unscaled(self, column: pa.Array, size: int | None) -> cells.Elements:
    return cells.vectors(column, one=False, size=size)
