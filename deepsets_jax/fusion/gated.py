"""The gated multimodal unit: each modality speaks through a gate that all set."""

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
  for any number of modalities: `x_m` is a modality's pooled vector, and every feature
  of every modality has a sigmoid gate of its own that sees all modalities. For two the
  paper ties the gates, z and 1 - z; here they stay free, as a tied one would take from
  the modality that is there for the one that is not.

  Not of the paper, where all modalities are there: an absent one says nothing, sets no
  gate, and its own gate is left out. There are no biases, as in the paper, so that a
  vector of zeros does just that.

  Attributes:
    pool: Of a modality's elements to its vector, any but "softmax".
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
    # One product for the gates of all modalities, absent or not: the same code.
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
