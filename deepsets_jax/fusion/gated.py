"""The gated multimodal unit: gates that see all modalities weigh each of them."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax.fusion.base import Fusion, check_present
from deepsets_jax.ragged import Ragged, pooling


class GatedFusion(Fusion):
  """The sum over modalities of sigmoid(Z_m [x_1, ..., x_M]) * tanh(W_m x_m).

  Arevalo et al., "Gated Multimodal Units for Information Fusion" (2017), in the form
  for any number of modalities: `x_m` is the pooled vector of a modality, and every
  feature of every modality has its own sigmoid gate that sees all modalities. For two
  modalities the paper ties the gates, z and 1 - z. They are not tied here, because a
  tied gate would weaken the modality that is there in favour of the absent one.

  The paper assumes that all modalities are there. Here an absent modality adds nothing
  to the sum and does not influence the gates of others. As in the paper there are no
  biases, so that a vector of zeros has exactly this effect.

  Attributes:
    pool: How a modality's elements become its vector: a name in `pooling.POOLS` or
      "median", except "softmax".
  """

  pool: str = "mean"

  @nn.compact
  def __call__(
    self, modalities: Mapping[str, Ragged], *, train: bool
  ) -> Float[Array, "b f"]:
    del train
    check_present(modalities)
    pooled = {name: pooling.pool(self.pool, v) for name, v in modalities.items()}
    absent = jnp.zeros_like(next(iter(pooled.values())))
    vectors = [pooled.get(name, absent) for name in self.modalities]
    # One product for the gates of all modalities, so that the same code runs whether or
    # not a modality is absent.
    gates = nn.Dense(
      len(vectors) * self.features, use_bias=False, dtype=self.dtype, name="gates"
    )(jnp.concatenate(vectors, axis=-1))
    gates = nn.sigmoid(gates.astype(jnp.float32))
    fused = absent
    for name, vector, gate in zip(
      self.modalities, vectors, jnp.split(gates, len(vectors), axis=-1), strict=True
    ):
      dense = nn.Dense(
        self.features, use_bias=False, dtype=self.dtype, name=f"hidden_{name}"
      )
      fused += gate * jnp.tanh(dense(vector).astype(jnp.float32))
    return fused
