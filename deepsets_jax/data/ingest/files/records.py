"""A TFDS data set as columns: `tfds:NAME[/CONFIG[:VERSION]]`, without TensorFlow.

Records are read from their array_record files and none is decoded: pictures stay the
bytes they are. What our builders write where there is nothing, an empty string, an
empty sequence or NaN, comes out as null.
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
  Column,
  Lists,
  bytes_array,
  columns_of,
)
from deepsets_jax.data.ingest.files.source import (
  BATCH_BYTES,
  BATCH_ROWS,
  READ_ERRORS,
  first_failing,
  reason,
  select,
  shorten,
)
from deepsets_jax.foundation.errors import ConfigError, DataError


class TfdsSource:
  """The records of all splits of a data set, one split after the other.

  A column `split` names the split, unless the features have one of that name. A
  sequence of dictionaries becomes a column for each of their keys, `events.film`.

  Attributes:
    where: What to call it in a message.
    schema: Arrow types of all columns.
    num_rows: Of all splits.
    folder: Where it was built.
    notes: None.
  """

  def __init__(self, builder: tfds.core.DatasetBuilder, where: str):
    self.where, self.folder = where, pathlib.Path(builder.data_path)
    self.notes: list[str] = []
    self._columns: dict[str, Column] = {}
    # By name: features that are read from a file come in another order each time.
    for name, column in sorted(
      columns_of(builder.info.features, where), key=lambda pair: pair[0]
    ):
      if name in self._columns:
        raise DataError(f"{where}: two features become the column {name!r}")
      self._columns[name] = column
    self._splits = {
      name: builder.as_data_source(
        split=name, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
      )
      for name, info in builder.info.splits.items()
      if info.num_examples
    }
    fields = [pa.field(name, column.kind) for name, column in self._columns.items()]
    if "split" not in self._columns:
      fields.append(pa.field("split", pa.string()))
    self.schema = pa.schema(fields)
    self.num_rows = sum(len(records) for records in self._splits.values())
    size = sum(info.num_bytes for info in builder.info.splits.values())
    mean = max(1, size // max(1, self.num_rows))
    self._batch_rows = max(1, min(BATCH_ROWS, BATCH_BYTES // mean))

  def at(self, row: int) -> str:
    """Where a row is, for messages."""
    return f"{self.where}, row {row}"

  def batches(
    self, columns: Sequence[str] | None = None, *, start: int = 0
  ) -> Iterator[pa.RecordBatch]:
    """Batches of these columns (None: all) from row `start` on, one split in each.

    Those before `start` are not read.

    Raises:
      DataError: No such column; a record that does not fit the features, or whose text
        is not UTF-8.
    """
    names = select(self.where, self.schema, columns)
    schema = pa.schema([self.schema.field(name) for name in names])
    first = 0
    for split, records in self._splits.items():
      begin = max(0, start - first)
      for row in range(begin, len(records), self._batch_rows):
        rows = range(row, min(row + self._batch_rows, len(records)))
        arrays = self._read(records, rows, names, split, first)
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
      first += len(records)

  def _read(
    self,
    records: Any,
    rows: range,
    names: Sequence[str],
    split: str,
    first: int,
  ) -> list[pa.Array]:
    """The columns of some rows of a split whose first row is row `first` of all."""
    try:
      stored = records.__getitems__(list(rows))
      if not all(stored):
        # What array_record gives, without an error, of a file that lost its index.
        raise ConfigError(f"row {first + rows[stored.index(b'')]} is empty")
      examples = [
        tf_example_pb2.Example.FromString(record).features.feature for record in stored
      ]
    except (*READ_ERRORS, IndexError, RuntimeError, DecodeError) as error:
      raise DataError(
        f"{self.where}: rows {first + rows[0]} to {first + rows[-1]}, of split"
        f" {split!r}, cannot be read ({reason(error)}); a file is missing or damaged:"
        " build the data set again"
      ) from error
    arrays = []
    for name in names:
      if name in self._columns:
        where = f"{self.where}, column {name!r}"
        arrays.append(_array(self._columns[name], examples, where, first + rows[0]))
      else:
        arrays.append(pa.repeat(pa.scalar(split, pa.string()), len(rows)))
    return arrays


def open_tfds(name: str, data_dir: str | None = None) -> TfdsSource:
  """A data set that has been built, by its name; `tfds:` before it is left out.

  Its builder's code is not needed, nor run.

  Args:
    name: `NAME`, `NAME/CONFIG` or `NAME/CONFIG:VERSION`.
    data_dir: Where it was built; None for TFDS' own folder.

  Raises:
    DataError: It is not there, in another format, or has a feature that makes no
      column.
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
      " which is not read here; build it again in another folder with"
      " file_format='array_record'"
    )
  return TfdsSource(builder, where)


def _array(
  column: Column,
  examples: Sequence[Mapping[str, Any]],
  where: str,
  first: int,
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
    row = first_failing(len(lists), lambda i, n: not _is_text(lists[i : i + n]))
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
  # Where there is no element there is null.
  slots = np.cumsum(counts) - 1
  return elements.take(pa.array(slots, mask=counts == 0))


def _values(example: Mapping[str, Any], key: str) -> Sequence[Any]:
  """What a record has of a feature: nothing where it lacks it."""
  if key not in example:
    return ()
  feature = example[key]
  kind = feature.WhichOneof("kind")
  return getattr(feature, kind).value if kind else ()


def _absent_as_null(values: pa.Array) -> pa.Array:
  """Null for an empty string and for NaN."""
  if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
    there = pc.greater(pc.binary_length(values), 0)
  elif pa.types.is_floating(values.type):
    there = pc.invert(pc.is_nan(values))
  else:
    return values
  return pc.if_else(there, values, pa.scalar(None, values.type))


def _is_text(lists: Lists) -> bool:
  try:
    bytes_array(lists).cast(pa.string())
  except pa.ArrowInvalid:
    return False
  return True
