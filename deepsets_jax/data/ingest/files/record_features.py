"""Which columns the features of a TFDS data set make, and how values become arrays.

Numbers, text, classes and pictures do, and sequences of these, dictionaries of them and
sequences of dictionaries.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow_datasets as tfds

from deepsets_jax.foundation.errors import DataError

# Value range, in the documentation of a feature, of a sequence that is one element or
# none: how a picture that may be absent is declared, as TFDS has no null.
AT_MOST_ONE = "at most one"

# What a record has of a feature: numbers, or bytes.
Lists = Sequence[Sequence[Any]]
Values = Callable[[Lists], pa.Array]


@dataclasses.dataclass(frozen=True)
class FeatureColumn:
  """How one feature becomes a column.

  Attributes:
    key: Of the feature in a record.
    kind: Of the column.
    values: From the numbers or bytes of each of many records to an array of all.
    many: Whether a record has a list of elements, not one.
    width: Numbers that make one element.
    vector: Whether an element is a list of so many numbers.
  """

  key: str
  kind: pa.DataType
  values: Values
  many: bool
  width: int = 1
  vector: bool = False


def columns_of(
  features: Any, where: str, name: str = "", key: str = "", many: bool = False
) -> Iterator[tuple[str, FeatureColumn]]:
  """The columns of a feature and of all within it.

  Args:
    features: A feature.
    where: The data set, for messages.
    name: Of the feature, with those around it.
    key: Of the feature in a record.
    many: Whether it is within a sequence.
  """
  if isinstance(features, tfds.features.FeaturesDict):
    for part, feature in features.items():
      yield from columns_of(
        feature,
        where,
        f"{name}.{part}" if name else part,
        f"{key}/{part}" if key else part,
        many,
      )
  elif (
    isinstance(features, tfds.features.Sequence)
    and not isinstance(features, tfds.features.Dataset)
    and not many
  ):
    one = features.doc.value_range == AT_MOST_ONE
    for part, column in columns_of(features.feature, where, name, key, many=True):
      if one:
        column = dataclasses.replace(column, kind=column.kind.value_type, many=False)
      yield part, column
  else:
    yield name, _column(features, where, name, key, many)


def _column(feature: Any, where: str, name: str, key: str, many: bool) -> FeatureColumn:
  """The column of a feature without parts."""
  problem = (
    f"{where}: feature {name!r}, {type(feature).__name__}"
    f" {getattr(feature, 'shape', '')}, makes no column"
  )
  if isinstance(feature, tfds.features.ClassLabel):
    element, values, shape = pa.string(), _class_names(feature), ()
  elif isinstance(feature, tfds.features.Image):
    element, values, shape = pa.binary(), bytes_array, ()
  elif isinstance(feature, tfds.features.Tensor):
    stored = feature.get_serialized_info()
    if stored.shape != feature.shape or stored.np_dtype != feature.np_dtype:
      raise DataError(f"{problem}: it is stored encoded; build it without an encoding")
    element, values = _element(np.dtype(feature.np_dtype))
    shape = tuple(feature.shape)
  else:
    raise DataError(
      f"{problem}; numbers, text, classes, pictures, and sequences of these do; build"
      " the data set without it"
    )
  if shape and shape[0] is None and not many:
    many, shape = True, shape[1:]
  if None in shape or (shape and element == pa.string()):
    if element == pa.string() and len(shape) == 1 and not many:
      many, shape = True, ()
    else:
      raise DataError(f"{problem}: lists within lists of an unknown length do not")
  width = int(np.prod(shape, dtype=np.int64))
  if not width:
    raise DataError(f"{problem}: it has no numbers")
  vector = bool(shape)
  kind = pa.list_(element, width) if vector else element
  return FeatureColumn(
    key, pa.list_(kind) if many else kind, values, many, width, vector
  )


def _element(dtype: np.dtype) -> tuple[pa.DataType, Values]:
  """The Arrow type of a number or string, and how stored values become arrays of it.

  Records store all integers in 64 bits, all floats in 32.
  """
  if dtype.kind in "OSU":
    return pa.string(), lambda lists: bytes_array(lists).cast(pa.string())
  if dtype.kind == "b":
    return pa.bool_(), lambda lists: pa.array(_numbers(lists, np.int64) != 0)
  if dtype.kind in "iu":
    # A uint64 is stored as the int64 of the same bits.
    kind = pa.from_numpy_dtype(dtype)
    return kind, lambda lists: pa.array(_numbers(lists, np.int64).astype(dtype))
  if dtype == np.float64:
    return pa.float64(), lambda lists: pa.array(_numbers(lists, np.float64))
  return pa.float32(), lambda lists: pa.array(_numbers(lists, np.float32))


def _numbers(lists: Lists, dtype: Any) -> np.ndarray:
  # Not by a list of Python's numbers, which takes eight times the memory.
  count = sum(map(len, lists))
  return np.fromiter(itertools.chain.from_iterable(lists), dtype, count)


def bytes_array(lists: Lists) -> pa.Array:
  """All of them, end to end: `[n]` binary."""
  return pa.array(list(itertools.chain.from_iterable(lists)), pa.binary())


def _class_names(feature: Any) -> Values:
  """From class numbers to names; -1, by which TFDS says "unknown", to null."""
  names = pa.array([str(name) for name in feature.names], pa.string())

  def values(lists: Lists) -> pa.Array:
    found = _numbers(lists, np.int64)
    return names.take(pa.array(found, mask=found < 0))

  return values
