"""Low-rank fusion: the product of all modalities without their outer product."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion.base import Fusion, check_present
from deepsets_jax.ragged import Ragged, pooling


class LowRankFusion(Fusion):
  """The sum over `rank` terms of w_r (product over modalities of F_mr [x_m, 1] - 1).

  Liu et al., "Efficient Low-rank Multimodal Fusion With Modality-Specific Factors"
  (2018): a linear map of the outer product of the modalities' pooled vectors, each with
  a 1 appended. The map is decomposed into rank-one terms, so that the outer product is
  never formed. The weights w of the terms are those of the authors' code. The factor of
  an absent modality is 1, the identity of the product.

  The subtracted 1 is the product of no modality, so an empty set has a vector of zeros.
  It only moves the constant, the last bias of the authors, which is left to the head;
  the same functions can be learned.

  A factor starts at 1 + F x: the part of the appended 1 is exactly 1, and F x has a
  length of about 1 for an x of length 1. So the product of many modalities neither
  vanishes nor explodes: at first the result is close to a sum of linear maps, and its
  length is about the root of the number of modalities. The part of the 1 is learned as
  its difference from 1.

  Attributes:
    rank: Number of rank-one terms, at least 1. Parameters grow in proportion to it.
    pool: How a modality's elements become its vector: a name in `pooling.POOLS` or
      "median", except "softmax".

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
      vector, present = jnp.zeros((b, self.features), jnp.float32), jnp.zeros(b, bool)
      if name in modalities:
        vector = pooling.pool(self.pool, modalities[name])
        present = modalities[name].lengths > 0
      dense = nn.Dense(
        self.rank * self.features, dtype=self.dtype, name=f"factor_{name}"
      )
      # Weight decay pulls a difference from 1 to 0, and so the factor to 1, not to 0.
      factor = 1 + dense(vector).astype(jnp.float32).reshape(product.shape)
      product *= jnp.where(present[:, None, None], factor, 1)
    return jnp.sum(weights[None, :, None] * (product - 1), axis=1)
