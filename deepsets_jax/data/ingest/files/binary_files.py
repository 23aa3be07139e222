"""Parquet and Arrow files as a `Source`: read in pieces, whatever their size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from deepsets_jax.data.ingest.files import source
from deepsets_jax.data.ingest.files.checks import check_buffers
from deepsets_jax.data.ingest.files.plain import Layout
from deepsets_jax.data.ingest.files.source import READ_ERRORS, reason
from deepsets_jax.foundation.errors import DataError

# Bytes of a column that are read from disk at once. Without such a bound a whole row
# group of a column is, however large.
_BUFFER = 1 << 20
# Rows that tell how wide rows are once decoded, which the sizes on disk do not.
_PROBE_ROWS = 64


def _stream(
  layout: Layout,
  names: Sequence[str],
  found: Iterable[pa.RecordBatch],
  row: int,
  start: int,
) -> Iterator[pa.RecordBatch]:
  """The plain batches from row `start` on, of a file's own from `row` on."""
  for batch in found:
    skipped = min(max(start - row, 0), batch.num_rows)
    row += skipped
    for piece in source.cut(batch.slice(skipped)):
      yield layout.read(piece, names, row)
      row += piece.num_rows


class ParquetSource:
  """A Parquet file, streamed: a row group need not fit in memory.

  The checksums of pages are verified where the file has them.
  """

  def __init__(self, where: str):
    """Reads the file's footer.

    Args:
      where: Path.

    Raises:
      DataError: It is damaged, or a column of it cannot be read.
    """
    self.where = where
    with self._open() as file:
      self._metadata = file.metadata
      try:
        found = file.schema_arrow
      except READ_ERRORS as error:
        raise DataError(
          f"{where} has a schema that cannot be read ({reason(error)}); write it again"
        ) from error
    self._layout = Layout.of(where, found)
    self.schema, self.notes = self._layout.schema, []
    self.num_rows = self._metadata.num_rows

  def at(self, row: int) -> str:
    """Where a row is, for messages."""
    return f"{self.where}, row {row}"

  def batches(
    self, columns: Sequence[str] | None = None, *, start: int = 0
  ) -> Iterator[pa.RecordBatch]:
    """As `Source` says; row groups before `start` are not read."""
    names = source.select(self.where, self.schema, columns)
    groups, row = self._groups_from(start)
    roots = self._layout.roots(names)
    # The whole of a struct is asked for by its name, which asks for its fields.
    found = self._read(groups, row, roots, self._batch_rows(groups, roots))
    return source.joined(_stream(self._layout, names, found, row, start))

  def _open(self) -> pq.ParquetFile:
    try:
      return pq.ParquetFile(
        self.where,
        page_checksum_verification=True,
        # Both would hold whole row groups.
        pre_buffer=False,
        buffer_size=_BUFFER,
      )
    except READ_ERRORS as error:
      raise DataError(
        f"{self.where} is no whole Parquet file ({reason(error)}); it is truncated or"
        " damaged, write it again"
      ) from error

  def _groups_from(self, start: int) -> tuple[list[int], int]:
    """The row groups with the rows from `start` on, and the first row of them."""
    row = 0
    for group in range(self._metadata.num_row_groups):
      rows = self._metadata.row_group(group).num_rows
      if row + rows > start:
        return list(range(group, self._metadata.num_row_groups)), row
      row += rows
    return [], row

  def _batch_rows(self, groups: Sequence[int], roots: Sequence[str]) -> int:
    """How many rows to decode at once, so that they are `BATCH_BYTES` or so."""
    if not groups or not roots:
      return source.BATCH_ROWS
    # Of all columns, on disk. A damaged footer that is asked for single columns ends
    # the process, in pyarrow 26.
    parts = [self._metadata.row_group(group) for group in groups]
    widths = [part.total_byte_size / max(part.num_rows, 1) for part in parts]
    # A string that is on disk once, in the group's dictionary, may be in every row.
    with self._open() as file:
      try:
        probe = next(
          file.iter_batches(
            _PROBE_ROWS, row_groups=groups[:1], columns=list(roots), use_threads=False
          )
        )
      except (*READ_ERRORS, StopIteration):
        return source.BATCH_ROWS  # The read that follows says what is wrong.
    width = probe.nbytes / max(probe.num_rows, 1)
    widest = max(1.0, width * max(1.0, max(widths) / max(widths[0], 1.0)))
    return max(1, min(source.BATCH_ROWS, int(source.BATCH_BYTES / widest)))

  def _read(
    self, groups: Sequence[int], row: int, roots: Sequence[str], batch_rows: int
  ) -> Iterator[pa.RecordBatch]:
    if not groups:
      return
    with self._open() as file:
      try:
        for batch in file.iter_batches(
          batch_rows, row_groups=groups, columns=list(roots), use_threads=False
        ):
          row += batch.num_rows
          yield batch
      except READ_ERRORS as error:
        column = self._broken_column(groups, roots)
        raise DataError(
          f"{self.where}, from row {row} on{column}: cannot be read ({reason(error)});"
          " the file is damaged, write it again"
        ) from error

  def _broken_column(self, groups: Sequence[int], roots: Sequence[str]) -> str:
    """ ", column 'x'" for the first that cannot be read alone; "" if each can."""
    for root in roots:
      try:
        with self._open() as file:
          for _ in file.iter_batches(
            source.BATCH_ROWS, row_groups=groups, columns=[root], use_threads=False
          ):
            pass
      except (*READ_ERRORS, DataError):
        return f", column {root!r}"
    return ""


