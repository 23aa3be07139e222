"""Encoders: modules from a `Ragged` of inputs to a `Ragged` of `d` features."""

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

__all__ = [
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
