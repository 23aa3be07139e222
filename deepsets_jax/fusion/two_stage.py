"""Two stages: a vector per modality, then a transformer over the modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax import ragged
from deepsets_jax.encoders.importance import wants_importance
from deepsets_jax.encoders.transformer import Transformer
from deepsets_jax.fusion.base import (
  Fusion,
  check_present,
  modality_codes,
  of_examples,
  spread_evenly,
  uniform,
)
from deepsets_jax.ragged import Ragged, pooling


class TwoStageFusion(Fusion):
  """Each modality pooled to one vector, which meet in a fusion transformer.

  The first stage's transformers, one within each modality, are its sequence encoders
  (`config.model.sequence`). A modality is told by a learned code, not by a place, and
  an absent one is simply not there: the second stage attends over those present.

  The attention that is sown, see `Fusion`, is the transformer's rollout from all
  modalities alike, and what a modality has of it is its elements', in equal parts.

  Attributes:
    pool: Of a modality's elements to its vector, any but "softmax".
    readout: Pools of the modalities' vectors to the global embedding, side by side.
    layers, heads, hidden, dropout: Of the fusion transformer, see
      `transformer.Transformer`.
  """

  pool: str = "mean"
  readout: Sequence[str] = ("mean",)
  layers: int = 1
  heads: int = 4
  hidden: int | None = None
  dropout: float = 0.0

  @nn.compact
  def __call__(
    self, modalities: Mapping[str, Ragged], *, train: bool
  ) -> Float[Array, "b f"]:
    check_present(modalities)
    codes = modality_codes(self)
    parts = []
    for name in sorted(modalities):
      elements = modalities[name]
      vectors = pooling.pool(self.pool, elements).astype(self.dtype) + codes[name]
      parts.append(ragged.from_vectors(vectors, elements.lengths > 0))
    tokens, slots = ragged.concatenate(parts)
    transformer = Transformer(
      self.features,
      self.layers,
      self.heads,
      self.hidden,
      self.dropout,
      dtype=self.dtype,
      longest=len(parts),
      name="transformer",
    )
    tokens = transformer(tokens, train=train)
    if wants_importance(self):
      mass = transformer.rollout(*uniform([tokens]))
      weights = {
        name: spread_evenly(of_examples(mass, slot, part), modalities[name])
        for name, slot, part in zip(sorted(modalities), slots, parts, strict=True)
      }
      self.sow_attention(weights)
    pooled = [pooling.pool(name, tokens) for name in self.readout]
    return jnp.concatenate(pooled, axis=-1)
