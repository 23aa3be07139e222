"""Plain Arrow types: the types that the columns of a `Source` have.

Dictionary- and run-end-encoded columns become what they encode, large and view variants
the ordinary type, an extension type its storage; a struct at the top becomes a column
`outer.inner` for each of its fields. Maps, unions and structs within lists stay.

Values are checked in full before they are used: Arrow trusts the offsets in a file, and
trusts that its strings are UTF-8. With damaged ones it would read beyond an array.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.data.ingest.files import source
from deepsets_jax.data.ingest.files.source import READ_ERRORS
from deepsets_jax.foundation.errors import DataError

_DAMAGED = "the file is damaged, write it again"


def plain_type(kind: pa.DataType) -> pa.DataType:
  """The plain type that cells of a type become; a plain type stays as it is."""
  is_a = pa.types
  if isinstance(kind, pa.BaseExtensionType):
    return plain_type(kind.storage_type)
  if is_a.is_dictionary(kind) or is_a.is_run_end_encoded(kind):
    return plain_type(kind.value_type)
  if is_a.is_large_string(kind) or is_a.is_string_view(kind):
    return pa.string()
  if is_a.is_large_binary(kind) or is_a.is_binary_view(kind):
    return pa.binary()
  if is_list(kind):
    return pa.list_(plain_type(kind.value_type), getattr(kind, "list_size", -1))
  if is_a.is_struct(kind):
    return pa.struct([(field.name, plain_type(field.type)) for field in kind])
  return kind


def is_list(kind: pa.DataType) -> bool:
  """Whether cells are lists, of a fixed size or not, in any of the layouts."""
  views = pa.ListViewType | pa.LargeListViewType
  return isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType | views)


def is_number(kind: pa.DataType) -> bool:
  """Whether cells are integers, floats or decimals."""
  is_a = pa.types
  return is_a.is_integer(kind) or is_a.is_floating(kind) or is_a.is_decimal(kind)


def _is_moment(kind: pa.DataType) -> bool:
  return pa.types.is_date(kind) or pa.types.is_timestamp(kind)


def converts(found: pa.DataType, wanted: pa.DataType) -> bool:
  """Whether cells of one plain type can be read as another without a loss.

  Whether each value fits is known only when it is read: 3.0 is an integer, 3.5 is not,
  and 0 and 1 are booleans. Strings never become numbers here, nor numbers strings.
  """
  if found == wanted or pa.types.is_null(found):
    return True
  if pa.types.is_boolean(found) or pa.types.is_boolean(wanted):
    return is_number(found) or is_number(wanted)
  if is_list(found) and is_list(wanted):
    return converts(found.value_type, wanted.value_type)
  return any(family(found) and family(wanted) for family in (is_number, _is_moment))


def as_type(cells: pa.Array, kind: pa.DataType) -> pa.Array:
  """Convert cells to a type, without a loss.

  A time becomes its date, 0 and 1 booleans, and 3.0 an integer.

  Raises:
    pa.ArrowInvalid: A value does not fit.
  """
  is_a = pa.types
  if cells.type == kind and str(cells.type) == str(kind):
    return cells
  if is_a.is_timestamp(cells.type) and is_a.is_date(kind):
    return pc.floor_temporal(cells, unit="day").cast(kind)
  if is_a.is_boolean(kind) and not is_a.is_null(cells.type):
    whole = cells.cast(pa.int64())
    if not pc.all(pc.is_in(whole, pa.array([0, 1, None])), min_count=0).as_py():
      raise pa.ArrowInvalid("it is neither 0 nor 1")
    return whole.cast(kind)
  if is_a.is_boolean(cells.type) and not is_a.is_boolean(kind):
    cells = cells.cast(pa.int8())
  return cells.cast(kind)


@dataclasses.dataclass(frozen=True)
class Layout:
  """How the columns of a file become plain ones.

  Attributes:
    where: The file.
    schema: Names and types of the plain columns.
    paths: For each plain column, the names that lead to it through the structs.
  """

  where: str
  schema: pa.Schema
  paths: Mapping[str, tuple[str, ...]]

  @classmethod
  def of(cls, where: str, found: pa.Schema) -> Layout:
    """The layout of a file.

    Args:
      where: The file.
      found: The schema in the file.

    Raises:
      DataError: Two columns of one name, one without a name, or one whose type cannot
        be read.
    """
    try:
      check_names(where, found.names)
      leaves = list(_leaves((), found))
    except UnicodeDecodeError as error:
      raise DataError(
        f"{where}: the name of a column is not UTF-8 ({source.shorten(error.object)});"
        f" {_DAMAGED}"
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
  ) -> Iterator[pa.RecordBatch]:
    """The plain columns of a batch, split to the limits of a batch.

    Args:
      batch: Columns as the file has them.
      names: The plain columns to return.
      row: Row of the file with which the batch begins, for messages.

    Raises:
      DataError: A value is damaged.
    """
    schema = pa.schema([self.schema.field(name) for name in names])
    for piece in source.split(batch):
      arrays = [self._column(piece, name, row) for name in names]
      yield source.make_batch(arrays, schema, piece.num_rows)
      row += piece.num_rows

  def _column(self, batch: pa.RecordBatch, name: str, row: int) -> pa.Array:
    root, *path = self.paths[name]
    column = batch.column(root)
    try:
      array = sound(column)
    except READ_ERRORS as error:
      index = source.first_failing(len(column), lambda i, n: sound(column.slice(i, n)))
      value, advice = "", _DAMAGED
      if "UTF8" in str(error):
        value = _raw(column.slice(index, 1))
        advice = "a string must be UTF-8: write such bytes as binary, or decode them"
      raise DataError(
        f"{self.where}, row {row + index}, column {name!r}:"
        f" {value}{source.reason(error)}; {advice}"
      ) from error
    for part in path:
      array = pc.struct_field(_stored(array), array.type.get_field_index(part))
    return _stored(array).cast(self.schema.field(name).type)


def check_names(where: str, names: Sequence[str], hint: str = "") -> None:
  """Raises `DataError` for a name that is empty or occurs twice.

  Args:
    where: The file.
    names: Names of all columns.
    hint: Words at the end of the message on a name that occurs twice.
  """
  for place, name in enumerate(names):
    if not name.strip():
      raise DataError(
        f"{where}: column {place} has no name; give it one, or leave it out (an index"
        " of pandas is left out by to_csv(index=False))"
      )
    if name in names[:place]:
      raise DataError(
        f"{where}: columns {names.index(name)} and {place} are both {name!r}; rename"
        f" one{hint}"
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
  """Paths and types of the columns, structs opened; a struct without fields stays."""
  for field in fields:
    below = field.type
    while isinstance(below, pa.BaseExtensionType):
      below = below.storage_type
    if pa.types.is_struct(below) and below.num_fields:
      yield from _leaves((*path, field.name), below)
    else:
      yield (*path, field.name), field.type


def _readable(where: str, name: str, kind: pa.DataType) -> pa.DataType:
  """The plain type of a column; raises `DataError` if Arrow cannot convert to it."""
  plain = plain_type(kind)
  try:
    _stored(pa.array([], kind)).cast(plain)
  except READ_ERRORS as error:
    raise DataError(
      f"{where}, column {name!r}: type {kind} cannot be read; write it as {plain}"
    ) from error
  return plain


def _raw(cell: pa.Array) -> str:
  """The bytes of a string that is not UTF-8; "" if they cannot be shown."""
  try:
    # Safe, since its offsets were found to be good before its bytes were looked at.
    return f"{source.shorten(cell.cast(pa.binary())[0].as_py())} is damaged: "
  except (*READ_ERRORS, IndexError):
    return ""


def check_buffers(array: pa.Array) -> None:
  """Raises `pa.ArrowInvalid` if buffers are too short for the array; cheap."""
  if not _is_view(array.type):
    array.validate()
    return
  # As Arrow's own check, which asks for an offset too many of a list of views.
  width = 8 if pa.types.is_large_list_view(array.type) else 4
  for buffer in array.buffers()[1:3]:
    if buffer.size < (array.offset + len(array)) * width:
      raise pa.ArrowInvalid(f"a buffer of {buffer.size} bytes is too short")
  check_buffers(array.values)


def sound(array: pa.Array) -> pa.Array:
  """Check every value, and return an array of them alone.

  Values outside a slice are dropped from within lists too: Arrow would keep and convert
  all of them. An extension array comes back as its storage, a list of views as a large
  list.

  Raises:
    pa.ArrowInvalid: An offset is out of range, or a string is not UTF-8.
  """
  kind = array.type
  if isinstance(kind, pa.BaseExtensionType):
    return sound(array.storage)
  if pa.types.is_fixed_size_list(kind) and kind.list_size:
    begin, count = array.offset * kind.list_size, len(array) * kind.list_size
    values = sound(array.values.slice(begin, count))
    return pa.FixedSizeListArray.from_arrays(
      values, kind.list_size, mask=array.is_null()
    )
  if pa.types.is_struct(kind) and kind.num_fields:
    fields = [sound(array.field(i)) for i in range(kind.num_fields)]
    names = [field.name for field in kind]
    return pa.StructArray.from_arrays(fields, names, mask=array.is_null())
  if isinstance(kind, pa.ListType | pa.LargeListType) or _is_view(kind):
    return _sound_list(array) if len(array) else array
  array.validate(full=True)
  return array


def _sound_list(array: pa.Array) -> pa.Array:
  begins = array.offsets.to_numpy().astype(np.int64)
  if _is_view(array.type):
    sizes = array.sizes.to_numpy().astype(np.int64)
  else:
    begins, sizes = begins[:-1], np.diff(begins)
  valid = array.is_valid().to_numpy(zero_copy_only=False)
  good = (begins >= 0) & (sizes >= 0) & (begins + sizes <= len(array.values))
  if not good[valid].all():
    raise pa.ArrowInvalid("list offsets are out of range")
  # Not by a cast, which takes the offsets of views for those of lists.
  ends = np.concatenate([[0], np.cumsum(np.where(valid, sizes, 0))])
  short = pa.types.is_list(array.type)
  make = pa.ListArray if short else pa.LargeListArray
  offsets = pa.array(ends, pa.int32() if short else pa.int64())
  return make.from_arrays(offsets, sound(array.flatten()), mask=array.is_null())


def _is_view(kind: pa.DataType) -> bool:
  return isinstance(kind, pa.ListViewType | pa.LargeListViewType)
