"""Conversion between list columns of Arrow and numpy or ragged arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.foundation.errors import DataError
from deepsets_jax.ragged import Ragged, from_lengths


def vectors_to_arrow(values: np.ndarray, dtype: Any = None) -> pa.FixedSizeListArray:
  """Returns vectors `[n, d]` as an Arrow column of fixed size lists of length `d`.

  Args:
    values: The vectors.
    dtype: Number type of the column; None for that of `values`.
  """
  flat = pa.array(np.ascontiguousarray(values, dtype).reshape(-1))
  return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def vectors_from_arrow(column: Any) -> np.ndarray:
  """Returns the vectors of an Arrow column, `[n, d]`; the number type is kept.

  Args:
    column: Of `fixed_size_list<number>`, or of lists that all have one length; plain or
      chunked.

  Raises:
    DataError: A list or a number is null, or the lists differ in length.
  """
  if isinstance(column, pa.ChunkedArray):
    column = column.combine_chunks()
  return _elements(column)


def from_arrow(column: Any) -> Ragged:
  """Returns a list column of Arrow as a host `Ragged`; a null is an empty list.

  Args:
    column: Of `list<number>` (token ids or scalars), `list<fixed_size_list<number>>` or
      `list<list<number>>` (vectors, all of one length); plain or chunked. The number
      type is kept.

  Raises:
    DataError: The column is not a list of numbers or of equally long vectors, or an
      element in it is null.
  """
  if isinstance(column, pa.ChunkedArray):
    column = column.combine_chunks()
  if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
    raise DataError(f"an Arrow column of {column.type}: expected a list column")
  lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
  # Unlike `values`, flatten() leaves out entries that are sliced off or behind a null.
  return from_lengths(_elements(column.flatten()), lengths)


def _elements(elements: Any) -> np.ndarray:
  """The elements of a flattened list column: `[n]`, or `[n, d]` for vectors."""
  if elements.null_count:
    raise DataError(
      f"{elements.null_count} null elements inside lists: remove them; an absent"
      " modality is an empty or null list"
    )
  kind = elements.type
  if pa.types.is_integer(kind) or pa.types.is_floating(kind):
    return elements.to_numpy(zero_copy_only=False)
  if pa.types.is_fixed_size_list(kind):
    size = kind.list_size
  elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
    sizes = pc.unique(pc.list_value_length(elements)).to_pylist()
    if len(sizes) > 1:
      raise DataError(f"vectors of different lengths: {sorted(sizes)}")
    size = sizes[0] if sizes else 1
  else:
    raise DataError(f"a list of {kind}: expected numbers or vectors of numbers")
  return _elements(elements.flatten()).reshape(-1, size)
