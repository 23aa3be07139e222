"""Layers that encoders, fusions and heads share.

Arguments are plain values. Parameters are float32; `dtype` is the type of the
computation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax.foundation.errors import ConfigError

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  "relu": nn.relu,
  "gelu": nn.gelu,
  "tanh": jnp.tanh,
  "silu": nn.silu,
}


def activation(name: str) -> Callable[[Array], Array]:
  """Return the activation function with this name.

  Raises:
    ConfigError: The name is unknown; the message lists the legal ones.
  """
  if name not in ACTIVATIONS:
    raise ConfigError(f"unknown activation {name!r}; one of {sorted(ACTIVATIONS)}")
  return ACTIVATIONS[name]


class MLP(nn.Module):
  """Hidden layers: each is dense, norm, activation, dropout.

  Attributes:
    hidden: Width of each layer.
    norm: Whether a LayerNorm precedes each activation.
    dropout: Dropout rate after each activation, in training.
    activation: A name in `ACTIVATIONS`.
    dtype: Type of the computation.
    first_given: Whether the input is the output of the first dense layer; that layer
      is then only norm, activation and dropout.
  """

  hidden: Sequence[int] = ()
  norm: bool = False
  dropout: float = 0.0
  activation: str = "relu"
  dtype: Any = jnp.float32
  first_given: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, "... i"], *, train: bool) -> Float[Array, "... o"]:
    activate = activation(self.activation)
    x = x.astype(self.dtype)
    for layer, width in enumerate(self.hidden):
      if layer or not self.first_given:
        x = nn.Dense(width, dtype=self.dtype)(x)
      if self.norm:
        x = nn.LayerNorm()(x.astype(jnp.float32)).astype(self.dtype)
      x = activate(x)
      x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return x


class Scores(nn.Module):
  """Score each vector by w tanh(V x); attention weights are the softmax of scores.

  With a gate the score is w (tanh(V x) * sigmoid(U x)), as in Ilse et al.,
  "Attention-based Deep Multiple Instance Learning" (2018). All layers have biases.

  Attributes:
    hidden: Width of the hidden layer; None for half of the vectors' width.
    dtype: Type of the computation; scores are float32.
    gated: Whether there is a gate.
  """

  hidden: int | None = None
  dtype: Any = jnp.float32
  gated: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n"]:
    width = self.hidden or max(x.shape[-1] // 2, 1)
    y = jnp.tanh(nn.Dense(width, dtype=self.dtype, name="hidden")(x))
    if self.gated:
      y *= nn.sigmoid(nn.Dense(width, dtype=self.dtype, name="gate")(x))
    y = nn.Dense(1, dtype=self.dtype, name="score")(y)
    return y[:, 0].astype(jnp.float32)


def to_common_space(features: int, dtype: Any) -> nn.Dense:
  """Build the last layer of an encoder.

  Elements start at a length of about 1 in every modality, as embeddings do. With the
  usual initialization the element of a standardised number would have length `sqrt(d)`
  and drown the others.
  """
  init = nn.initializers.variance_scaling(1 / features, "fan_in", "normal")
  return nn.Dense(features, dtype=dtype, kernel_init=init)


def l2_normalize(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
  """Divide each vector by its length; a zero vector stays zero, with gradient zero."""
  squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
  # `where` comes before the root, whose gradient at 0 is not finite.
  scale = jnp.where(squares > 0, jax.lax.rsqrt(jnp.where(squares > 0, squares, 1.0)), 0)
  return x * scale.astype(x.dtype)