class ArrowSource:
  """An Arrow IPC file or stream, memory-mapped.

  Record batches that are compressed are unpacked one at a time: one of them has to fit
  in memory.
  """

  def __init__(self, where: str):
    """Reads the file's schema, and of an IPC file its number of rows.

    Args:
      where: Path.

    Raises:
      DataError: It is damaged, or a column of it cannot be read.
    """
    self.where = where
    reader, self._is_stream = self._open()
    self._layout = Layout.of(where, reader.schema)
    self.schema, self.notes = self._layout.schema, []
    self.num_rows = None
    if not self._is_stream:
      self.num_rows = self._guard(reader.count_rows)

  def at(self, row: int) -> str:
    """Where a row is, for messages."""
    return f"{self.where}, row {row}"

  def batches(
    self, columns: Sequence[str] | None = None, *, start: int = 0
  ) -> Iterator[pa.RecordBatch]:
    """As `Source` says."""
    names = source.select(self.where, self.schema, columns)
    return source.joined(_stream(self._layout, names, self._read(), 0, start))

  def _open(self) -> tuple:
    """A reader, and whether it is of a stream."""
    # Of all columns: a reader of some copies them out of the map, a batch at a time.
    options = pa.ipc.IpcReadOptions(use_threads=False)

    def open_file():
      file = pa.memory_map(self.where)
      stream = file.read_at(6, 0) != b"ARROW1"
      opener = pa.ipc.open_stream if stream else pa.ipc.open_file
      return opener(file, options=options), stream

    return self._guard(open_file)

  def _guard(self, read: Callable, row: int | None = None):
    try:
      return read()
    except READ_ERRORS as error:
      place = "" if row is None else f", from row {row} on"
      raise DataError(
        f"{self.where}{place}: no whole Arrow file or stream ({reason(error)}); it is"
        " truncated or damaged, write it again"
      ) from error

  def _read(self) -> Iterator[pa.RecordBatch]:
    reader, is_stream = self._open()
    row = number = 0
    while is_stream or number < reader.num_record_batches:
      get = (
        reader.read_next_batch
        if is_stream
        else functools.partial(reader.get_batch, number)
      )
      try:
        batch = self._guard(get, row)
      except StopIteration:
        return
      # Lengths and buffers only: what is in them is looked at as it is read.
      for column in batch.columns:
        self._guard(functools.partial(check_buffers, column), row)
      row += batch.num_rows
      number += 1
      yield batch
