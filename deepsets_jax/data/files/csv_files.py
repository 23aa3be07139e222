"""CSV files as a `Source`: every cell read as a string, then as its column's type."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.csv as pcsv

from deepsets_jax.data.files import csv_types, source, text_files
from deepsets_jax.data.files.csv_quotes import QuotedText, line_of, separator
from deepsets_jax.data.files.plain import check_names, check_same_names
from deepsets_jax.data.files.source import READ_ERRORS, first_failing, reason, shorten
from deepsets_jax.data.table import DataError


class CsvSource:
  """A file of comma-separated values, or of tab-separated ones, with a header.

  Quotes are as in RFC 4180: a cell is quoted as a whole or not at all, and a quote in a
  quoted cell is written twice. Blank lines count as rows only where there is a single
  column.
  """

  def __init__(self, where: str, wanted: pa.Schema, num_rows: int | None = None):
    """Reads the header.

    Args:
      where: Path.
      wanted: Types that columns of these names shall have; others are strings.
      num_rows: Where it is known.

    Raises:
      DataError: It cannot be read, or a type cannot be written in CSV.
    """
    self.where = where
    self._names = _header(where)
    types = {field.name: field.type for field in wanted}
    self.schema = pa.schema(
      [(name, types.get(name, pa.string())) for name in self._names]
    )
    self.num_rows = num_rows
    for field in self.schema:
      if not csv_types.is_readable(field.type):
        raise DataError(
          f"{where}, column {field.name!r}: CSV has no {field.type}; give the table as"
          " Parquet, or leave the column out"
        )

  def batches(
    self, columns: Sequence[str] | None = None, *, start: int = 0
  ) -> Iterator[pa.RecordBatch]:
    """As `Source` says; rows before `start` are read, and not converted."""
    names = source.select(self.where, self.schema, columns)
    return source.joined(self._read(names, start))

  def _read(self, names: Sequence[str], start: int) -> Iterator[pa.RecordBatch]:
    row = 0
    for batch in _strings(self.where, self._names, names or self._names[:1]):
      skipped = min(max(start - row, 0), batch.num_rows)
      row += skipped
      if not names:
        yield source.rows_only(batch.num_rows - skipped)
        continue
      for piece in source.cut(batch.slice(skipped)):
        yield self._converted(piece, row)
        row += piece.num_rows

  def _converted(self, batch: pa.RecordBatch, row: int) -> pa.RecordBatch:
    fields, arrays = [], []
    for name, cells in zip(batch.schema.names, batch.columns, strict=True):
      field = self.schema.field(name)
      array = csv_types.convert(cells, field.type)
      if array is None:
        raise self._no_value(cells, field, row)
      fields.append(field)
      arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

  def _no_value(self, cells: pa.Array, field: pa.Field, row: int) -> DataError:
    def fails(begin: int, count: int) -> bool:
      return csv_types.convert(cells.slice(begin, count), field.type) is None

    index = first_failing(len(cells), fails)
    return DataError(
      f"{_at(self.where, self._names, row + index)}, column {field.name!r}:"
      f" {shorten(cells[index].as_py())} is no {field.type}; write it as"
      f" {field.type}, or leave the cell empty"
    )


def open_files(paths: Sequence[str], wanted: pa.Schema | None) -> list[CsvSource]:
  """Some files, of the types that are wanted, or that all their cells tell together.

  Raises:
    DataError: A file cannot be read, has columns of its own, or a type that cannot be
      written in CSV.
  """
  counts = [None] * len(paths)
  if wanted is None:
    wanted, counts = _infer(paths)
  return [CsvSource(path, wanted, n) for path, n in zip(paths, counts, strict=True)]


def _infer(paths: Sequence[str]) -> tuple[pa.Schema, list[int]]:
  """The types of the columns of some files together, and the rows of each file."""
  names = _header(paths[0])
  types = {name: csv_types.ColumnType() for name in names}
  counts = []
  for path in paths:
    header = _header(path)
    check_same_names(path, header, paths[0], names)
    rows = 0
    for batch in _strings(path, header, header):
      rows += batch.num_rows
      for name in header:
        types[name].see(batch.column(name))
    counts.append(rows)
  return pa.schema([(name, types[name].kind) for name in names]), counts


def _header(where: str) -> list[str]:
  """The names of the columns."""
  text = QuotedText(where)
  try:
    block = next(text.row_blocks(text_files.BLOCK), b"")
  finally:
    text.close()
  try:
    names = pcsv.open_csv(
      pa.BufferReader(block),
      pcsv.ReadOptions(use_threads=False, block_size=len(block) + 1),
      _parsing(text, lambda row: "skip"),
    ).schema.names
  except READ_ERRORS as error:
    raise DataError(
      f"{where} has no header, or nothing below it ({reason(error)}); give a file with"
      " a header and rows"
    ) from error
  check_names(where, names)
  _check_separator(where, names)
  return names


def _check_separator(where: str, names: Sequence[str]) -> None:
  """Raises for a header that is separated by something else."""
  others = [mark for mark in ",;\t|" if mark in names[0]]
  if len(names) == 1 and others:
    raise DataError(
      f"{where}: the header {shorten(names[0])} has no {separator(where)!r} but"
      f" {others[0]!r}; separate by commas, or by tabs and name the file .tsv"
    )


def _parsing(
  text: QuotedText, invalid: Callable[[pcsv.InvalidRow], str]
) -> pcsv.ParseOptions:
  return pcsv.ParseOptions(
    delimiter=separator(text.where),
    newlines_in_values=True,
    ignore_empty_lines=not text.blank_is_row,
    invalid_row_handler=invalid,
  )


def _strings(
  where: str, header: Sequence[str], names: Sequence[str]
) -> Iterator[pa.RecordBatch]:
  """All rows of these columns, as strings; null where a cell is empty."""
  row = 0
  text = QuotedText(where, blank_is_row=len(header) == 1)
  try:
    # Not by a reader of the file: Arrow would read it in a thread of its own, which
    # outlives an error and ends the process when it comes back to Python.
    for number, block in enumerate(text.row_blocks(text_files.BLOCK)):
      table = _parsed(text, block, header, names, row, is_first=number == 0)
      row += len(table)
      # The characters were found to be good as they were read.
      yield from table.cast(_all_strings(names)).combine_chunks().to_batches()
  finally:
    text.close()


def _parsed(
  text: QuotedText,
  block: bytes,
  header: Sequence[str],
  names: Sequence[str],
  row: int,
  *,
  is_first: bool,
) -> pa.Table:
  """These columns of the rows in a block, the first of which is `row`, as bytes."""
  invalid: list[pcsv.InvalidRow] = []

  def handle(found: pcsv.InvalidRow) -> str:
    invalid.append(found)
    return "error"

  try:
    return pcsv.read_csv(
      pa.BufferReader(block),
      pcsv.ReadOptions(
        use_threads=False,
        block_size=len(block) + 1,
        column_names=list(header),
        skip_rows_after_names=int(is_first),
      ),
      _parsing(text, handle),
      pcsv.ConvertOptions(
        column_types=dict.fromkeys(header, pa.binary()),
        include_columns=list(names),
        null_values=[""],
        strings_can_be_null=True,
      ),
    )
  except READ_ERRORS as error:
    if invalid:
      # Arrow counts from 1, the header too.
      at = row + invalid[0].number - 1 - int(is_first)
      raise _wrong_row(text.where, header, invalid[0], at) from error
    raise DataError(
      f"{text.where}, from row {row} on: cannot be read ({reason(error)}); mend the"
      " file"
    ) from error


def _all_strings(names: Sequence[str]) -> pa.Schema:
  return pa.schema([(name, pa.string()) for name in names])


def _wrong_row(
  where: str, header: Sequence[str], invalid: pcsv.InvalidRow, row: int
) -> DataError:
  return DataError(
    f"{_at(where, header, row)}: {invalid.actual_columns} cells,"
    f" expected {invalid.expected_columns}: {shorten(invalid.text)}; quote a cell that"
    f" holds a {separator(where)!r}, and write empty cells too"
  )


def _at(where: str, header: Sequence[str], row: int) -> str:
  line = line_of(where, row, blank_is_row=len(header) == 1)
  return f"{where}, row {row} (line {line})"
