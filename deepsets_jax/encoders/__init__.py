"""Encoders: modules from a `Ragged` of inputs to a `Ragged` of `d` features."""

from collections.abc import Mapping

import flax.linen as nn

from deepsets_jax.encoders.elements import (
  DenseEncoder,
  FieldEncoder,
  Scaled,
  TokenEncoder,
)
from deepsets_jax.encoders.layers import MLP, activation, l2_normalize
from deepsets_jax.encoders.sequence import SequenceEncoder
from deepsets_jax.encoders.torchmultimodal import (
  EmbeddingEncoder,
  MILEncoder,
  WeightedEmbeddingEncoder,
)

# The encoders of single elements, by their name in `config.model.encoders`.
ENCODERS: Mapping[str, type[nn.Module]] = {
  "dense": DenseEncoder,
  "fields": FieldEncoder,
  "scaled": Scaled,
  "token": TokenEncoder,
}

__all__ = [
  "ENCODERS",
  "MLP",
  "DenseEncoder",
  "EmbeddingEncoder",
  "FieldEncoder",
  "MILEncoder",
  "Scaled",
  "SequenceEncoder",
  "TokenEncoder",
  "WeightedEmbeddingEncoder",
  "activation",
  "l2_normalize",
]
