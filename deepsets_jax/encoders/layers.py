"""Layers that encoders, fusions and heads share.

Arguments are plain values; parameters are float32, and `dtype` is that of the
computation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  "relu": nn.relu,
  "gelu": nn.gelu,
  "tanh": jnp.tanh,
  "silu": nn.silu,
}


def activation(name: str) -> Callable[[Array], Array]:
  """The activation of this name.

  Raises:
    ValueError: No such name; the message lists the legal ones.
  """
  if name not in ACTIVATIONS:
    raise ValueError(f"unknown activation {name!r}; one of {sorted(ACTIVATIONS)}")
  return ACTIVATIONS[name]


class MLP(nn.Module):
  """Hidden layers, each dense, norm, activation, dropout.

  Attributes:
    hidden: Width of each layer.
    norm: Whether a LayerNorm stands before each activation.
    dropout: Rate after each activation, in training.
    activation: A name in `ACTIVATIONS`.
    dtype: Of the computation.
  """

  hidden: Sequence[int] = ()
  norm: bool = False
  dropout: float = 0.0
  activation: str = "relu"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "... i"], *, train: bool) -> Float[Array, "... o"]:
    activate = activation(self.activation)
    x = x.astype(self.dtype)
    for width in self.hidden:
      x = nn.Dense(width, dtype=self.dtype)(x)
      if self.norm:
        x = nn.LayerNorm()(x.astype(jnp.float32)).astype(self.dtype)
      x = activate(x)
      x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return x


def to_common_space(features: int, dtype: Any) -> nn.Dense:
  """The last layer of an encoder.

  Elements start at a length of about 1 in every modality, as embeddings do; at the
  usual scale, one of a standardised number would be `sqrt(d)` long and drown them.
  """
  init = nn.initializers.variance_scaling(1 / features, "fan_in", "normal")
  return nn.Dense(features, dtype=dtype, kernel_init=init)


def l2_normalize(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
  """Each vector over its length; a zero vector stays zero, with gradient zero."""
  squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
  # `where` before the root, whose gradient at 0 is not finite.
  scale = jnp.where(squares > 0, jax.lax.rsqrt(jnp.where(squares > 0, squares, 1.0)), 0)
  return x * scale.astype(x.dtype)
