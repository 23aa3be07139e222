"""A `Source` whose strings have become values, by the format of each column.

Formats are found from all cells of a column, or given by the `Reading` of a spec, so
that training and prediction read alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.data.ingest.files import formats, source
from deepsets_jax.data.ingest.files.checks import sound
from deepsets_jax.data.ingest.files.detection import Detector
from deepsets_jax.data.ingest.files.formats import Format
from deepsets_jax.data.ingest.files.plain import converts, plain_type
from deepsets_jax.data.ingest.files.source import (
  READ_ERRORS,
  Source,
  first_failing,
  reason,
  shorten,
)
from deepsets_jax.foundation.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class Reading:
  """How the files of a table are read.

  Attributes:
    separator: Between the cells of a CSV file; None to find it.
    header: Whether a CSV file has a header; None for yes.
    columns: Formats of columns of strings; those of others are found.
  """

  separator: str | None = None
  header: bool | None = None
  columns: Mapping[str, Format] = dataclasses.field(default_factory=dict)

  def to_json(self) -> dict[str, Any]:
    """Plain values, as a person edits them."""
    columns = formats.to_json(self.columns)
    return {"separator": self.separator, "header": self.header, "columns": columns}

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> Reading:
    """The reading that `to_json` gave, perhaps edited.

    Raises:
      ConfigError: An unknown setting, or a value that is not legal.
    """
    legal = [field.name for field in dataclasses.fields(cls)]
    if not isinstance(value, Mapping) or set(value) - set(legal):
      raise ConfigError(f"reading: {value!r}; expected an object with {legal}")
    columns = formats.from_json(value.get("columns", []))
    return cls(**{**value, "columns": columns})


class Formatted:
  """A source with the strings of some columns as values of other types.

  Attributes:
    formats: Format of every column that is one of strings in the files.
    told: What a person should know of how a column is read, by its name.
    ambiguous: Columns of dates that could be day or month first.
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
    """Finds the formats that are not given, which takes a pass over the files.

    Args:
      base: The files.
      given: Formats, by column.
      wanted: Types that columns of these names shall have; None for those found.
      labels: Columns whose words are kept as they are, in small letters.
      dates: "dmy" or "mdy": order of dates where both are possible.

    Raises:
      DataError: A column cannot be read as the type that is wanted.
    """
    self.where, self.num_rows = base.where, base.num_rows
    self._base = base
    self.told: dict[str, str] = {}
    self.ambiguous: set[str] = set()
    strings = [f.name for f in base.schema if pa.types.is_string(f.type)]
    self.formats = {name: given[name] for name in strings if name in given}
    unknown = [name for name in strings if name not in given]
    if wanted is not None:
      # A column of a file that was not trained on is not read.
      for name in unknown:
        kind = wanted.field(name).type if name in wanted.names else pa.string()
        self.formats[name] = formats.of_type(kind) or Format("text")
    elif unknown:
      self._detect(unknown, labels, dates)
    self.schema = pa.schema([self._field(field, wanted) for field in base.schema])

  @property
  def notes(self) -> Sequence[str]:
    """Sentences about the files and about how their columns are read."""
    told = [f"{name}: {sentence}" for name, sentence in self.told.items()]
    return [*self._base.notes, *told]

  def at(self, row: int) -> str:
    """Where a row is, for messages."""
    return self._base.at(row)

  def batches(
    self, columns: Sequence[str] | None = None, *, start: int = 0
  ) -> Iterator[pa.RecordBatch]:
    """Batches as `Source` describes.

    Raises:
      DataError: A cell is not written as its column's format says.
    """
    names = source.select(self.where, self.schema, columns)
    schema = pa.schema([self.schema.field(name) for name in names])
    row = start
    for batch in self._base.batches(names, start=start):
      if names:
        arrays = [self._column(batch[name], name, row) for name in names]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
      else:
        yield batch
      row += batch.num_rows

  def _detect(
    self, names: Sequence[str], labels: Collection[str], dates: str | None
  ) -> None:
    detectors = {name: Detector(is_label=name.lower() in labels) for name in names}
    for batch in self._base.batches(names):
      for name in names:
        detectors[name].add(batch[name])
    commas = any(detector.has_decimal_comma for detector in detectors.values())
    for name, detector in detectors.items():
      if not detector.rows:
        continue  # Without a value it has the type of nulls.
      form, sentence = detector.found(decimal_comma=commas, dates=dates)
      if detector.is_ambiguous_date and dates is None:
        self.ambiguous.add(name)
      self.formats[name] = form
      if sentence:
        self.told[name] = sentence

  def _field(self, field: pa.Field, wanted: pa.Schema | None) -> pa.Field:
    form = self.formats.get(field.name)
    kind = field.type if form is None else form.arrow
    if form is None and pa.types.is_string(field.type):
      kind = pa.null()
    if wanted is None or field.name not in wanted.names:
      return pa.field(field.name, kind)
    other = plain_type(wanted.field(field.name).type)
    if not converts(kind, other):
      raise DataError(
        f"{self.where}, column {field.name!r}: type {kind}, expected {other}; write the"
        f" column as {other}, or leave it out"
      )
    return pa.field(field.name, other)

  def _column(self, cells: pa.Array, name: str, row: int) -> pa.Array:
    form, kind = self.formats.get(name), self.schema.field(name).type
    if form is None and cells.type == kind:
      return cells
    if pa.types.is_null(kind):
      return pa.nulls(len(cells))

    def convert(some: pa.Array) -> pa.Array:
      return as_type(some if form is None else form.convert(some), kind)

    try:
      return convert(cells)
    except READ_ERRORS as error:

      def fails(begin: int, count: int) -> bool:
        try:
          convert(sound(cells.slice(begin, count)))
        except READ_ERRORS:
          return True
        return False

      index = first_failing(len(cells), fails)
      wanted = kind if form is None else f"{form.type}{_shown(form)}"
      raise DataError(
        f"{self._base.at(row + index)}, column {name!r}:"
        f" {shorten(cells[index].as_py())} cannot be read as {wanted}"
        f" ({reason(error)});"
        ' fix the value, leave it out, or set how the column is read ("reading" of the'
        " spec)"
      ) from error


def _shown(form: Format) -> str:
  settings = {k: v for k, v in form.to_json().items() if k != "type"}
  return "".join(f", {k} {v!r}" for k, v in settings.items())


def as_type(cells: pa.Array, kind: pa.DataType) -> pa.Array:
  """The cells as values of a type that they convert to without a loss.

  A time becomes its date, 0 and 1 booleans, and 3.0 an integer.

  Raises:
    pa.ArrowInvalid: A value does not fit.
  """
  if cells.type == kind and str(cells.type) == str(kind):
    return cells
  is_a = pa.types
  if is_a.is_timestamp(cells.type) and is_a.is_date(kind):
    return pc.floor_temporal(cells, unit="day").cast(kind)
  if is_a.is_boolean(kind) and not is_a.is_null(cells.type):
    whole = cells.cast(pa.int64())
    if not pc.all(pc.is_in(whole, pa.array([0, 1, None])), min_count=0).as_py():
      raise pa.ArrowInvalid("a value is neither 0 nor 1")
    return whole.cast(kind)
  if is_a.is_boolean(cells.type) and not is_a.is_boolean(kind):
    cells = cells.cast(pa.int8())
  return cells.cast(kind)
