"""The concatenation: a slot for each modality, filled where it is absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion.base import Fusion, check_present
from deepsets_jax.ragged import Ragged, pooling


class ConcatFusion(Fusion):
  """Each modality pooled to a fixed slot, the slots concatenated.

  The usual practice, which Reiter et al. argue against: the vector grows with every
  modality, and an absent one must be filled with something.

  Attributes:
    pools: Of a slot, side by side, as in `SetPoolFusion`, except "softmax".
    placeholder: What fills the slot of an absent modality: "zeros" or "learned".
  """

  pools: Sequence[str] = ("mean",)
  placeholder: str = "zeros"

  @nn.compact
  def __call__(
    self, modalities: Mapping[str, Ragged], *, train: bool
  ) -> Float[Array, "b f"]:
    del train
    check_present(modalities)
    if self.placeholder not in ("zeros", "learned"):
      raise ConfigError(
        f"unknown placeholder {self.placeholder!r}; one of ['learned', 'zeros']"
      )
    b = next(iter(modalities.values())).num_examples
    width = self.features * len(self.pools)
    slots = []
    for name in self.modalities:
      fill = jnp.zeros(width, jnp.float32)
      if self.placeholder == "learned":
        init = nn.initializers.normal(0.02, jnp.float32)
        fill = self.param(f"placeholder_{name}", init, (width,))
      slots.append(self._slot(modalities.get(name), fill, b))
    return jnp.concatenate(slots, axis=-1)

  def _slot(
    self, ragged: Ragged | None, fill: Float[Array, "w"], b: int
  ) -> Float[Array, "b w"]:
    filled = jnp.broadcast_to(fill, (b, fill.shape[0]))
    if ragged is None:
      return filled
    pooled = [pooling.pool(name, ragged) for name in self.pools]
    present = ragged.lengths[:, None] > 0
    return jnp.where(present, jnp.concatenate(pooled, axis=-1), filled)
