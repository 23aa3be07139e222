"""The set pool: all elements of all modalities as one unordered set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax import pooling
from deepsets_jax.encoders.layers import Scores, l2_normalize
from deepsets_jax.fusion.base import Fusion, check_present
from deepsets_jax.ragged import Ragged


class SetPoolFusion(Fusion):
  """All elements of all modalities as one unordered set, pooled.

  Reiter et al., "Deep Multi-Modal Sets" (2020): sum, max or min over the encoded
  elements, whatever their modality and number. Absent modalities take no
  part; a set with no element at all pools to zeros.

  Attributes:
    pools: Names in `pooling.POOLS`; several stand side by side. "softmax" learns its
      scores from the elements, as attention pooling in Ilse et al. (2018).
    normalize: Whether each element is scaled to length 1 first.
    use_size: Whether log(1 + number of elements) is one more feature.
  """

  pools: Sequence[str] = ("max",)
  normalize: bool = False
  use_size: bool = False

  @nn.compact
  def __call__(
    self, modalities: Mapping[str, Ragged], *, train: bool
  ) -> Float[Array, "b f"]:
    del train
    check_present(modalities)
    if self.normalize:
      modalities = {
        k: v.replace(values=l2_normalize(v.values)) for k, v in modalities.items()
      }
    scores = self._scores(modalities) if "softmax" in self.pools else {}
    features = [
      pooling.pool(name, modalities, scores=scores if name == "softmax" else None)
      for name in self.pools
    ]
    if self.use_size:
      size = sum(v.lengths for v in modalities.values())
      features.append(jnp.log1p(size.astype(jnp.float32))[:, None])
    return jnp.concatenate(features, axis=-1)

  def _scores(self, modalities: Mapping[str, Ragged]) -> dict[str, Float[Array, "n"]]:
    """One score per element, by a tanh layer that all modalities share."""
    score = Scores(self.features, self.dtype, name="scores")
    return {name: score(ragged.values) for name, ragged in modalities.items()}
