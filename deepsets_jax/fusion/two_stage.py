"""Two stages: a vector for each modality, then a transformer over the modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax import ragged
from deepsets_jax.encoders.transformer import Transformer
from deepsets_jax.fusion.base import Fusion, check_present, modality_codes
from deepsets_jax.ragged import Ragged, pooling


class TwoStageFusion(Fusion):
  """Pools each modality to one vector, and fuses the vectors by a transformer.

  The transformers of the first stage, one for each modality, are the sequence encoders
  (`config.model.sequence`). A learned code, not a position, says which modality a
  vector is of. The second stage attends only to the modalities that are there.

  Attributes:
    pool: How a modality's elements become its vector: a name in `pooling.POOLS` or
      "median", except "softmax".
    readout: Pools from the modalities' vectors to the result, side by side: names as
      for `pool`. The result is `len(readout) * d` wide.
    layers: Number of transformer blocks; with 0 modalities do not see each other.
    heads: Number of attention heads; must divide the features.
    hidden: Width of the feed-forward layers; None for four times the features.
    dropout: Dropout rate in the transformer, from 0 to below 1.
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
    tokens, _ = ragged.concatenate(parts)
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
    pooled = [pooling.pool(name, tokens) for name in self.readout]
    return jnp.concatenate(pooled, axis=-1)
