"""The set pool: all elements of all modalities, pooled as one unordered set."""

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
  """The partial state of some modalities.

  Attributes:
    size: Number of elements of each example.
    pools: The state of each pool.
  """

  size: Int[Array, "*q b"]
  pools: tuple[Any, ...]


class SetPoolFusion(Fusion):
  """Pools all elements of all modalities as one unordered set.

  Reiter et al., "Deep Multi-Modal Sets" (2020): sum, max or min over the encoded
  elements, whatever their modality and number. Absent modalities take no part; a set
  without elements pools to zeros.

  With "max" or "min" among the pools, the share of their features that each element has
  won is sown in the collection "importance" as "argmax", `[n]` by modality, see
  `max_shares`. If elements are scaled to length 1, the scaled ones are compared. The
  weights of "softmax" are sown as "attention", see `Fusion`.

  Attributes:
    pools: Names in `pooling.POOLS`; their results stand side by side, each `d` wide.
      "softmax" learns its scores from the elements by a tanh layer that all modalities
      share: attention pooling as in Ilse et al. (2018).
    normalize: Whether each element is scaled to length 1 first.
    use_size: Whether log(1 + number of elements) is one more feature of the result.
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
      pooling.pool(pooling.get(name), modalities, scores=scores.get(name))
      for name in self.pools
    ]
    if wants_importance(self):
      self._sow_importance(modalities, scores, features)
    if self.use_size:
      size = sum(v.lengths for v in modalities.values())
      features.append(_log_size(size))
    return jnp.concatenate(features, axis=-1)

  def lift(self, modalities: Mapping[str, Ragged]) -> dict[str, _State]:
    """Returns the partial state of each modality; leaves are `[b, ...]`."""
    modalities, scores = self._prepare(modalities)
    return {
      name: _State(
        part.lengths,
        tuple(
          pooling.get(pool).lift(part, scores.get(pool, {}).get(name))
          for pool in self.pools
        ),
      )
      for name, part in modalities.items()
    }

  def merge(self, a: _State, b: _State) -> _State:
    """Returns the state of the union of two disjoint sets of elements."""
    pools = zip(self.pools, a.pools, b.pools, strict=True)
    merged = tuple(pooling.get(name).merge(x, y) for name, x, y in pools)
    return _State(a.size + b.size, merged)

  def finish(self, state: _State) -> Float[Array, "*q b f"]:
    """Returns the fused vectors of states, which may have more leading axes."""
    pools = zip(self.pools, state.pools, strict=True)
    features = [pooling.get(name).finish(one) for name, one in pools]
    if self.use_size:
      features.append(_log_size(state.size))
    return jnp.concatenate(features, axis=-1)

  @nn.compact
  def _prepare(
    self, modalities: Mapping[str, Ragged]
  ) -> tuple[Mapping[str, Ragged], dict[str, dict[str, Float[Array, "n"]]]]:
    """The elements to pool, and scores by the pool that needs them and modality."""
    if self.normalize:
      modalities = {
        k: v.replace(values=l2_normalize(v.values)) for k, v in modalities.items()
      }
    if "softmax" not in self.pools:
      return modalities, {}
    score = Scores(self.features, self.dtype, name="scores")
    scores = {name: score(v.values) for name, v in modalities.items()}
    return modalities, {"softmax": scores}

  def _sow_importance(
    self,
    modalities: Mapping[str, Ragged],
    scores: Mapping[str, Mapping[str, Array]],
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
    for of_elements in scores.values():
      sow_importance(self, "attention", segment_softmax(of_elements, modalities))


def _log_size(size: Int[Array, "*q b"]) -> Float[Array, "*q b 1"]:
  return jnp.log1p(size.astype(jnp.float32))[..., None]
