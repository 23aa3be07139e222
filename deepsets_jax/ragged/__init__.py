"""Ragged arrays on static shapes: segment ops, pools, attention inside segments.

Importing this package needs jax and numpy only.
"""

from deepsets_jax.ragged.arrays import Ragged, from_lengths, from_lists
from deepsets_jax.ragged.batch import Batch, drop_modalities
from deepsets_jax.ragged.offsets import (
  check_offsets,
  debug_offsets,
  device_offsets,
  offsets_from_lengths,
)
from deepsets_jax.ragged.structure import (
  compress,
  concatenate,
  concatenate_examples,
  from_vectors,
  sample,
  sample_mask,
  slice_elements,
  stack,
  take,
  unstack,
)

__all__ = [
  "Batch",
  "Ragged",
  "check_offsets",
  "compress",
  "concatenate",
  "concatenate_examples",
  "debug_offsets",
  "device_offsets",
  "drop_modalities",
  "from_lengths",
  "from_lists",
  "from_vectors",
  "offsets_from_lengths",
  "sample",
  "sample_mask",
  "slice_elements",
  "stack",
  "take",
  "unstack",
]
