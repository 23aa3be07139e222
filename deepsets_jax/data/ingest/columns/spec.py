"""What the columns of a table are: modalities, label, split; as JSON to read and edit.

`experiments.describe` proposes one. Of the columns that it does not name nothing is
read.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
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
KINDS: Mapping[str, type[ColumnType]] = {
  kind.kind: kind
  for kind in (
    Scalar,
    ScalarList,
    Vector,
    VectorList,
    Category,
    Tokens,
    Text,
    ImageColumn,
    Fields,
  )
}
# Kinds whose elements are numbers, scaled.
NUMERIC = ("number", "numbers", "vector", "vectors")
PARTS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Spec:
  """What the columns of a table are.

  Attributes:
    modalities: By name, which need not be that of the column: one column can be
      several modalities.
    label: What is predicted.
    id: Column of the examples' names, each of one row only; None for the rows' numbers.
    split: Column that says "train", "validation" or "test"; None for a random split.
    group: Column whose rows of one value stay in one part of a random split.
    parts: Values of the split column by the part they stand for, where they are not the
      words "train", "validation" and "test".
    shares: Of the rows (or groups), by part of a random split. With a split column that
      knows no validation, the share of the training part that is taken for it.
    reading: How the files are read: separators, and formats of columns of strings. None
      for texts as they are written, words of categories kept, and the rest found.
    many: Tables of which many rows belong to one row of this one, by name. Their
      columns are columns of lists here, `name.column`.
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
      raise ConfigError("modalities: there is none; name at least one column")
    for name in self.modalities:
      if re.sub(r"\W", "_", name) != name:
        raise ConfigError(
          f"modalities: {name!r} is no name: letters, digits and _ make one; the"
          ' column\'s own name stands under "column"'
        )
    shares = tuple(self.shares)
    object.__setattr__(self, "shares", shares)  # JSON has lists.
    if len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
      raise ConfigError(
        f"shares: {list(shares)}; expected three numbers above 0, of train, validation"
        " and test, that add up to 1"
      )
    if unknown := sorted(set(self.parts or {}) - set(PARTS)):
      raise ConfigError(f"parts: unknown {unknown[0]!r}; there are {list(PARTS)}")
    leak = [n for n, k in self.modalities.items() if self.label.column in k.by_column]
    if leak:
      raise ConfigError(
        f"modalities.{leak[0]}: its column {self.label.column!r} is the label, too: the"
        " answer would be in the question; leave it out"
      )

  @property
  def columns(self) -> list[str]:
    """All columns that are read, each once."""
    marks = [self.label.column, self.id, self.split, self.group]
    named = [c for kind in self.modalities.values() for c in kind.by_column]
    return list(dict.fromkeys(c for c in (*named, *marks) if c is not None))

  def open(self, path: str, schema: pa.Schema | None = None) -> Source:
    """The table at a path, read as the spec says.

    Args:
      path: See `opening.open_source`.
      schema: Types that columns of these names shall have; None for those found.
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
    """The same with other files of the tables that belong to this one, by name.

    Raises:
      ConfigError: There is no such table.
    """
    if unknown := sorted(set(files) - set(self.many)):
      raise ConfigError(
        f"no table {unknown[0]!r} belongs to this one: {list(self.many)}"
      )
    many = {
      name: dataclasses.replace(one, path=files.get(name, one.path))
      for name, one in self.many.items()
    }
    return dataclasses.replace(self, many=many)

  def files(self, path: str) -> list[pathlib.Path]:
    """The files of the tables that belong to the one at a path."""
    names = [paths.beside(one.path, path) for one in self.many.values()]
    return [file for name in names for file in paths.files(name)]

  def to_json(self) -> dict[str, Any]:
    """Of plain values, as a person edits them."""
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
    """Raises for a column that is not in a file, or of a type that does not fit.

    Raises:
      DataError: It names the file, the column and what there is.
    """
    for column in self.columns:
      if column not in schema.names:
        raise DataError(
          f"{where}: no column {column!r}, which the spec names; there are"
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
          f"{where}: column {column!r} is {found}, and the {mark} is a string or whole"
          f" number; name another column as {mark!r} in the spec, or set it to null"
        )
    label = self.label
    if not label.accepts(schema.field(label.column).type):
      raise DataError(
        f"{where}: column {label.column!r} is {schema.field(label.column).type}; a"
        f" {label.kind} label is {label.takes}"
      )


def with_reading(proposed: Spec, source: Source, given: Reading) -> Spec:
  """The spec with the formats of the columns that it reads.

  Args:
    proposed: The spec so far.
    source: The table, opened.
    given: What the command line says of how the files are read.
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
  """Raises for a column whose type is not of its kind."""
  if not kind.accepts(found):
    able = [
      k for k, other in KINDS.items() if other is not Fields and other.accepts(found)
    ]
    raise DataError(
      f"{where}: column {kind.column!r} is {found}, and modality {name!r} of kind"
      f" {kind.kind!r} is {kind.takes};"
      + (f" possible here: {able}" if able else " no kind takes it: leave it out")
    )


