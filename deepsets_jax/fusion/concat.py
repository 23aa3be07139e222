"""Concatenation: a slot of fixed width for each modality, filled if it is absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion.base import Fusion, check_present
from deepsets_jax.ragged import Ragged, pooling


class ConcatFusion(Fusion):
  """Pools each modality into a fixed slot, and concatenates the slots.

  This is the usual practice. Reiter et al., "Deep Multi-Modal Sets" (2020), argue
  against it: the vector grows with every modality, and the slot of an absent modality
  must be filled with something.

  Attributes:
    pools: Names in `pooling.POOLS` except "softmax"; their results stand side by side
      in a slot, which is `len(pools) * d` wide.
    placeholder: What fills the slot of an absent modality: "zeros", or "learned", a
      learned vector for each modality.

  Raises:
    ConfigError: `placeholder` is unknown.
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
        f"concat: unknown placeholder {self.placeholder!r}; one of ['learned', 'zeros']"
      )
    b = next(iter(modalities.values())).num_examples
    width = self.features * len(self.pools)
    slots = []
    for name in self.modalities:
      fill = jnp.zeros(width, jnp.float32)
      if self.placeholder == "learned":
        init = nn.initializers.normal(0.02, jnp.float32)
        fill = self.param(f"placeholder_{name}", init, (width,))
      slot = jnp.broadcast_to(fill, (b, width))
      if name in modalities:
        part = modalities[name]
        pooled = [pooling.pool(pool, part) for pool in self.pools]
        present = part.lengths[:, None] > 0
        slot = jnp.where(present, jnp.concatenate(pooled, axis=-1), slot)
      slots.append(slot)
    return jnp.concatenate(slots, axis=-1)
