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
  """Some examples, each a bag of elements from several modalities.

  Attributes:
    modalities: The elements by modality; all of `b` examples, each of its own
      number of slots. An absent modality is an empty segment, or no entry.
    targets: By the kind of target: `[b, k]` float for multilabel and regression,
      `[b]` int for multiclass, `[b]` float for binary.
    weights: Multiplies each example's loss; 0 for a padding example.
    indices: Row of each example in its table; -1 for a padding example.
  """

  modalities: Mapping[str, Ragged]
  targets: Shaped[Array, "b ..."]
  weights: Float[Array, "b"]
  indices: Int[Array, "b"]

  def replace(self, **changes: Any) -> Batch:
    """A copy with other values of some attributes."""
    return dataclasses.replace(self, **changes)


def without(batch: Batch, names: Iterable[str]) -> Batch:
  """The batch as if these modalities had never been declared."""
  drop = set(names)
  kept = {k: v for k, v in batch.modalities.items() if k not in drop}
  return batch.replace(modalities=kept)
