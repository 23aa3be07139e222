"""Attention-based MIL pooling: all elements as one bag, weighted by learned scores."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
from jaxtyping import Array, Float

from deepsets_jax.encoders.importance import wants_importance
from deepsets_jax.encoders.layers import Scores
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion.base import Fusion, check_present
from deepsets_jax.ragged import Ragged, pooling
from deepsets_jax.ragged.segments import segment_softmax


class MILFusion(Fusion):
  """The mean element, weighted by the softmax of learned scores over the whole bag.

  Ilse, Tomczak and Welling, "Attention-based Deep Multiple Instance Learning" (2018):
  the weight of element h is in proportion to exp(w tanh(V h)), or with the gate to
  exp(w (tanh(V h) * sigmoid(U h))). The bag is of all modalities' elements; w, V and U
  are the same for all. The "softmax" of `SetPoolFusion` is the plain form with
  `hidden` = `features`, to stand beside other pools.

  The weights are the attention that is sown, see `Fusion`.

  Attributes:
    hidden: Width of the scores' hidden layer, the paper's L.
    gated: Whether the hidden layer is multiplied by a sigmoid gate.

  Raises:
    ConfigError: `hidden` is not positive.
  """

  hidden: int = 128
  gated: bool = False

  @nn.compact
  def __call__(
    self, modalities: Mapping[str, Ragged], *, train: bool
  ) -> Float[Array, "b f"]:
    del train
    check_present(modalities)
    if self.hidden < 1:
      raise ConfigError(f"mil: hidden is {self.hidden}; expected at least 1")
    score = Scores(self.hidden, self.dtype, self.gated, name="scores")
    scores = {name: score(ragged.values) for name, ragged in modalities.items()}
    if wants_importance(self):
      self.sow_attention(segment_softmax(scores, modalities))
    return pooling.pool("softmax", modalities, scores=scores)
