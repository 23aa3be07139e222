"""A batch of examples: a ragged array per modality, targets and weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from jaxtyping import Array, Float, Int, Shaped

from deepsets_jax.ragged.arrays import Ragged


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
  """`b` examples, each with elements of several modalities.

  Attributes:
    modalities: The elements of each modality, all of the same `b` examples; each
      modality has its own number of slots. An absent modality is an empty segment, or
      is left out of the dictionary.
    targets: Depends on the kind of target: `[b, k]` float for multilabel and
      regression, `[b]` int for multiclass, `[b]` float for binary.
    weights: Factor of each example's loss; 0 for a padding example.
    indices: Row of each example in its table; -1 for a padding example.
  """

  modalities: Mapping[str, Ragged]
  targets: Shaped[Array, "b ..."]
  weights: Float[Array, "b"]
  indices: Int[Array, "b"]

  def replace(self, **changes: Any) -> Batch:
    """Return a copy with other values of some attributes."""
    return dataclasses.replace(self, **changes)


def drop_modalities(batch: Batch, names: Iterable[str]) -> Batch:
  """Return the batch without these modalities; unknown names are ignored."""
  dropped = set(names)
  kept = {k: v for k, v in batch.modalities.items() if k not in dropped}
  return batch.replace(modalities=kept)
