"""A TFDS data set as columns: `tfds:NAME[/CONFIG[:VERSION]]`, without TensorFlow.

Features of numbers, text, classes and pictures become columns, and so do sequences of
these, dictionaries of them and sequences of dictionaries.

Records are read from their array_record files; pictures stay encoded. The values by
which our builders write that there is nothing, which are an empty string, an empty
sequence and NaN, become null.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from deepsets_jax.data.ingest.files import source
from deepsets_jax.data.ingest.files.source import BATCH_BYTES, BATCH_ROWS, Source
from deepsets_jax.foundation.errors import DataError

# Value range in the documentation of a feature that is one element or none.
# A picture that may be absent is declared as such a sequence, as TFDS has no null.
AT_MOST_ONE = "at most one"

# For each record, the numbers or bytes that it has of a feature.
_Lists = Sequence[Sequence[Any]]
_Values = Callable[[_Lists], pa.Array]


class TfdsSource(Source):
  """The records of all splits of a data set, one split after the other.

  A column `split` names the split, unless the features have one of that name. A
  sequence of dictionaries becomes a column for each of their keys, `events.film`.

  Attributes:
    folder: Where the data set was built.
  """

  def __init__(self, builder: tfds.core.DatasetBuilder, where: str):
    self.where, self.folder = where, pathlib.Path(builder.data_path)
    self._columns: dict[str, FeatureColumn] = {}
    # Sorted: features that are read from a file come in another order each time.
    found = columns_of(builder.info.features, where)
    for name, column in sorted(found, key=lambda pair: pair[0]):
      if name in self._columns:
        raise DataError(
          f"{where}: two features become the column {name!r}; build the data set with"
          " one of them renamed"
        )
      self._columns[name] = column
    self._splits = {
      name: builder.as_data_source(
        split=name, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
      )
      for name, info in builder.info.splits.items()
      if info.num_examples
    }
    types = {name: column.kind for name, column in self._columns.items()}
    self.schema = pa.schema(types if "split" in types else types | {"split": "string"})
    self.num_rows = sum(len(records) for records in self._splits.values())
    size = sum(info.num_bytes for info in builder.info.splits.values())
    mean = max(1, size // max(1, self.num_rows))
    self._batch_rows = max(1, min(BATCH_ROWS, BATCH_BYTES // mean))

  def batches(
    self, columns: Sequence[str] | None = None, *, start: int = 0
  ) -> Iterator[pa.RecordBatch]:
    """Read batches as `Source` describes, of one split each.

    Raises:
      DataError: No such column; a record that does not fit the features, or whose text
        is not UTF-8.
    """
    names = self._select(columns)
    schema = pa.schema([self.schema.field(name) for name in names])
    first = 0
    for split, records in self._splits.items():
      # Records before `start` are not read.
      for row in range(max(0, start - first), len(records), self._batch_rows):
        rows = range(row, min(row + self._batch_rows, len(records)))
        examples = self._examples(records, rows, split, first)
        arrays = []
        for name in names:
          if name in self._columns:
            where = f"{self.where}, column {name!r}"
            array = _array(self._columns[name], examples, where, first + row)
          else:
            array = pa.repeat(pa.scalar(split, pa.string()), len(rows))
          arrays.append(array)
        yield source.make_batch(arrays, schema, len(rows))
      first += len(records)

  def _examples(
    self, records: Any, rows: range, split: str, first: int
  ) -> list[Mapping[str, Any]]:
    """The features of some rows of a split; row 0 of it is row `first` of all."""
    try:
      stored = records.__getitems__(list(rows))
      if not all(stored):
        # array_record returns it, without an error, for a file that lost its index.
        raise DataError(f"row {first + rows[stored.index(b'')]} is empty")
      return [
        tf_example_pb2.Example.FromString(record).features.feature for record in stored
      ]
    except (*source.READ_ERRORS, IndexError, RuntimeError, DecodeError) as error:
      raise DataError(
        f"{self.where}: rows {first + rows[0]} to {first + rows[-1]}, of split"
        f" {split!r}, cannot be read ({source.reason(error)}); a file is missing or"
        " damaged: build the data set again"
      ) from error


def open_tfds(name: str, data_dir: str | None = None) -> TfdsSource:
  """Open a data set that has been built, without the code of its builder.

  Args:
    name: `NAME`, `NAME/CONFIG` or `NAME/CONFIG:VERSION`, perhaps after `tfds:`.
    data_dir: Folder in which it was built; None for the folder of TFDS.

  Raises:
    DataError: It is not there, is stored in another format, or has a feature that
      cannot become a column.
  """
  name = name.removeprefix("tfds:")
  folder = data_dir or tfds.core.constants.DATA_DIR
  where = f"tfds:{name}"
  try:
    builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
  except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
    raise DataError(
      f"{where}: not built in {folder}; build it there with python -m"
      f" tools.build_dataset {name} --data_dir={folder} --file_format=array_record"
      " (from a clone of the repository), or in Python with"
      f" tfds.builder({name!r}, data_dir={str(folder)!r}, file_format='array_record')"
      ".download_and_prepare(). If it has configs, name one: NAME/CONFIG"
    ) from error
  found = builder.info.file_format
  if found is None or found.value != "array_record":
    raise DataError(
      f"{where}: built in {builder.data_path} as {found and found.value},"
      " which cannot be read; build it again in another folder with"
      " file_format='array_record'"
    )
  return TfdsSource(builder, where)


def _array(
  column: FeatureColumn, examples: Sequence[Mapping[str, Any]], where: str, first: int
) -> pa.Array:
  """The column of some records, the first of which is row `first`."""
  lists = [_values(example, column.key) for example in examples]
  lengths = np.fromiter(map(len, lists), np.int64, len(lists))
  counts, rest = np.divmod(lengths, column.width)
  bad = (rest != 0) if column.many else (rest != 0) | (counts > 1)
  if bad.any():
    row = int(np.argmax(bad))
    raise DataError(
      f"{where}: row {first + row} has {lengths[row]} values, the features say"
      f" {column.width}{' times any number' if column.many else ''}; the record does"
      " not fit its features.json: build the data set again"
    )
  try:
    elements = column.values(lists)
  except pa.ArrowInvalid as error:
    row = source.first_failing(
      len(lists), lambda i, n: _bytes_array(lists[i : i + n]).cast(pa.string())
    )
    raise DataError(
      f"{where}: row {first + row} has {source.shorten(lists[row])}, which is not"
      " UTF-8; store text as UTF-8, a picture as an Image"
    ) from error
  except (TypeError, ValueError, IndexError) as error:
    raise DataError(
      f"{where}: rows {first} to {first + len(lists) - 1} have values that do not fit"
      f" the features ({source.reason(error)}); build the data set again"
    ) from error
  if column.vector:
    elements = pa.FixedSizeListArray.from_arrays(elements, column.width)
  elif not column.many:
    elements = _absent_as_null(elements)
  if column.many:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    absent = pa.array(counts == 0)
    return pa.ListArray.from_arrays(offsets, elements, column.kind, mask=absent)
  if counts.all():
    return elements
  # A record without an element gets null.
  return elements.take(pa.array(np.cumsum(counts) - 1, mask=counts == 0))


def _values(example: Mapping[str, Any], key: str) -> Sequence[Any]:
  """The values of a feature in a record; empty if the record lacks the feature."""
  kind = example[key].WhichOneof("kind") if key in example else None
  return getattr(example[key], kind).value if kind else ()


def _absent_as_null(values: pa.Array) -> pa.Array:
  """Null for an empty string and for NaN."""
  if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
    there = pc.greater(pc.binary_length(values), 0)
  elif pa.types.is_floating(values.type):
    there = pc.invert(pc.is_nan(values))
  else:
    return values
  return pc.if_else(there, values, pa.scalar(None, values.type))


@dataclasses.dataclass(frozen=True)
class FeatureColumn:
  """How one feature becomes a column.

  Attributes:
    key: Name of the feature in a record.
    kind: Arrow type of the column.
    values: Function from the numbers or bytes of many records to one array of all.
    many: Whether a record has a list of elements, not one.
    width: Number of numbers in an element.
    vector: Whether an element is a list of `width` numbers.
  """

  key: str
  kind: pa.DataType
  values: _Values
  many: bool
  width: int = 1
  vector: bool = False


def columns_of(
  features: Any, where: str, name: str = "", key: str = "", many: bool = False
) -> Iterator[tuple[str, FeatureColumn]]:
  """Names and columns of a feature and of all within it.

  Args:
    features: A feature.
    where: The data set, for messages.
    name: Name of the feature, after the names of those around it.
    key: Name of the feature in a record.
    many: Whether it is within a sequence.

  Raises:
    DataError: A feature cannot become a column.
  """
  of = tfds.features
  is_sequence = isinstance(features, of.Sequence) and not isinstance(
    features, of.Dataset
  )
  if isinstance(features, of.FeaturesDict):
    for part, feature in features.items():
      inner = f"{name}.{part}" if name else part
      yield from columns_of(
        feature, where, inner, f"{key}/{part}" if key else part, many
      )
  elif is_sequence and not many:
    for part, column in columns_of(features.feature, where, name, key, many=True):
      if features.doc.value_range == AT_MOST_ONE:
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
  shape = ()
  if isinstance(feature, tfds.features.ClassLabel):
    element, values = pa.string(), _class_names(feature)
  elif isinstance(feature, tfds.features.Image):
    element, values = pa.binary(), _bytes_array
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
  is_text = element == pa.string()
  if shape and not many and (shape[0] is None or (is_text and len(shape) == 1)):
    many, shape = True, shape[1:]
  if None in shape or (shape and is_text):
    raise DataError(f"{problem}: lists within lists of an unknown length do not")
  width = int(np.prod(shape, dtype=np.int64))
  if not width:
    raise DataError(f"{problem}: it has no numbers")
  kind = pa.list_(element, width) if shape else element
  return FeatureColumn(
    key, pa.list_(kind) if many else kind, values, many, width, bool(shape)
  )


def _element(dtype: np.dtype) -> tuple[pa.DataType, _Values]:
  """The Arrow type of a number or string, and how stored values become arrays of it.

  Records store all integers in 64 bits, all floats in 32.
  """
  if dtype.kind in "OSU":
    return pa.string(), lambda lists: _bytes_array(lists).cast(pa.string())
  if dtype.kind == "b":
    return pa.bool_(), lambda lists: pa.array(_numbers(lists, np.int64) != 0)
  if dtype.kind in "iu":
    # A uint64 is stored as the int64 of the same bits.
    kind = pa.from_numpy_dtype(dtype)
    return kind, lambda lists: pa.array(_numbers(lists, np.int64).astype(dtype))
  wide = np.float64 if dtype == np.float64 else np.float32
  return pa.from_numpy_dtype(wide), lambda lists: pa.array(_numbers(lists, wide))


def _numbers(lists: _Lists, dtype: Any) -> np.ndarray:
  # Not through a list of Python's numbers, which takes eight times the memory.
  count = sum(map(len, lists))
  return np.fromiter(itertools.chain.from_iterable(lists), dtype, count)


def _bytes_array(lists: _Lists) -> pa.Array:
  """All values, end to end: `[n]` binary."""
  return pa.array(list(itertools.chain.from_iterable(lists)), pa.binary())


def _class_names(feature: Any) -> _Values:
  """Function from class numbers to names; -1, by which TFDS says "unknown", is null."""
  names = pa.array([str(name) for name in feature.names], pa.string())

  def values(lists: _Lists) -> pa.Array:
    found = _numbers(lists, np.int64)
    return names.take(pa.array(found, mask=found < 0))

  return values
