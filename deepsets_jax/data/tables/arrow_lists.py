"""List columns of Arrow as ragged arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged, from_lengths


def from_arrow(column: Any) -> Ragged:
  """A host `Ragged` of a list column of Arrow; null is an empty list.

  Takes `list<number>` (token ids, or scalars), `list<fixed_size_list<number>>` and
  `list<list<number>>` (vectors, which must all be of one length), plain or chunked.
  The number type is kept.

  Raises:
    ConfigError: The column is not a list of numbers or of equal vectors, or an
      element in it is null.
  """
  if isinstance(column, pa.ChunkedArray):
    column = column.combine_chunks()
  if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
    raise ConfigError(f"an Arrow column of {column.type}: expected a list column")
  lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
  # flatten() leaves out what null and sliced-off entries cover; values would not.
  return from_lengths(_arrow_elements(column.flatten()), lengths)


def _arrow_elements(elements: Any) -> np.ndarray:
  """The elements of a flattened list column: `[n]`, or `[n, d]` for vectors."""
  if elements.null_count:
    raise ConfigError(
      f"{elements.null_count} null elements inside lists: drop them; an absent"
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
      raise ConfigError(f"vectors of different lengths: {sorted(sizes)}")
    size = sizes[0] if sizes else 1
  else:
    raise ConfigError(f"a list of {kind}: expected numbers or vectors of numbers")
  return _arrow_elements(elements.flatten()).reshape(-1, size)
