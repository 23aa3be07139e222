"""Parquet and Arrow files as a `Source`: read in pieces, whatever their size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from deepsets_jax.data.ingest.files import source
from deepsets_jax.data.ingest.files.plain import Layout, check_buffers
from deepsets_jax.data.ingest.files.source import READ_ERRORS, located_errors
from deepsets_jax.foundation.errors import DataError

# Bytes of a column that are read from disk at once. Without such a bound Arrow reads a
# whole row group of a column, however large.
_BUFFER = 1 << 20
# Rows that are decoded to measure their width, which the sizes on disk do not show.
_PROBE_ROWS = 64


class _BinarySource(source.Source):
  """A file with types of its own. A subclass implements `_raw` and sets `_layout`."""

  _layout: Layout

  @property
  def schema(self) -> pa.Schema:
    return self._layout.schema

  def _raw(
    self, roots: Sequence[str], start: int
  ) -> Iterator[tuple[int, pa.RecordBatch]]:
    """First row and content of batches of the file, which include row `start`."""
    raise NotImplementedError

  def _read(self, names: Sequence[str], start: int) -> Iterator[pa.RecordBatch]:
    for row, batch in self._raw(self._layout.roots(names), start):
      skipped = min(max(start - row, 0), batch.num_rows)
      yield from self._layout.read(batch.slice(skipped), names, row + skipped)


class ParquetSource(_BinarySource):
  """A Parquet file, streamed: a row group need not fit in memory.

  The checksums of pages are verified if the file has them.
  """

  def __init__(self, where: str):
    """Read the footer of the file at path `where`.

    Raises:
      DataError: The file is damaged, or a column of it cannot be read.
    """
    self.where = where
    with self._open() as file:
      self._metadata = file.metadata
      with located_errors(f"{where} has a schema that", "write it again"):
        found = file.schema_arrow
    self._layout = Layout.of(where, found)
    self.num_rows = self._metadata.num_rows

  def _open(self) -> pq.ParquetFile:
    with located_errors(f"{self.where} is not a whole Parquet file: it"):
      return pq.ParquetFile(
        self.where,
        page_checksum_verification=True,
        # Both would hold whole row groups.
        pre_buffer=False,
        buffer_size=_BUFFER,
      )

  def _raw(
    self, roots: Sequence[str], start: int
  ) -> Iterator[tuple[int, pa.RecordBatch]]:
    first = row = 0  # Row groups before `start` are not read.
    for first in range(self._metadata.num_row_groups):
      rows = self._metadata.row_group(first).num_rows
      if row + rows > start:
        break
      row += rows
    else:
      return
    groups = list(range(first, self._metadata.num_row_groups))
    batch_rows = self._batch_rows(groups, roots)
    try:
      # A struct is read whole, by its own name.
      for batch in self._decode(batch_rows, groups, roots):
        yield row, batch
        row += batch.num_rows
    except READ_ERRORS as error:
      raise DataError(
        f"{self.where}, from row {row} on{self._broken(groups, roots)}: cannot be read"
        f" ({source.reason(error)}); the file is damaged, write it again"
      ) from error

  def _decode(
    self, batch_rows: int, groups: list[int], roots: Sequence[str]
  ) -> Iterator[pa.RecordBatch]:
    with self._open() as file:
      yield from file.iter_batches(
        batch_rows, row_groups=groups, columns=list(roots), use_threads=False
      )

  def _batch_rows(self, groups: list[int], roots: Sequence[str]) -> int:
    """Number of rows to decode at once, so that they have about `BATCH_BYTES`."""
    if not roots:
      return source.BATCH_ROWS
    # Sizes of all columns, on disk. pyarrow 26 ends the process if it asks a damaged
    # footer for single columns.
    parts = [self._metadata.row_group(group) for group in groups]
    widths = [part.total_byte_size / max(part.num_rows, 1) for part in parts]
    # A string that is on disk once, in the group's dictionary, may be in every row.
    try:
      probe = next(self._decode(_PROBE_ROWS, groups[:1], roots))
    except (*READ_ERRORS, StopIteration):
      return source.BATCH_ROWS  # The read that follows raises the error.
    width = probe.nbytes / max(probe.num_rows, 1)
    widest = max(1.0, width * max(1.0, max(widths) / max(widths[0], 1.0)))
    return max(1, min(source.BATCH_ROWS, int(source.BATCH_BYTES / widest)))

  def _broken(self, groups: list[int], roots: Sequence[str]) -> str:
    """ ", column 'x'" for the first column that cannot be read alone, else ""."""
    for root in roots:
      try:
        for _ in self._decode(source.BATCH_ROWS, groups, [root]):
          pass
      except READ_ERRORS:
        return f", column {root!r}"
    return ""


class ArrowSource(_BinarySource):
  """An Arrow IPC file or stream, memory-mapped.

  A compressed record batch has to fit in memory.
  """

  def __init__(self, where: str):
    """Read the schema of the file at path `where`, and in a file its number of rows.

    Raises:
      DataError: The file is damaged, or a column of it cannot be read.
    """
    self.where = where
    with located_errors(f"{where} is not a whole Arrow file or stream: it"):
      reader = self._open()
      self._layout = Layout.of(where, reader.schema)
      if isinstance(reader, pa.ipc.RecordBatchFileReader):
        self.num_rows = reader.count_rows()

  def _open(self) -> pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader:
    file = pa.memory_map(self.where)
    opener = pa.ipc.open_file if file.read_at(6, 0) == b"ARROW1" else pa.ipc.open_stream
    # All columns: a reader of some would copy them out of the map, a batch at a time.
    return opener(file, options=pa.ipc.IpcReadOptions(use_threads=False))

  def _raw(
    self, roots: Sequence[str], start: int
  ) -> Iterator[tuple[int, pa.RecordBatch]]:
    row = 0
    with located_errors(f"{self.where}, from row 0 on:"):
      reader = self._open()
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
      found = map(reader.get_batch, range(reader.num_record_batches))
    else:
      found = iter(reader)
    while True:
      with located_errors(f"{self.where}, from row {row} on:"):
        if (batch := next(found, None)) is None:
          return
        # Lengths and buffers only: the values are checked when they are read.
        for column in batch.columns:
          check_buffers(column)
      yield row, batch
      row += batch.num_rows
