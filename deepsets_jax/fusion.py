"""Fusions: a dictionary of encoded modalities to one vector per example.

Each takes `dict[str, Ragged]`, whose values share `b` and `d`, and gives `[b, f]`.
An entry may be missing from the dictionary: that is absence for all of its examples.
A fusion of your own is a module with this call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax import pooling
from deepsets_jax.encoders import l2_normalize
from deepsets_jax.ragged import Ragged


class SetPoolFusion(nn.Module):
  """All elements of all modalities as one unordered set, pooled.

  Reiter et al., "Deep Multi-Modal Sets" (2020): sum, max or min over the encoded
  elements, whatever their modality and number. Absent modalities take no
  part; a set with no element at all pools to zeros.

  Attributes:
    pools: Names in `pooling.POOLS`; several stand side by side. "softmax" learns its
      scores from the elements, as attention pooling in Ilse et al. (2018).
    normalize: Whether each element is scaled to length 1 first.
    use_size: Whether log(1 + number of elements) is one more feature.
    dtype: Of the score's computation; pools are float32.
  """

  pools: Sequence[str] = ("max",)
  normalize: bool = False
  use_size: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, modalities: Mapping[str, Ragged], *, train: bool
  ) -> Float[Array, "b f"]:
    del train
    _check_present(modalities)
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
    width = next(iter(modalities.values())).values.shape[-1]
    hidden = nn.Dense(width, dtype=self.dtype, name="score_hidden")
    score = nn.Dense(1, dtype=self.dtype, name="score")
    return {
      name: score(jnp.tanh(hidden(ragged.values)))[:, 0]
      for name, ragged in modalities.items()
    }


class ConcatFusion(nn.Module):
  """Each modality pooled to a fixed slot, the slots concatenated.

  The usual practice, which Reiter et al. argue against: the vector grows with every
  modality, and an absent one must be filled with something.

  Attributes:
    modalities: All modalities, in the order of the slots.
    features: `d`, of one modality's encoded elements.
    pools: Of a slot, side by side, as in `SetPoolFusion`, except "softmax".
    placeholder: What fills the slot of an absent modality: "zeros" or "learned".
  """

  modalities: Sequence[str]
  features: int
  pools: Sequence[str] = ("mean",)
  placeholder: str = "zeros"

  @nn.compact
  def __call__(
    self, modalities: Mapping[str, Ragged], *, train: bool
  ) -> Float[Array, "b f"]:
    del train
    _check_present(modalities)
    if self.placeholder not in ("zeros", "learned"):
      raise ValueError(
        f"unknown placeholder {self.placeholder!r}; one of ['learned', 'zeros']"
      )
    b = next(iter(modalities.values())).num_examples
    width = self.features * len(self.pools)
    slots = []
    for name in self.modalities:
      fill = jnp.zeros(width)
      if self.placeholder == "learned":
        fill = self.param(f"placeholder_{name}", nn.initializers.normal(0.02), (width,))
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


def _check_present(modalities: Mapping[str, Ragged]) -> None:
  if not modalities:
    raise ValueError(
      "a batch without any modality: its number of examples is unknown; pass at"
      " least one modality, with empty sets if need be"
    )
