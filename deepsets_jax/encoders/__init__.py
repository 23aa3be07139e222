"""Encoders: `Ragged` to `Ragged` with the common `d` features."""

from deepsets_jax.encoders.elements import DenseEncoder, TokenEncoder
from deepsets_jax.encoders.layers import MLP, activation, l2_normalize

__all__ = ["MLP", "DenseEncoder", "TokenEncoder", "activation", "l2_normalize"]
