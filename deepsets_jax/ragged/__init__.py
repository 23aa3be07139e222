"""Ragged arrays on static shapes: segment ops, pools, attention inside segments."""

from deepsets_jax.ragged.arrays import (
  Batch,
  Ragged,
  concatenate,
  from_lengths,
  from_lists,
  of_vectors,
  stack,
  without,
)

__all__ = [
  "Batch",
  "Ragged",
  "concatenate",
  "from_lengths",
  "from_lists",
  "of_vectors",
  "stack",
  "without",
]
