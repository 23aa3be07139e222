"""Encoders: a modality's elements, each on its own, into the common `d` features.

Nothing here mixes elements, so that padding slots need no mask: what they become is
dropped by the pool. Arguments are plain values; parameters are float32, and `dtype`
is that of the computation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax.ragged import Ragged

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


def _to_common_space(features: int, dtype: Any) -> nn.Dense:
  """The last layer of an encoder.

  Elements start at a length of about 1 in every modality, as embeddings do; at the
  usual scale, one of a standardised number would be `sqrt(d)` long and drown them.
  """
  init = nn.initializers.variance_scaling(1 / features, "fan_in", "normal")
  return nn.Dense(features, dtype=dtype, kernel_init=init)


class DenseEncoder(nn.Module):
  """Vectors `[n, i]` through an MLP and a last dense layer to `[n, d]`.

  Attributes:
    features: `d`.
    hidden, norm, dropout, activation, dtype: As in `MLP`.
  """

  features: int
  hidden: Sequence[int] = ()
  norm: bool = False
  dropout: float = 0.0
  activation: str = "relu"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, elements: Ragged, *, train: bool) -> Ragged:
    mlp = MLP(self.hidden, self.norm, self.dropout, self.activation, self.dtype)
    values = mlp(elements.values, train=train)
    values = _to_common_space(self.features, self.dtype)(values)
    return _ModalityScale()(elements.replace(values=values))


class TokenEncoder(nn.Module):
  """Token ids `[n]` to embeddings `[n, d]`, through an MLP where it has layers.

  An element's weight (TF-IDF, say), where there is one, multiplies its vector, so that
  a sum pool without hidden layers is a weighted bag of words.

  Attributes:
    vocabulary_size: Number of ids.
    features: `d`.
    hidden: Widths of layers after the embedding, before a last dense one; none leaves
      the embedding as it is.
    norm, dropout, activation, dtype: As in `MLP`.
  """

  vocabulary_size: int
  features: int
  hidden: Sequence[int] = ()
  norm: bool = False
  dropout: float = 0.0
  activation: str = "relu"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, elements: Ragged, *, train: bool) -> Ragged:
    embed = nn.Embed(self.vocabulary_size, self.features, dtype=self.dtype)
    values = embed(elements.values)
    if self.hidden:
      mlp = MLP(self.hidden, self.norm, self.dropout, self.activation, self.dtype)
      values = mlp(values, train=train)
      values = _to_common_space(self.features, self.dtype)(values)
    return _ModalityScale()(elements.replace(values=values))


class _ModalityScale(nn.Module):
  """The elements times their weights, which are used up, and a learned factor.

  One factor, 1 at first, for a whole modality: how much it has to say.
  """

  @nn.compact
  def __call__(self, elements: Ragged) -> Ragged:
    factor = self.param("factor", nn.initializers.ones, ())
    values = elements.values
    if elements.weights is not None:
      values = values * elements.weights.astype(values.dtype)[:, None]
    return Ragged(values * factor.astype(values.dtype), elements.offsets)


def l2_normalize(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
  """Each vector over its length; a zero vector stays zero, with gradient zero."""
  squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
  # `where` before the root, whose gradient at 0 is not finite.
  scale = jnp.where(squares > 0, jax.lax.rsqrt(jnp.where(squares > 0, squares, 1.0)), 0)
  return x * scale.astype(x.dtype)
