"""Transformer blocks that mix the elements of each segment of a flat array.

The blocks are pre-norm (Xiong et al., 2020). Without positions they treat a segment as
a set. The values of padding slots are arbitrary, and are never read.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax.encoders.importance import sow_attended
from deepsets_jax.encoders.layers import activation, to_common_space
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged, attention


class MultiHeadAttention(nn.Module):
  """Attention of each query over the keys of its own segment (Vaswani et al., 2017).

  It reports its queries and keys, see `encoders.importance`.

  Attributes:
    features: `d` of queries, keys and results.
    heads: Number of heads; must divide `d`.
    dtype: Type of the computation; the softmax is float32.
  """

  features: int
  heads: int = 4
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    queries: Float[Array, "n d"],
    keys: Float[Array, "m d"],
    plan: attention.Plan,
    positions: Float[Array, "n"] | None = None,
  ) -> Float[Array, "n d"]:
    """Return the attended values.

    Args:
      queries, keys: Vectors, in the slots of the plan.
      plan: The plan of the batch.
      positions: Rotary positions of queries and keys, for self-attention; None for
        none.

    Raises:
      ConfigError: The heads do not divide the width, or have an odd width although
        `positions` are given.
    """
    width = head_width(self.features, self.heads, "/".join(self.path))
    names = ("query", "key", "value")
    project = {
      name: nn.DenseGeneral((self.heads, width), dtype=self.dtype, name=name)
      for name in names
    }
    q = project["query"](queries)
    k, v = project["key"](keys), project["value"](keys)
    if positions is not None:
      q, k = rotate(q, positions), rotate(k, positions)
    flops = attention.uncounted_flops(plan, self.heads, width, width)
    self.sow("cost", "attention_flops", flops)
    sow_attended(self, q, k, plan)
    attended = attention.attend(q, k, v, plan).reshape(-1, self.features)
    return to_common_space(self.features, self.dtype)(attended)


def head_width(features: int, heads: int, owner: str) -> int:
  """Return the number of features of a head.

  Raises:
    ConfigError: The heads do not divide the width; the message names the owner.
  """
  if heads < 1 or features % heads:
    legal = [h for h in range(1, features + 1) if features % h == 0]
    raise ConfigError(
      f"{owner}: {heads} heads do not divide the width {features}; one of {legal}"
    )
  return features // heads


def rotate(
  x: Float[Array, "n h k"], positions: Float[Array, "n"]
) -> Float[Array, "n h k"]:
  """Rotate pairs of features by position: rotary embedding (Su et al., 2021).

  Raises:
    ConfigError: The number of features is odd.
  """
  half, odd = divmod(x.shape[-1], 2)
  if odd:
    raise ConfigError(
      f"rotary positions turn pairs of features, and a head has {x.shape[-1]}; choose"
      " heads of even width"
    )
  frequencies = 10_000 ** (-jnp.arange(half, dtype=jnp.float32) / half)
  angles = positions.astype(jnp.float32)[:, None, None] * frequencies[None, None]
  cos, sin = jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype)
  a, z = x[..., :half], x[..., half:]
  return jnp.concatenate([a * cos - z * sin, a * sin + z * cos], axis=-1)


def layer_norm(
  x: Array, dtype: Any, name: str | None = None, scale: float = 1
) -> Array:
  """Apply a LayerNorm in float32, for any input type; call it in a compact module."""
  norm = nn.LayerNorm(
    use_fast_variance=False,  # The difference of two squares loses digits.
    scale_init=nn.initializers.constant(scale),
    name=name,
  )
  return norm(x.astype(jnp.float32)).astype(dtype)


class FeedForward(nn.Module):
  """A feed-forward layer with one hidden layer, applied to each element.

  Attributes:
    features: `d`.
    hidden: Width of the hidden layer; None for `4 d`.
    dropout: Rate after the hidden layer.
    activation: A name in `layers.ACTIVATIONS`.
    dtype: Type of the computation.
  """

  features: int
  hidden: int | None = None
  dropout: float = 0.0
  activation: str = "gelu"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "n d"], *, train: bool) -> Float[Array, "n d"]:
    x = nn.Dense(self.hidden or 4 * self.features, dtype=self.dtype)(x)
    x = activation(self.activation)(x)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return to_common_space(self.features, self.dtype)(x)


class TransformerBlock(nn.Module):
  """A pre-norm block: attention and a feed-forward layer, each with a residual.

  Attributes:
    features, heads, dtype: As in `MultiHeadAttention`.
    hidden: Width of the hidden layer of the feed-forward layer; None for `4 d`.
    dropout: Rate on both residual branches, and inside the feed-forward layer.
  """

  features: int
  heads: int = 4
  hidden: int | None = None
  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    values: Float[Array, "n d"],
    plan: attention.Plan,
    positions: Float[Array, "n"] | None = None,
    train: bool = False,
  ) -> Float[Array, "n d"]:
    drop = nn.Dropout(self.dropout, deterministic=not train)
    normed = layer_norm(values, self.dtype)
    attend = MultiHeadAttention(self.features, self.heads, self.dtype)
    values = values + drop(attend(normed, normed, plan, positions))
    feed = FeedForward(self.features, self.hidden, self.dropout, dtype=self.dtype)
    return values + drop(feed(layer_norm(values, self.dtype), train=train))


class Transformer(nn.Module):
  """A stack of blocks over the elements of each example, and a last LayerNorm.

  Attributes:
    features, heads, hidden, dropout, dtype: As in `TransformerBlock`.
    layers: Number of blocks.
    remat: Whether the backward pass recomputes each block instead of keeping its inner
      values: less memory, more time.
    longest: Bound on the elements of an example, if known; fewer kinds of tiles are
      then compiled.
  """

  features: int
  layers: int = 1
  heads: int = 4
  hidden: int | None = None
  dropout: float = 0.0
  remat: bool = False
  dtype: Any = jnp.float32
  longest: int | None = None

  @nn.compact
  def __call__(
    self,
    elements: Ragged,
    *,
    positions: Float[Array, "n"] | None = None,
    train: bool,
  ) -> Ragged:
    """Return the transformed elements; `positions` are rotary positions."""
    offsets, longest = elements.offsets, self.longest or elements.num_slots
    plan = attention.plan(offsets, offsets, longest, longest)
    block = nn.remat(TransformerBlock, static_argnums=(4,)) if self.remat else None
    values = elements.values.astype(self.dtype)
    for index in range(self.layers):
      values = (block or TransformerBlock)(
        self.features,
        self.heads,
        self.hidden,
        self.dropout,
        self.dtype,
        name=f"block_{index}",
      )(values, plan, positions, train)
    # The output has a length of about 1, as the input.
    values = layer_norm(values, self.dtype, "norm", scale=self.features**-0.5)
    return elements.replace(values=values)


def sinusoids(positions: Float[Array, "n"], features: int) -> Float[Array, "n d"]:
  """Return sines and cosines of positions, of length 1 (after Vaswani et al., 2017).

  Wavelengths run from 2 pi to 20,000 pi, in the unit of the positions.
  """
  half = (features + 1) // 2
  frequencies = 10_000 ** (-jnp.arange(half, dtype=jnp.float32) / half)
  angles = positions.astype(jnp.float32)[:, None] * frequencies[None]
  waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
  return waves[:, :features] * jax.lax.rsqrt(jnp.float32(half))