def from_json(value: Mapping[str, Any], where: str) -> Spec:
  """The spec that `to_json` gave, perhaps edited.

  Args:
    value: Of plain values.
    where: What to call it in a message.

  Raises:
    DataError: An unknown kind or setting, a wrong type or value, or one that is
      missing; it names the place and what is legal.
  """
  try:
    return _spec(value)
  except (ValueError, TypeError) as error:
    raise DataError(
      f"{where}: {error}; mend it, or write it anew with python -m experiments.describe"
    ) from error


def read(path: str | pathlib.Path) -> Spec:
  """The spec in a JSON file.

  Raises:
    DataError: No such file, no JSON, or no spec.
  """
  try:
    value = json.loads(pathlib.Path(path).read_text("utf-8"))
  except (OSError, ValueError) as error:
    raise DataError(
      f"{path} is no spec of columns ({error}); write it with python -m"
      " experiments.describe FILE"
    ) from error
  return from_json(value, str(path))


def beside(path: str) -> pathlib.Path:
  """Where the spec of a file is looked for: `films.spec.json` for `films.parquet`.

  Of a name like `tfds:mnist` it is in the folder at hand.
  """
  if path.startswith(TFDS):
    name = re.sub(r"\W", "_", path.removeprefix(TFDS))
    return pathlib.Path(f"{name}.spec.json")
  if path.startswith(SQL):
    return pathlib.Path("query.spec.json")
  file = pathlib.Path(path.rstrip("/*"))
  return file.with_name(f"{file.name.split('.')[0]}.spec.json")


def _spec(value: Any) -> Spec:
  given = settings.mapping(value, "the spec")
  settings.known("the spec", given, Spec)
  modalities = {}
  named = settings.mapping(given.get("modalities", {}), "modalities")
  for name, value in named.items():
    own = dict(settings.mapping(value, f"modalities.{name}"))
    kind = own.pop("kind", None)
    if kind not in KINDS:
      raise ConfigError(f"modalities.{name}: kind {kind!r}; one of {list(KINDS)}")
    modalities[name] = settings.made(f"modalities.{name}", own, KINDS[kind])
  if given.get("label") is None:
    raise ConfigError("label: there is none; name the column to predict")
  label = settings.made("label", settings.mapping(given["label"], "label"), Label)
  rest = {k: v for k, v in given.items() if k not in ("modalities", "label")}
  if rest.get("reading") is not None:
    rest["reading"] = Reading.from_json(rest["reading"])
  if "many" in rest:
    many = settings.mapping(rest["many"], "many")
    rest["many"] = {name: Many.from_json(one) for name, one in many.items()}
  return settings.made(
    "the spec", rest | {"modalities": modalities, "label": label}, Spec
  )
