"""Hierarchical attention: weights of the elements of a modality, then of modalities."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax.encoders.importance import sow_importance
from deepsets_jax.encoders.layers import Scores
from deepsets_jax.fusion.base import Fusion, check_present, modality_codes
from deepsets_jax.ragged import Ragged, pooling
from deepsets_jax.ragged.segments import segment_softmax


class HierarchicalFusion(Fusion):
  """Weighs the elements of each modality, and then the modalities.

  After DM2S2 (Kitada et al., 2022), whose intra-modality residual attention gives the
  importance of elements in a modality, and whose inter-modality residual attention
  gives the importance of modalities. The paper's formulas were not at hand; these are
  our reading. On both levels a tanh layer scores each vector, as in Yang et al.,
  "Hierarchical Attention Networks" (2016), and the softmax of the scores is the
  importance. The mean weighted by importance is added to the plain mean, which is the
  residual, and the sum is halved to keep its length:

    pooled = sum_i (importance_i + 1/n) / 2 * vector_i

  over the `n` elements of a modality, and over the `n` modalities that are there. A
  learned code of its modality is added to each element.

  Both importances are sown in the collection "importance", by modality: "elements"
  `[n]` and "modalities" `[b]`. In an example the importances of a modality's elements
  add up to 1, and so do those of its modalities; padding slots and absent modalities
  have 0.

  Attributes:
    hidden: Width of the hidden layers of both scores; at least 1, or None for half of
      the features.
  """

  hidden: int | None = None

  @nn.compact
  def __call__(
    self, modalities: Mapping[str, Ragged], *, train: bool
  ) -> Float[Array, "b f"]:
    del train
    check_present(modalities)
    codes = modality_codes(self)
    score = Scores(self.hidden, self.dtype, name="element_scores")
    vectors, present, of_elements = {}, {}, {}
    for name in sorted(modalities):
      values = modalities[name].values.astype(self.dtype) + codes[name]
      elements = Ragged(values, modalities[name].offsets)
      of_elements[name] = segment_softmax(score(values), elements)
      vectors[name] = _pool(elements, of_elements[name])
      present[name] = elements.lengths > 0
    sow_importance(self, "elements", of_elements)
    return self._fuse(vectors, present)

  def _fuse(
    self, vectors: Mapping[str, Array], present: Mapping[str, Array]
  ) -> Float[Array, "b d"]:
    """Pools the vectors of the few modalities as `_pool` pools elements."""
    score = Scores(self.hidden, self.dtype, name="modality_scores")
    scores = {
      name: jnp.where(present[name], score(vector), -jnp.inf)
      for name, vector in vectors.items()
    }
    peak = jnp.stack(list(scores.values())).max(axis=0)
    peak = jax.lax.stop_gradient(jnp.where(jnp.isfinite(peak), peak, 0))
    exponentials = {name: jnp.exp(x - peak) for name, x in scores.items()}
    total = sum(exponentials.values())
    total = jnp.where(total > 0, total, 1)
    importance = {name: x / total for name, x in exponentials.items()}
    sow_importance(self, "modalities", importance)
    count = sum(x.astype(jnp.float32) for x in present.values())
    mean = {
      name: x.astype(jnp.float32) / jnp.maximum(count, 1) for name, x in present.items()
    }
    return sum(
      ((importance[name] + mean[name]) / 2)[:, None] * vector
      for name, vector in vectors.items()
    )


def _pool(elements: Ragged, importance: Float[Array, "n"]) -> Float[Array, "b d"]:
  """Half of the mean weighted by importance and half of the plain mean."""
  share = 1 / jnp.maximum(elements.lengths, 1).astype(jnp.float32)
  weights = (importance + elements.to_elements(share)) / 2
  values = elements.values.astype(jnp.float32) * weights[:, None]
  return pooling.pool("sum", elements.replace(values=values))
