"""Attention-based MIL pooling: all elements as one bag, weighted by learned scores."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
from jaxtyping import Array, Float

from deepsets_jax.encoders.importance import sow_importance, wants_importance
from deepsets_jax.encoders.layers import Scores
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion.base import Fusion, check_present
from deepsets_jax.ragged import Ragged, pooling
from deepsets_jax.ragged.segments import segment_softmax


class MILFusion(Fusion):
  """The mean element, weighted by the softmax of learned scores over the whole bag.

  Ilse, Tomczak and Welling, "Attention-based Deep Multiple Instance Learning" (2018):
  the weight of an element h is proportional to exp(w tanh(V h)), or with the gate to
  exp(w (tanh(V h) * sigmoid(U h))). The bag holds the elements of all modalities, and
  all modalities share w, V and U. The "softmax" pool of `SetPoolFusion` is the form
  without a gate and with `hidden` = `features`; it can stand beside other pools.

  The weights are sown as "attention", see `Fusion`.

  Attributes:
    hidden: Width of the hidden layer of the scores, L in the paper; at least 1.
    gated: Whether a sigmoid gate multiplies the hidden layer.

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
    scores = {name: score(part.values) for name, part in modalities.items()}
    if wants_importance(self):
      sow_importance(self, "attention", segment_softmax(scores, modalities))
    return pooling.pool("softmax", modalities, scores=scores)
