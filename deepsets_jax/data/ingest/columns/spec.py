"""The spec of a table: its modalities, label and split, as JSON that users edit.

`experiments.describe` proposes a spec. Columns that it does not name are not read.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from deepsets_jax.data.ingest.columns import cells, settings
from deepsets_jax.data.ingest.columns.fields import Fields
from deepsets_jax.data.ingest.columns.images import ImageColumn
from deepsets_jax.data.ingest.columns.labels import Label
from deepsets_jax.data.ingest.columns.numeric import (
  Scalar,
  ScalarList,
  Vector,
  VectorList,
)
from deepsets_jax.data.ingest.columns.tokens import Category, Text, Tokens
from deepsets_jax.data.ingest.files import paths
from deepsets_jax.data.ingest.files.formats import Format
from deepsets_jax.data.ingest.files.joins import Many
from deepsets_jax.data.ingest.files.opening import open_source
from deepsets_jax.data.ingest.files.paths import SQL, TFDS
from deepsets_jax.data.ingest.files.reading import Reading
from deepsets_jax.data.ingest.files.source import Source, shorten_names
from deepsets_jax.foundation.errors import ConfigError, DataError

ColumnType = (
  Scalar
  | ScalarList
  | Vector
  | VectorList
  | Category
  | Tokens
  | Text
  | ImageColumn
  | Fields
)
# Column types by their "kind" in JSON.
KINDS: Mapping[str, type[ColumnType]] = {
  kind.kind: kind for kind in typing.get_args(ColumnType)
}
# Kinds whose elements are scaled numbers.
NUMERIC = ("number", "numbers", "vector", "vectors")
PARTS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Spec:
  """The roles of the columns of a table.

  Attributes:
    modalities: Column types by name of the modality. One column can be read by several
      modalities.
    label: The label.
    id: Column with a unique name of each example; None takes row numbers.
    split: Column with the part of each row, "train", "validation" or "test"; None for a
      random split.
    group: Column whose rows of one value stay in one part of a random split.
    parts: Values of the split column per part, if they are not the words "train",
      "validation" and "test".
    shares: Shares of rows (or groups) of train, validation and test in a random split.
      If the split column has no row of a part, that part gets its share of the training
      rows.
    reading: How files are read: separators, and formats of columns of strings. None
      keeps texts and categories as they are written, and detects all other formats.
    many: Tables with any number of rows per row of this table, by name. Their columns
      become columns of lists, called `name.column`.
  """

  modalities: Mapping[str, ColumnType]
  label: Label
  id: str | None = None
  split: str | None = None
  group: str | None = None
  parts: Mapping[str, Sequence[str]] | None = None
  shares: Sequence[float] = (0.8, 0.1, 0.1)
  reading: Reading | None = None
  many: Mapping[str, Many] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if not self.modalities:
      raise ConfigError("modalities: there are none; name at least one column")
    for name in self.modalities:
      if re.sub(r"\W", "_", name) != name:
        raise ConfigError(
          f"modalities: {name!r} is not a legal name; use letters, digits and _, and"
          ' give the name of the column as "column"'
        )
    shares = tuple(self.shares)
    object.__setattr__(self, "shares", shares)  # JSON has lists.
    if len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
      raise ConfigError(
        f"shares: {list(shares)}; expected three positive numbers for train, validation"
        " and test with sum 1"
      )
    if unknown := sorted(set(self.parts or {}) - set(PARTS)):
      raise ConfigError(f"parts: unknown {unknown[0]!r}; expected {list(PARTS)}")
    leak = [n for n, k in self.modalities.items() if self.label.column in k.by_column]
    if leak:
      raise ConfigError(
        f"modalities.{leak[0]}: its column {self.label.column!r} is also the label,"
        " which the input must not contain; leave it out"
      )

  @property
  def columns(self) -> list[str]:
    """All columns that are read, without repetition."""
    marks = [self.label.column, self.id, self.split, self.group]
    named = [c for kind in self.modalities.values() for c in kind.by_column]
    return list(dict.fromkeys(c for c in (*named, *marks) if c is not None))

  def open(self, path: str, schema: pa.Schema | None = None) -> Source:
    """Open the table at a path.

    Args:
      path: See `opening.open_source`.
      schema: Types of the columns; None detects them.
    """
    labels, reading = [self.label.column], self.reading or Reading()
    if self.reading is None:
      kinds = self.modalities.values()
      labels += [kind.column for kind in kinds if kind.kind == "category"]
      if schema is None:
        texts = [kind.column for kind in kinds if kind.kind in ("text", "image")]
        reading = Reading(columns=dict.fromkeys(texts, Format("text")))
    labels = [name.lower() for name in labels]
    return open_source(path, reading, schema, many=self.many, labels=labels)

  def with_many(self, files: Mapping[str, str]) -> Spec:
    """Return the spec with other files of the joined tables, by table name.

    Raises:
      ConfigError: The spec has no such table.
    """
    if unknown := sorted(set(files) - set(self.many)):
      raise ConfigError(
        f"no joined table {unknown[0]!r}; expected one of {list(self.many)}"
      )
    many = {
      name: dataclasses.replace(one, path=files.get(name, one.path))
      for name, one in self.many.items()
    }
    return dataclasses.replace(self, many=many)

  def files(self, path: str) -> list[pathlib.Path]:
    """Return the files of the joined tables of the table at a path."""
    names = [paths.beside(one.path, path) for one in self.many.values()]
    return [file for name in names for file in paths.files(name)]

  def to_json(self) -> dict[str, Any]:
    """Return the spec as values of JSON."""
    modalities = {
      name: {"kind": kind.kind, **dataclasses.asdict(kind)}
      for name, kind in self.modalities.items()
    }
    return {
      "modalities": modalities,
      "label": dataclasses.asdict(self.label),
      "id": self.id,
      "split": self.split,
      "group": self.group,
      "parts": self.parts and {part: list(self.parts[part]) for part in self.parts},
      "shares": list(self.shares),
      "reading": self.reading and self.reading.to_json(),
      "many": {name: one.to_json() for name, one in self.many.items()},
    }

  def check(self, schema: pa.Schema, where: str) -> None:
    """Check that a file has all columns, with types that fit.

    Args:
      schema: Types of the columns of the file.
      where: Name of the file in messages.

    Raises:
      DataError: A column is missing or has the wrong type.
    """
    for column in self.columns:
      if column not in schema.names:
        raise DataError(
          f"{where}: the spec names column {column!r}, but the columns are"
          f" {shorten_names(schema.names)}"
        )
    for name, kind in self.modalities.items():
      for column, one in kind.by_column.items():
        check_type(name, one, schema.field(column).type, where)
    for mark in ("id", "split", "group"):
      column = getattr(self, mark)
      found = None if column is None else schema.field(column).type
      if found is not None and not cells.is_token(found):
        raise DataError(
          f"{where}: column {column!r} is {found}, but the {mark} must be a string or a"
          f" whole number; change {mark!r} in the spec, or set it to null"
        )
    label = self.label
    if not label.accepts(schema.field(label.column).type):
      raise DataError(
        f"{where}: column {label.column!r} is {schema.field(label.column).type}, but a"
        f" {label.kind} label is {label.takes}"
      )


def with_reading(proposed: Spec, source: Source, given: Reading) -> Spec:
  """Return the spec with the formats of the columns that it reads.

  Args:
    proposed: The spec so far.
    source: The open table.
    given: Settings of the command line on how files are read.
  """
  known = getattr(source, "formats", {})
  used = {name: known[name] for name in proposed.columns if name in known}
  many = {}
  for name, one in proposed.many.items():
    table = source.tables[name]
    columns = {
      column: form
      for column, form in table.formats.items()
      if f"{name}.{column}" in proposed.columns or column in (one.key, one.order)
    }
    many[name] = dataclasses.replace(one, columns=columns)
  reading = dataclasses.replace(given, columns=used)
  return dataclasses.replace(proposed, reading=reading, many=many)


def check_type(name: str, kind: ColumnType, found: pa.DataType, where: str) -> None:
  """Raise a `DataError` for a column whose type does not fit its kind."""
  if not kind.accepts(found):
    able = [
      k for k, other in KINDS.items() if other is not Fields and other.accepts(found)
    ]
    raise DataError(
      f"{where}: column {kind.column!r} is {found}, but modality {name!r} of kind"
      f" {kind.kind!r} needs {kind.takes};"
      + (f" possible kinds: {able}" if able else " no kind fits, so leave it out")
    )


def from_json(value: Mapping[str, Any], where: str) -> Spec:
  """Restore a spec from the value of `to_json`, perhaps edited.

  Args:
    value: Values of JSON.
    where: Name of the spec in messages.

  Raises:
    DataError: A kind or setting is unknown, missing, or has a wrong type or value; the
      message has its place and legal values.
  """
  try:
    return _spec(value)
  except (ValueError, TypeError) as error:
    raise DataError(
      f"{where}: {error}; fix it, or write it again with python -m experiments.describe"
    ) from error


def read_spec(path: str | pathlib.Path) -> Spec:
  """Read a spec from a JSON file.

  Raises:
    DataError: The file is missing, or is not a spec in JSON.
  """
  try:
    value = json.loads(pathlib.Path(path).read_text("utf-8"))
  except (OSError, ValueError) as error:
    raise DataError(
      f"{path} is not a spec of columns ({error}); write it with python -m"
      " experiments.describe FILE"
    ) from error
  return from_json(value, str(path))


def path_beside(path: str) -> pathlib.Path:
  """Return the default path of the spec: `films.spec.json` for `films.parquet`.

  For a name such as `tfds:mnist` it is in the current folder.
  """
  if path.startswith(TFDS):
    name = re.sub(r"\W", "_", path.removeprefix(TFDS))
    return pathlib.Path(f"{name}.spec.json")
  if path.startswith(SQL):
    return pathlib.Path("query.spec.json")
  file = pathlib.Path(path.rstrip("/*"))
  return file.with_name(f"{file.name.split('.')[0]}.spec.json")


def _spec(value: Any) -> Spec:
  given = settings.check_mapping(value, "the spec")
  settings.check_names("the spec", given, Spec)
  modalities = {}
  named = settings.check_mapping(given.get("modalities", {}), "modalities")
  for name, value in named.items():
    own = dict(settings.check_mapping(value, f"modalities.{name}"))
    kind = own.pop("kind", None)
    if kind not in KINDS:
      raise ConfigError(
        f"modalities.{name}: kind {kind!r}; expected one of {list(KINDS)}"
      )
    modalities[name] = settings.build_dataclass(f"modalities.{name}", own, KINDS[kind])
  if given.get("label") is None:
    raise ConfigError("label: it is missing; name the column to predict")
  label = settings.build_dataclass(
    "label", settings.check_mapping(given["label"], "label"), Label
  )
  rest = {k: v for k, v in given.items() if k not in ("modalities", "label")}
  if rest.get("reading") is not None:
    rest["reading"] = Reading.from_json(rest["reading"])
  if "many" in rest:
    many = settings.check_mapping(rest["many"], "many")
    rest["many"] = {name: Many.from_json(one) for name, one in many.items()}
  return settings.build_dataclass(
    "the spec", rest | {"modalities": modalities, "label": label}, Spec
  )
