"""Low-rank fusion: the product of all modalities, without their outer product."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion.base import Fusion, check_present
from deepsets_jax.ragged import Ragged, pooling


class LowRankFusion(Fusion):
  """The sum over `rank` terms of w_r (product over modalities of F_mr [x_m, 1] - 1).

  Liu et al., "Efficient Low-rank Multimodal Fusion With Modality-Specific Factors"
  (2018): a linear map of the outer product of the modalities' pooled vectors, a 1
  appended to each, decomposed into rank-one terms, so that the outer product is never
  made; the weights w of the terms are those of the authors' code. An absent modality's
  factor is 1, the identity of the product.

  Subtracting the product of nothing makes the vector of an empty set zeros. It moves
  the constant, the authors' last bias, which is left to the head; the functions that
  can be learned are the same.

  A factor starts at 1 + F x, with the appended 1's part at exactly 1 and F x of length
  about 1 for an x of length 1. So the product of many modalities neither vanishes nor
  explodes: at first the result is near a sum of linear maps, its length about the root
  of the number of modalities. The 1's part is learned as its difference from 1.

  Attributes:
    rank: Number of terms.
    pool: Of a modality's elements to its vector, any but "softmax".

  Raises:
    ConfigError: `rank` is not positive.
  """

  rank: int = 4
  pool: str = "mean"

  @nn.compact
  def __call__(
    self, modalities: Mapping[str, Ragged], *, train: bool
  ) -> Float[Array, "b f"]:
    del train
    check_present(modalities)
    if self.rank < 1:
      raise ConfigError(f"low_rank: rank is {self.rank}; expected at least 1")
    init = nn.initializers.constant(self.rank**-0.5, jnp.float32)
    weights = self.param("weights", init, (self.rank,))
    b = next(iter(modalities.values())).num_examples
    product = jnp.ones((b, self.rank, self.features), jnp.float32)
    for name in sorted(self.modalities):
      width = self.rank * self.features
      dense = nn.Dense(width, dtype=self.dtype, name=f"factor_{name}")
      vector, present = self._vector(modalities.get(name), b)
      # As a difference, weight decay draws the factor to 1, not the product to 0.
      factor = 1 + dense(vector).astype(jnp.float32).reshape(product.shape)
      product *= jnp.where(present[:, None, None], factor, 1)
    return jnp.sum(weights[None, :, None] * (product - 1), axis=1)

  def _vector(
    self, elements: Ragged | None, b: int
  ) -> tuple[Float[Array, "b d"], Bool[Array, "b"]]:
    """A modality's pooled elements, and in which examples there are any."""
    if elements is None:
      return jnp.zeros((b, self.features), jnp.float32), jnp.zeros(b, bool)
    return pooling.pool(self.pool, elements), elements.lengths > 0
