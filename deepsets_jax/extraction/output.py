"""What was found as columns of a Parquet file: a list of vectors for each row.

Extractor `faces` of 128 numbers gives `faces: list<fixed_size_list<float>[128]>`, and
of `faces.boxes: list<fixed_size_list<float>[4]>`, `faces.scores: list<float>` and
`faces.strings: list<string>` those that it has. Null where there was no input, or a
broken one; an empty list where nothing was found in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deepsets_jax.data.tables.arrow_lists import vectors_to_arrow
from deepsets_jax.extraction.inputs import Input
from deepsets_jax.extraction.protocol import Extraction
from deepsets_jax.extraction.worker import Facts
from deepsets_jax.foundation.errors import DataError

FORMAT = "deepsets_jax extraction 1"
# A row group is written when it has this many bytes or rows.
_GROUP_BYTES = 1 << 25
_GROUP_ROWS = 8192
_SIZES = {"boxes": 4}


@dataclasses.dataclass(frozen=True)
class Column:
  """A modality of the output.

  Attributes:
    name: Of the modality.
    source: Column of the input.
    facts: The extractor.
  """

  name: str
  source: str
  facts: Facts

  def schema(self) -> list[pa.Field]:
    """The columns of the file."""
    names = [self.name, *(f"{self.name}.{part}" for part in self.facts.parts)]
    kinds = [vectors_type(self.facts.dimension), *map(_part_type, self.facts.parts)]
    return [pa.field(name, kind) for name, kind in zip(names, kinds, strict=True)]

  def arrays(self, found: Sequence[Extraction | None]) -> list[pa.Array]:
    """The columns of some rows; None stands for no input."""
    present = [one for one in found if one is not None]
    lengths = np.array([0 if one is None else len(one.vectors) for one in found], int)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    mask = pa.array([one is None for one in found], pa.bool_())
    size = self.facts.dimension
    values = [_vectors([one.vectors for one in present], size)]
    for part in self.facts.parts:
      values.append(_part(part, [getattr(one, part) for one in present]))
    return [pa.ListArray.from_arrays(offsets, v, mask=mask) for v in values]


def vectors_type(size: int) -> pa.DataType:
  """Lists of vectors of one size."""
  return pa.list_(pa.list_(pa.float32(), size))


def _part_type(part: str) -> pa.DataType:
  if part in _SIZES:
    return vectors_type(_SIZES[part])
  return pa.list_(pa.string() if part == "strings" else pa.float32())


def _vectors(arrays: Sequence[np.ndarray], size: int) -> pa.Array:
  stacked = np.concatenate([np.zeros((0, size), np.float32), *arrays])
  return vectors_to_arrow(stacked, np.float32)


def _part(part: str, values: Sequence) -> pa.Array:
  if part in _SIZES:
    return _vectors(values, _SIZES[part])
  flat = [item for value in values for item in value]
  return pa.array(flat, pa.string() if part == "strings" else pa.float32())


def columns(given: Input, facts: Sequence[Facts]) -> list[Column]:
  """The modalities: each extractor on each column of its kind.

  A modality is named as its extractor; where there are several columns of that kind,
  `<column>.<extractor>`.

  Raises:
    DataError: An extractor has no column, or no name is left for it.
  """
  found = []
  for one in facts:
    sources = given.columns(one.kind)
    if not sources:
      raise DataError(
        f"{given.source.where}: extractor {one.name!r} is of {one.kind}s, and no column"
        f" of them is named; give --{one.kind}s=COLUMN, or leave the extractor out"
      )
    for source in sources:
      name = one.name if len(sources) == 1 else f"{source}.{one.name}"
      found.append(Column(name, source, one))
  taken = list(given.kept)
  for column in found:
    for field in column.schema():
      if field.name in taken:
        raise DataError(
          f"{given.source.where}: extractor {column.facts.name!r} gives a column"
          f" {field.name!r}, and there is one already; rename that of the file"
        )
      taken.append(field.name)
  return found


def schema(given: Input, modalities: Sequence[Column]) -> pa.Schema:
  """Of the file: the columns that are kept, then the modalities."""
  kept = [given.source.schema.field(name) for name in given.kept]
  made = {
    column.name: {
      "column": column.source,
      "extractor": column.facts.key,
      "licence": column.facts.licence,
    }
    for column in modalities
  }
  metadata = {"format": FORMAT, "modalities": json.dumps(made)}
  return pa.schema(
    [*kept, *(field for column in modalities for field in column.schema())], metadata
  )


def table(
  batch: pa.RecordBatch,
  whole: pa.Schema,
  found: Mapping[str, Sequence[Extraction | None]],
  modalities: Sequence[Column],
) -> pa.Table:
  """Rows of the file.

  Args:
    batch: The same rows of the input.
    whole: Of the file.
    found: By name of the modality, of each row.
    modalities: All of them.
  """
  made = [array for c in modalities for array in c.arrays(found[c.name])]
  kept = [batch[name] for name in whole.names[: len(whole) - len(made)]]
  return pa.Table.from_arrays([*kept, *made], schema=whole)


class Writer:
  """Adds rows to a file, in row groups of some size whatever the pieces added."""

  def __init__(self, file: pq.ParquetWriter):
    self._file = file
    self._pending: list[pa.Table] = []

  def add(self, rows: pa.Table) -> None:
    """Writes some rows, or keeps them for the next row group."""
    self._pending.append(rows)
    size = sum(piece.nbytes for piece in self._pending)
    if size >= _GROUP_BYTES or sum(map(len, self._pending)) >= _GROUP_ROWS:
      self.flush()

  def flush(self) -> None:
    """Writes what is left."""
    if self._pending:
      whole = pa.concat_tables(self._pending)
      self._file.write_table(whole, row_group_size=len(whole))
    self._pending = []


@contextlib.contextmanager
def writing(
  path: str | pathlib.Path, whole: pa.Schema, suffix: str
) -> Iterator[Writer]:
  """Writes the file `path`, or nothing if there is an error meanwhile.

  Args:
    path: Parquet file.
    whole: Its schema.
    suffix: Of the temporary name; that which a killed run leaves is written over.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.{suffix}")
  # Vectors do not repeat: a dictionary of them would only cost time.
  words = [field.name for field in whole if pa.types.is_string(field.type)]
  options = {"compression": "zstd", "use_dictionary": words}
  try:
    with pq.ParquetWriter(
      temporary, whole, write_page_checksum=True, **options
    ) as file:
      writer = Writer(file)
      yield writer
      writer.flush()
    temporary.replace(path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise
