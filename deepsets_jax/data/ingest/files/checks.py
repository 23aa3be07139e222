"""Full checks of the Arrow arrays in a file, before their values are used.

Arrow trusts the offsets in a file, and trusts that its strings are UTF-8. With damaged
ones it would read beyond the end of an array.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa


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
