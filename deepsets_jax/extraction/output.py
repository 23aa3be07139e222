"""Extractions as columns of a Parquet file: a list of vectors for each row.

The extractor `faces`, with vectors of 128 numbers, gives the column
`faces: list<fixed_size_list<float>[128]>`. There are also
`faces.boxes: list<fixed_size_list<float>[4]>`, `faces.scores: list<float>` and
`faces.strings: list<string>` if the extractor returns these parts. Null stands for a
missing or broken input, an empty list for an input in which nothing was found.
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
from deepsets_jax.extraction.worker import ExtractorInfo
from deepsets_jax.foundation.errors import DataError

FORMAT = "deepsets_jax extraction 1"
# A row group is written when it reaches this number of bytes or rows.
_GROUP_BYTES = 1 << 25
_GROUP_ROWS = 8192


@dataclasses.dataclass(frozen=True)
class ExtractedModality:
  """A modality of the output: an extractor applied to a column of the input.

  Attributes:
    name: Name of the modality.
    source: Name of the column.
    extractor: The extractor.
  """

  name: str
  source: str
  extractor: ExtractorInfo

  def fields(self) -> list[pa.Field]:
    """The columns of the file."""
    types = {
      "boxes": vector_lists(4),
      "scores": pa.list_(pa.float32()),
      "strings": pa.list_(pa.string()),
    }
    return [
      pa.field(self.name, vector_lists(self.extractor.dimension)),
      *(pa.field(f"{self.name}.{part}", types[part]) for part in self.extractor.parts),
    ]

  def arrays(self, found: Sequence[Extraction | None]) -> list[pa.Array]:
    """The columns of some rows; None stands for a missing input."""
    present = [one for one in found if one is not None]
    lengths = np.array([0 if one is None else len(one.vectors) for one in found], int)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    mask = pa.array([one is None for one in found], pa.bool_())
    values = [_vectors([one.vectors for one in present], self.extractor.dimension)]
    for part in self.extractor.parts:
      parts = [getattr(one, part) for one in present]
      if part == "boxes":
        values.append(_vectors(parts, 4))
      else:
        kind = pa.string() if part == "strings" else pa.float32()
        values.append(pa.array([item for items in parts for item in items], kind))
    return [pa.ListArray.from_arrays(offsets, v, mask=mask) for v in values]


def vector_lists(size: int) -> pa.DataType:
  """The type of lists of vectors of one size."""
  return pa.list_(pa.list_(pa.float32(), size))


def _vectors(arrays: Sequence[np.ndarray], size: int) -> pa.Array:
  stacked = np.concatenate([np.zeros((0, size), np.float32), *arrays])
  return vectors_to_arrow(stacked, np.float32)


def extracted_modalities(
  given: Input, extractors: Sequence[ExtractorInfo]
) -> list[ExtractedModality]:
  """Each extractor applied to each column of its kind.

  A modality has the name of its extractor, or `<column>.<extractor>` if there are
  several columns of that kind.

  Raises:
    DataError: An extractor has no column, or a name is taken already.
  """
  modalities = []
  for extractor in extractors:
    sources = given.columns(extractor.kind)
    if not sources:
      raise DataError(
        f"{given.source.where}: extractor {extractor.name!r} needs a column of"
        f" {extractor.kind}s. Give --{extractor.kind}s=COLUMN, or remove the extractor."
      )
    for source in sources:
      name = extractor.name if len(sources) == 1 else f"{source}.{extractor.name}"
      modalities.append(ExtractedModality(name, source, extractor))
  taken = list(given.kept)
  for modality in modalities:
    for field in modality.fields():
      if field.name in taken:
        raise DataError(
          f"{given.source.where}: the file has a column {field.name!r} already, which"
          f" extractor {modality.extractor.name!r} would write. Rename it."
        )
      taken.append(field.name)
  return modalities


def file_schema(given: Input, modalities: Sequence[ExtractedModality]) -> pa.Schema:
  """The schema of the file: kept columns of the input, then the modalities."""
  kept = [given.source.schema.field(name) for name in given.kept]
  made = {
    modality.name: {
      "column": modality.source,
      "extractor": modality.extractor.key,
      "licence": modality.extractor.licence,
    }
    for modality in modalities
  }
  metadata = {"format": FORMAT, "modalities": json.dumps(made)}
  fields = [field for modality in modalities for field in modality.fields()]
  return pa.schema([*kept, *fields], metadata)


def file_rows(
  batch: pa.RecordBatch,
  schema: pa.Schema,
  found: Mapping[str, Sequence[Extraction | None]],
  modalities: Sequence[ExtractedModality],
) -> pa.Table:
  """Rows of the file.

  Args:
    batch: The same rows of the input.
    schema: The schema of the file.
    found: The extraction of each row, by modality.
    modalities: All modalities.
  """
  made = [array for m in modalities for array in m.arrays(found[m.name])]
  kept = [batch[name] for name in schema.names[: len(schema) - len(made)]]
  return pa.Table.from_arrays([*kept, *made], schema=schema)


class Writer:
  """Adds rows to a file in row groups of about one size, however they arrive."""

  def __init__(self, file: pq.ParquetWriter):
    self._file = file
    self._pending: list[pa.Table] = []

  def add(self, rows: pa.Table) -> None:
    """Write rows, or keep them for the next row group."""
    self._pending.append(rows)
    size = sum(piece.nbytes for piece in self._pending)
    if size >= _GROUP_BYTES or sum(map(len, self._pending)) >= _GROUP_ROWS:
      self.flush()

  def flush(self) -> None:
    """Write the rows that were kept."""
    if self._pending:
      whole = pa.concat_tables(self._pending)
      self._file.write_table(whole, row_group_size=len(whole))
    self._pending = []


@contextlib.contextmanager
def open_writer(
  path: str | pathlib.Path, schema: pa.Schema, suffix: str
) -> Iterator[Writer]:
  """Write the file `path`, or nothing if the context ends with an error.

  Args:
    path: Parquet file.
    schema: Its schema.
    suffix: Suffix of the temporary name. The name is fixed, so that a run overwrites
      the remains of a killed one.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.{suffix}")
  # Vectors do not repeat: a dictionary would take time and save nothing.
  words = [field.name for field in schema if pa.types.is_string(field.type)]
  options = {"compression": "zstd", "use_dictionary": words}
  try:
    with pq.ParquetWriter(
      temporary, schema, write_page_checksum=True, **options
    ) as file:
      writer = Writer(file)
      yield writer
      writer.flush()
    temporary.replace(path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise
