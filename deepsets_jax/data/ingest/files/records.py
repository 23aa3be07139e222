"""A TFDS data set as columns: `tfds:NAME[/CONFIG[:VERSION]]`, without TensorFlow.

Records are read from their array_record files; pictures stay encoded. The values by
which our builders write that there is nothing, which are an empty string, an empty
sequence and NaN, become null.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from deepsets_jax.data.ingest.files.record_features import (
  FeatureColumn,
  bytes_array,
  columns_of,
)
from deepsets_jax.data.ingest.files.source import (
  BATCH_BYTES,
  BATCH_ROWS,
  READ_ERRORS,
  Source,
  first_failing,
  make_batch,
  reason,
  shorten,
)
from deepsets_jax.foundation.errors import DataError


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
        yield make_batch(arrays, schema, len(rows))
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
    except (*READ_ERRORS, IndexError, RuntimeError, DecodeError) as error:
      raise DataError(
        f"{self.where}: rows {first + rows[0]} to {first + rows[-1]}, of split"
        f" {split!r}, cannot be read ({reason(error)}); a file is missing or damaged:"
        " build the data set again"
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
      f"{where}: not built in {folder}; build it there with"
      f" python -m deepsets_jax.data.datasets.builders.build {name} --data_dir={folder}"
      " --file_format=array_record, or in Python with"
      f" tfds.builder({name!r}, data_dir={str(folder)!r}, file_format='array_record')"
      ".download_and_prepare(); where it has configs, name one: NAME/CONFIG"
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
    row = first_failing(
      len(lists), lambda i, n: bytes_array(lists[i : i + n]).cast(pa.string())
    )
    raise DataError(
      f"{where}: row {first + row} has {shorten(lists[row])}, which is not UTF-8; store"
      " text as UTF-8, a picture as an Image"
    ) from error
  except (TypeError, ValueError, IndexError) as error:
    raise DataError(
      f"{where}: rows {first} to {first + len(lists) - 1} have values that do not fit"
      f" the features ({reason(error)}); build the data set again"
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
