"""Plain Arrow types: the ones that the columns of a `Source` have.

Dictionary- and run-end-encoded columns become what they encode, large and view variants
the ordinary type, an extension type its storage; a struct at the top becomes a column
`outer.inner` for each of its fields. Maps, unions and structs within lists stay.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.data.ingest.files import source
from deepsets_jax.data.ingest.files.checks import sound
from deepsets_jax.data.ingest.files.source import (
  READ_ERRORS,
  first_failing,
  reason,
  shorten,
)
from deepsets_jax.foundation.errors import DataError

_DAMAGED = "the file is damaged, write it again"


def plain_type(kind: pa.DataType) -> pa.DataType:
  """What cells of this type become; a type that is plain stays as it is."""
  is_a = pa.types
  if isinstance(kind, pa.BaseExtensionType):
    return plain_type(kind.storage_type)
  if is_a.is_dictionary(kind) or is_a.is_run_end_encoded(kind):
    return plain_type(kind.value_type)
  if is_a.is_large_string(kind) or is_a.is_string_view(kind):
    return pa.string()
  if is_a.is_large_binary(kind) or is_a.is_binary_view(kind):
    return pa.binary()
  if is_a.is_fixed_size_list(kind):
    return pa.list_(plain_type(kind.value_type), kind.list_size)
  if is_list(kind):
    return pa.list_(plain_type(kind.value_type))
  if is_a.is_struct(kind):
    return pa.struct([(field.name, plain_type(field.type)) for field in kind])
  return kind


def is_list(kind: pa.DataType) -> bool:
  """Whether cells are lists, of a fixed size or not, in any of the layouts."""
  is_a = pa.types
  return (
    is_a.is_list(kind)
    or is_a.is_fixed_size_list(kind)
    or is_a.is_large_list(kind)
    or is_a.is_list_view(kind)
    or is_a.is_large_list_view(kind)
  )


def converts(found: pa.DataType, wanted: pa.DataType) -> bool:
  """Whether cells of one plain type may be taken for another without a loss.

  Whether each value fits is known when it is read: 3.0 is an integer, 3.5 is not, and 0
  and 1 are booleans. A string is never taken for a number, nor a number for a string.
  """
  if found == wanted or pa.types.is_null(found):
    return True
  if pa.types.is_boolean(found) or pa.types.is_boolean(wanted):
    return _is_number(found) or _is_number(wanted)
  if is_list(found) and is_list(wanted):
    return converts(found.value_type, wanted.value_type)
  return any(family(found) and family(wanted) for family in (_is_number, _is_moment))


def _is_number(kind: pa.DataType) -> bool:
  is_a = pa.types
  return is_a.is_integer(kind) or is_a.is_floating(kind) or is_a.is_decimal(kind)


def _is_moment(kind: pa.DataType) -> bool:
  return pa.types.is_date(kind) or pa.types.is_timestamp(kind)


@dataclasses.dataclass(frozen=True)
class Layout:
  """How the columns of a file become plain ones.

  Attributes:
    where: The file.
    schema: Of the plain columns.
    paths: Of each plain column: names, down the structs of the file.
  """

  where: str
  schema: pa.Schema
  paths: Mapping[str, tuple[str, ...]]

  @classmethod
  def of(
    cls,
    where: str,
    found: pa.Schema,
  ) -> Layout:
    """The layout of a file with the types `found`.

    Args:
      where: The file.
      found: Its own types.

    Raises:
      DataError: Two columns of one name, one without a name, or one whose type cannot
        be read.
    """
    try:
      check_names(where, found.names)
      leaves = list(_leaves((), found))
    except UnicodeDecodeError as error:
      raise DataError(
        f"{where}: a column's name is no UTF-8 ({shorten(error.object)}); {_DAMAGED}"
      ) from error
    paths, fields = {}, []
    for path, kind in leaves:
      name = ".".join(path)
      if name in paths:
        raise DataError(
          f"{where}: two columns are {name!r}, one of them within a struct; rename one"
        )
      paths[name] = path
      fields.append(pa.field(name, _readable(where, name, kind)))
    return cls(where, pa.schema(fields), paths)

  def roots(self, names: Sequence[str]) -> list[str]:
    """The columns of the file that hold these plain columns."""
    return list(dict.fromkeys(self.paths[name][0] for name in names))

  def read(
    self, batch: pa.RecordBatch, names: Sequence[str], row: int
  ) -> pa.RecordBatch:
    """The plain columns of these names in a batch of the file's columns.

    Args:
      batch: As the file has it.
      names: Of plain columns.
      row: Of the batch's first row in the file, for messages.

    Raises:
      DataError: A value is damaged, or not of the type that is wanted.
    """
    arrays = [self._column(batch, name, row) for name in names]
    schema = pa.schema([self.schema.field(name) for name in names])
    if not names:
      return source.rows_only(batch.num_rows)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)

  def _column(self, batch: pa.RecordBatch, name: str, row: int) -> pa.Array:
    path = self.paths[name]
    array = batch.column(path[0])
    try:
      array = sound(array)
    except READ_ERRORS as error:
      raise self._damaged(array, name, row, error) from error
    for part in path[1:]:
      array = pc.struct_field(_stored(array), array.type.get_field_index(part))
    return _stored(array).cast(self.schema.field(name).type)

  def _damaged(
    self, array: pa.Array, name: str, row: int, error: Exception
  ) -> DataError:
    def fails(begin: int, count: int) -> bool:
      try:
        sound(array.slice(begin, count))
      except READ_ERRORS:
        return True
      return False

    index = first_failing(len(array), fails)
    value, advice = "", _DAMAGED
    if "UTF8" in str(error):
      # Its offsets were found to be good first.
      value = _raw(array.slice(index, 1))
      advice = "a string must be UTF-8: write such bytes as binary, or decode them"
    return DataError(
      f"{self.where}, row {row + index}, column {name!r}: {value}{reason(error)};"
      f" {advice}"
    )


def check_names(where: str, names: Sequence[str]) -> None:
  """Raises `DataError` for a name that is empty, or there twice."""
  for place, name in enumerate(names):
    if not name.strip():
      raise DataError(
        f"{where}: column {place} has no name; give it one, or leave it out (pandas"
        " writes its index so: to_csv(index=False))"
      )
    if name in names[:place]:
      raise DataError(
        f"{where}: columns {names.index(name)} and {place} are both {name!r}; rename"
        " one"
      )


def check_same_names(
  where: str, names: Sequence[str], other: str, others: Sequence[str]
) -> None:
  """Raises `DataError` where two files do not have the same columns."""
  if differing := sorted(set(names) ^ set(others)):
    raise DataError(
      f"{where}: column {differing[0]!r} is not in both this file and {other}; write"
      " all files with the same columns, or read one of them alone"
    )


def _stored(array: pa.Array) -> pa.Array:
  """The array without an extension type or run-end encoding around it."""
  if isinstance(array.type, pa.BaseExtensionType):
    return _stored(array.storage)
  if pa.types.is_run_end_encoded(array.type):
    return _stored(pc.run_end_decode(array))
  return array


def _leaves(
  path: tuple[str, ...], fields: pa.Schema | pa.StructType
) -> Iterator[tuple[tuple[str, ...], pa.DataType]]:
  """The columns with the types they have, structs opened; an empty one stays."""
  for field in fields:
    below = field.type
    while isinstance(below, pa.BaseExtensionType):
      below = below.storage_type
    if pa.types.is_struct(below) and below.num_fields:
      yield from _leaves((*path, field.name), below)
    else:
      yield (*path, field.name), field.type


def _readable(where: str, name: str, kind: pa.DataType) -> pa.DataType:
  """The plain type of a column.

  Raises:
    DataError: Arrow cannot convert it.
  """
  plain = plain_type(kind)
  try:
    _stored(pa.array([], kind)).cast(plain)
  except (pa.ArrowException, TypeError, ValueError) as error:
    raise DataError(
      f"{where}, column {name!r}: type {kind} cannot be read; write it as {plain}"
    ) from error
  return plain


def _raw(cell: pa.Array) -> str:
  """The bytes of a string that is not UTF-8, or nothing."""
  try:
    return f"{shorten(cell.cast(pa.binary())[0].as_py())} is damaged: "
  except (*READ_ERRORS, IndexError):
    return ""
