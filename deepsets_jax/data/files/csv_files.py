"""CSV files as a `Source`: every cell read as a string, then as its column's type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.csv as pcsv

from deepsets_jax.data.files import csv_types, source, text_files
from deepsets_jax.data.files.csv_quotes import QuotedText, line_of, separator
from deepsets_jax.data.files.plain import check_names
from deepsets_jax.data.files.source import READ_ERRORS, first_failing, reason, shorten
from deepsets_jax.data.table import DataError

# What Arrow says of a row, or a header, that is longer than a block.
_TOO_SMALL = ("straddling", "Empty CSV file or block")


class CsvSource:
  """A file of comma-separated values, or of tab-separated ones, with a header.

  Quotes are as in RFC 4180: a cell is quoted as a whole or not at all, and a quote in a
  quoted cell is written twice. Blank lines count as rows only where there is a single
  column.
  """

  def __init__(
    self,
    where: str,
    wanted: pa.Schema | None = None,
    found: pa.Schema | None = None,
    num_rows: int | None = None,
  ):
    """Reads the file once, or with a schema only its header.

    Args:
      where: Path.
      wanted: Types that columns of these names shall have; others are strings.
      found: The types of all columns, where they are known.
      num_rows: Where it is known.

    Raises:
      DataError: It cannot be read, or a type cannot be written in CSV.
    """
    self.where = where
    self._names = _header(where)
    if found is None and wanted is None:
      found, (num_rows,) = infer([where])
    types = {field.name: field.type for field in found or wanted}
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


def infer(paths: Sequence[str]) -> tuple[pa.Schema, list[int]]:
  """The types of the columns of some files together, and the rows of each file.

  Raises:
    DataError: A file cannot be read, or has columns of its own.
  """
  names = _header(paths[0])
  types = {name: csv_types.ColumnType() for name in names}
  counts = []
  for path in paths:
    header = _header(path)
    if differing := sorted(set(header) ^ set(names)):
      raise DataError(
        f"{path}: column {differing[0]!r} is not in both this file and {paths[0]};"
        " write all files with the same columns"
      )
    rows = 0
    for batch in _strings(path, header, header):
      rows += batch.num_rows
      for name in header:
        types[name].see(batch.column(name))
    counts.append(rows)
  return pa.schema([(name, types[name].kind) for name in names]), counts


def _header(where: str) -> list[str]:
  """The names of the columns."""
  block = text_files.BLOCK
  while True:
    text = QuotedText(where)
    try:
      names = _open(text, block, (), None).schema.names
      break
    except DataError:
      raise
    except READ_ERRORS as error:
      # A header of one line and no end has no rows either.
      if text.size < block or block >= text_files.LONGEST_ROW:
        raise DataError(
          f"{where} has no header, or nothing below it ({reason(error)}); give a file"
          " with a header and rows"
        ) from error
      block *= 8
    finally:
      text.close()
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


def _open(
  text: QuotedText, block: int, names: Sequence[str], invalid: list | None
) -> pcsv.CSVStreamingReader:
  """A reader of these columns, all where there are none, as bytes.

  Rows of another length are put in `invalid`, and are errors; without it they are left
  out.
  """

  def handle(row: pcsv.InvalidRow) -> str:
    if invalid is None:
      return "skip"
    invalid.append(row)
    return "error"

  return pcsv.open_csv(
    pa.PythonFile(text, "r"),
    pcsv.ReadOptions(use_threads=False, block_size=block),
    pcsv.ParseOptions(
      delimiter=separator(text.where),
      newlines_in_values=True,
      ignore_empty_lines=not text.blank_is_row,
      invalid_row_handler=handle,
    ),
    pcsv.ConvertOptions(
      default_column_type=pa.binary(),
      include_columns=list(names),
      null_values=[""],
      strings_can_be_null=True,
    ),
  )


def _strings(
  where: str, header: Sequence[str], names: Sequence[str]
) -> Iterator[pa.RecordBatch]:
  """All rows of these columns, as strings; null where a cell is empty."""
  block, done = text_files.BLOCK, 0
  while True:
    row, invalid = 0, []
    text = QuotedText(where, blank_is_row=len(header) == 1)
    try:
      for batch in _open(text, block, names, invalid):
        known = min(max(done - row, 0), batch.num_rows)
        row += batch.num_rows
        if known < batch.num_rows:
          # Its characters were found to be good before.
          yield batch.slice(known).cast(_all_strings(batch.schema.names))
          done = row
      text.check_end()
      return
    except READ_ERRORS as error:
      if isinstance(error, DataError):
        raise
      if invalid:
        raise _wrong_row(where, header, invalid[0]) from error
      if not any(too_small in str(error) for too_small in _TOO_SMALL):
        raise DataError(
          f"{where}, from row {row} on: cannot be read ({reason(error)}); mend the file"
        ) from error
      if block >= text_files.LONGEST_ROW:
        raise DataError(
          f"{_at(where, header, row)} does not end within {block} bytes; close its"
          " quotes"
        ) from error
      block *= 8
    finally:
      text.close()


def _all_strings(names: Sequence[str]) -> pa.Schema:
  return pa.schema([(name, pa.string()) for name in names])


def _wrong_row(
  where: str, header: Sequence[str], invalid: pcsv.InvalidRow
) -> DataError:
  # Arrow counts the header as the first row.
  return DataError(
    f"{_at(where, header, invalid.number - 2)}: {invalid.actual_columns} cells,"
    f" expected {invalid.expected_columns}: {shorten(invalid.text)}; quote a cell that"
    f" holds a {separator(where)!r}, and write empty cells too"
  )


def _at(where: str, header: Sequence[str], row: int) -> str:
  line = line_of(where, row, blank_is_row=len(header) == 1)
  return f"{where}, row {row} (line {line})"
