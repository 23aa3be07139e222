"""Arrow arrays from a file, looked at in full before they are used.

Arrow trusts what a file says of offsets, and of strings that they are UTF-8. What is
read beyond an array, or taken for a character, may be anything.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


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
  """The same values, of which each was looked at.

  What a slice does not show is left out within lists too, where Arrow keeps and
  converts the whole. An extension array comes back as its storage, a list of views as
  a large list.

  Raises:
    pa.ArrowInvalid: An offset is out of range, or a string is not UTF-8.
  """
  kind = array.type
  if isinstance(kind, pa.BaseExtensionType):
    return sound(array.storage)
  if pa.types.is_list(kind) or pa.types.is_large_list(kind):
    return _sound_list(array)
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
  if _is_view(kind):
    return _sound_view(array)
  array.validate(full=True)
  return array


def _sound_list(array: pa.Array) -> pa.Array:
  if not len(array):
    return array
  offsets = array.offsets.to_numpy()
  begin, end = int(offsets[0]), int(offsets[-1])
  if begin < 0 or end > len(array.values) or (np.diff(offsets) < 0).any():
    raise pa.ArrowInvalid("list offsets are out of range")
  values = sound(array.values.slice(begin, end - begin))
  make = pa.ListArray if pa.types.is_list(array.type) else pa.LargeListArray
  return make.from_arrays(pa.array(offsets - begin), values, mask=array.is_null())


def _sound_view(array: pa.Array) -> pa.Array:
  offsets, sizes = array.offsets.to_numpy(), array.sizes.to_numpy()
  valid = pc.is_valid(array).to_numpy(zero_copy_only=False)
  good = (offsets >= 0) & (sizes >= 0)
  good &= offsets.astype(np.int64) + sizes <= len(array.values)
  if not good[valid].all():
    raise pa.ArrowInvalid("list offsets are out of range")
  # Not by a cast, which takes the views' own offsets for those of the lists.
  ends = np.concatenate([[0], np.cumsum(np.where(valid, sizes, 0), dtype=np.int64)])
  return pa.LargeListArray.from_arrays(
    pa.array(ends), sound(array.flatten()), mask=array.is_null()
  )


def _is_view(kind: pa.DataType) -> bool:
  return pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
