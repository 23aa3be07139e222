"""A `Source` whose strings have become values, by the format of each column.

Formats are found from all cells of a column, or given by the `Reading` of a spec, so
that training and prediction read alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from deepsets_jax.data.ingest.files import formats, plain, source
from deepsets_jax.data.ingest.files.detection import Detector
from deepsets_jax.data.ingest.files.formats import Format
from deepsets_jax.data.ingest.files.source import READ_ERRORS, Source
from deepsets_jax.foundation.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class Reading:
  """How the files of a table are read.

  Attributes:
    separator: Character between the cells of a CSV file; None to find it.
    header: Whether a CSV file has a header; None for yes.
    columns: Formats of columns of strings; those of other columns are found.
  """

  separator: str | None = None
  header: bool | None = None
  columns: Mapping[str, Format] = dataclasses.field(default_factory=dict)

  def to_json(self) -> dict[str, Any]:
    """Plain values, as a person edits them."""
    return {**vars(self), "columns": formats.to_json(self.columns)}

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> Reading:
    """The reading that `to_json` wrote, perhaps edited.

    Raises:
      ConfigError: An unknown setting, or a value that is not legal.
    """
    legal = [field.name for field in dataclasses.fields(cls)]
    if not isinstance(value, Mapping) or set(value) - set(legal):
      raise ConfigError(f"reading: {value!r}; expected an object with {legal}")
    columns = formats.from_json(value.get("columns", []))
    return cls(**{**value, "columns": columns})


class Formatted(Source):
  """A source with the strings of some columns as values of other types.

  Attributes:
    formats: Format of every column that has strings in the files.
    ambiguous: Columns of dates in which day or month could come first.
  """

  def __init__(
    self,
    base: Source,
    given: Mapping[str, Format],
    wanted: pa.Schema | None = None,
    *,
    labels: Collection[str] = (),
    dates: str | None = None,
  ):
    """Find the formats that are not given, which takes a pass over the files.

    Args:
      base: The files.
      given: Formats, by column.
      wanted: Types that columns of these names must have; None to find them.
      labels: Columns whose words are kept as they are, in lower case.
      dates: "dmy" or "mdy": order of dates if both are possible.

    Raises:
      DataError: A column cannot be read as the type that is wanted.
    """
    self._base, self.where, self.num_rows = base, base.where, base.num_rows
    self.notes = list(base.notes)
    self.ambiguous: set[str] = set()
    strings = [f.name for f in base.schema if pa.types.is_string(f.type)]
    self.formats = {name: given[name] for name in strings if name in given}
    unknown = [name for name in strings if name not in given]
    if wanted is not None:
      # A column that the model was not trained on is not read.
      for name in unknown:
        kind = wanted.field(name).type if name in wanted.names else pa.string()
        self.formats[name] = formats.of_type(kind) or Format("text")
    elif unknown:
      self._detect(unknown, labels, dates)
    self.schema = pa.schema([self._field(field, wanted) for field in base.schema])

  def at(self, row: int) -> str:
    """Place of a row, for messages."""
    return self._base.at(row)

  def batches(
    self, columns: Sequence[str] | None = None, *, start: int = 0
  ) -> Iterator[pa.RecordBatch]:
    """Read batches as `Source` describes.

    Raises:
      DataError: A cell is not written as its column's format says.
    """
    names = self._select(columns)
    schema = pa.schema([self.schema.field(name) for name in names])
    row = start
    for batch in self._base.batches(names, start=start):
      arrays = [self._convert(batch[name], name, row) for name in names]
      yield source.make_batch(arrays, schema, batch.num_rows)
      row += batch.num_rows

  def _detect(
    self, names: Sequence[str], labels: Collection[str], dates: str | None
  ) -> None:
    """Sets the formats of columns by all of their cells."""
    detectors = {name: Detector(is_label=name.lower() in labels) for name in names}
    for batch in self._base.batches(names):
      for name in names:
        detectors[name].add(batch[name])
    commas = any(detector.has_decimal_comma for detector in detectors.values())
    for name, detector in detectors.items():
      if not detector.rows:
        continue  # A column without a value has the type of nulls.
      form, sentence = detector.found(decimal_comma=commas, dates=dates)
      if detector.is_ambiguous_date and dates is None:
        self.ambiguous.add(name)
      self.formats[name] = form
      if sentence:
        self.notes.append(f"{name}: {sentence}")

  def _field(self, field: pa.Field, wanted: pa.Schema | None) -> pa.Field:
    """The column of this source for one of the files."""
    kind = field.type
    if field.name in self.formats:
      kind = self.formats[field.name].arrow
    elif pa.types.is_string(kind):
      kind = pa.null()
    if wanted is None or field.name not in wanted.names:
      return pa.field(field.name, kind)
    other = plain.plain_type(wanted.field(field.name).type)
    if not plain.converts(kind, other):
      raise DataError(
        f"{self.where}, column {field.name!r}: type {kind}, expected {other}; write the"
        f" column as {other}, or leave it out"
      )
    return pa.field(field.name, other)

  def _convert(self, cells: pa.Array, name: str, row: int) -> pa.Array:
    """The values of cells of a column, of which the first is in row `row`."""
    form, kind = self.formats.get(name), self.schema.field(name).type
    if pa.types.is_null(kind):
      return pa.nulls(len(cells))

    def convert(some: pa.Array) -> pa.Array:
      return plain.as_type(some if form is None else form.convert(some), kind)

    try:
      return convert(cells)
    except READ_ERRORS as error:
      index = source.first_failing(
        len(cells), lambda i, n: convert(plain.sound(cells.slice(i, n)))
      )
      wanted, advice = kind, "fix or empty the cell"
      if form is not None:
        settings = (f"{k} {v!r}" for k, v in form.to_json().items() if k != "type")
        wanted = ", ".join([form.type, *settings])
        advice += (
          ', or read the column as text ("type": "text" in "reading" of the spec)'
        )
      raise DataError(
        f"{self.at(row + index)}, column {name!r}:"
        f" {source.shorten(cells[index].as_py())} cannot be read as {wanted}"
        f" ({source.reason(error)}); {advice}"
      ) from error
