"""The set pool: all elements of all modalities as one unordered set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from deepsets_jax.encoders.importance import sow_importance, wants_importance
from deepsets_jax.encoders.layers import Scores, l2_normalize
from deepsets_jax.fusion.base import Fusion, check_present
from deepsets_jax.ragged import Ragged, pooling
from deepsets_jax.ragged.max_shares import max_shares
from deepsets_jax.ragged.segments import segment_softmax


class _State(NamedTuple):
  """Of some modalities: the number of elements `[b]`, and each pool's state."""

  size: Int[Array, "*q b"]
  pools: tuple[Any, ...]


class SetPoolFusion(Fusion):
  """All elements of all modalities as one unordered set, pooled.

  Reiter et al., "Deep Multi-Modal Sets" (2020): sum, max or min over the encoded
  elements, whatever their modality and number. Absent modalities take no
  part; a set with no element at all pools to zeros.

  With max or min among the pools, what won is sown in the collection "importance" as
  "argmax": by modality `[n]` the share of these pools' features that each element has
  won (of the elements scaled to length 1, if they are); see `max_shares`. With
  "softmax", its weights are the attention that is sown, see `Fusion`.

  Attributes:
    pools: Names in `pooling.POOLS`; several stand side by side. "softmax" learns its
      scores from the elements, as attention pooling in Ilse et al. (2018).
    normalize: Whether each element is scaled to length 1 first.
    use_size: Whether log(1 + number of elements) is one more feature.
  """

  merges = True

  pools: Sequence[str] = ("max",)
  normalize: bool = False
  use_size: bool = False

  def __call__(
    self, modalities: Mapping[str, Ragged], *, train: bool
  ) -> Float[Array, "b f"]:
    del train
    check_present(modalities)
    modalities, scores = self._prepare(modalities)
    features = [
      pooling.pool(
        pooling.get(name), modalities, scores=scores if name == "softmax" else None
      )
      for name in self.pools
    ]
    if wants_importance(self):
      self._sow_importance(modalities, scores, features)
    if self.use_size:
      size = sum(v.lengths for v in modalities.values())
      features.append(_log_size(size))
    return jnp.concatenate(features, axis=-1)

  def lift(self, modalities: Mapping[str, Ragged]) -> dict[str, _State]:
    """The partial state of each modality by itself; its leaves are `[b, ...]`."""
    modalities, scores = self._prepare(modalities)
    return {
      name: _State(
        ragged.lengths,
        tuple(
          pooling.get(pool).lift(ragged, scores[name] if pool == "softmax" else None)
          for pool in self.pools
        ),
      )
      for name, ragged in modalities.items()
    }

  def merge(self, a: _State, b: _State) -> _State:
    """The state of two disjoint sets of elements."""
    pools = zip(self.pools, a.pools, b.pools, strict=True)
    merged = tuple(pooling.get(name).merge(x, y) for name, x, y in pools)
    return _State(a.size + b.size, merged)

  def finish(self, state: _State) -> Float[Array, "*q b f"]:
    """The fused vectors of states; they may have more leading axes."""
    pools = zip(self.pools, state.pools, strict=True)
    features = [pooling.get(name).finish(one) for name, one in pools]
    if self.use_size:
      features.append(_log_size(state.size))
    return jnp.concatenate(features, axis=-1)

  @nn.compact
  def _prepare(
    self, modalities: Mapping[str, Ragged]
  ) -> tuple[Mapping[str, Ragged], dict[str, Float[Array, "n"]]]:
    """The elements as they are pooled, and their scores if a pool needs them.

    A score is by a tanh layer that all modalities share.
    """
    if self.normalize:
      modalities = {
        k: v.replace(values=l2_normalize(v.values)) for k, v in modalities.items()
      }
    if "softmax" not in self.pools:
      return modalities, {}
    score = Scores(self.features, self.dtype, name="scores")
    return modalities, {name: score(v.values) for name, v in modalities.items()}

  def _sow_importance(
    self,
    modalities: Mapping[str, Ragged],
    scores: Mapping[str, Array],
    pooled: Sequence[Float[Array, "b d"]],
  ) -> None:
    shares = [
      max_shares(modalities, one)
      for name, one in zip(self.pools, pooled, strict=True)
      if name in ("max", "min")
    ]
    if shares:
      mean = {k: sum(share[k] for share in shares) / len(shares) for k in modalities}
      sow_importance(self, "argmax", mean)
    if "softmax" in self.pools:
      self.sow_attention(segment_softmax(scores, modalities))


def _log_size(size: Int[Array, "*q b"]) -> Float[Array, "*q b 1"]:
  return jnp.log1p(size.astype(jnp.float32))[..., None]
