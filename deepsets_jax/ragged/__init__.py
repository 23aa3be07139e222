"""Ragged arrays on static shapes: segment ops, pools, attention inside segments."""

from deepsets_jax.ragged.arrays import (
  Ragged,
  from_lengths,
  from_lists,
)
from deepsets_jax.ragged.batch import Batch, without
from deepsets_jax.ragged.offsets import (
  check_offsets,
  debug_offsets,
  offsets_from_lengths,
)
from deepsets_jax.ragged.structure import (
  compress,
  concatenate,
  concatenate_examples,
  of_vectors,
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
  "from_lengths",
  "from_lists",
  "of_vectors",
  "offsets_from_lengths",
  "sample",
  "sample_mask",
  "slice_elements",
  "stack",
  "take",
  "unstack",
  "without",
]
