"""Deep sets after torchmultimodal: vectors are scaled, weighted and pooled.

These are the steps of torchmultimodal's deepset fusion (facebookresearch/multimodal)
for sets of any size, and for stacks of `m` vectors per example, some of them absent.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from deepsets_jax.encoders.importance import sow_importance
from deepsets_jax.encoders.layers import Scores
from deepsets_jax.encoders.transformer import head_width
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged, from_vectors, pooling
from deepsets_jax.ragged.segments import segment_softmax


class Pooling(nn.Module):
  """Pool the elements of each example to one vector; zeros for an empty example.

  Attributes:
    pool: A name in `pooling.POOLS` or `pooling.WHOLE_SET_POOLS`; "softmax" learns its
      scores.
    dtype: Type of the computation of scores.
  """

  pool: str
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, elements: Ragged) -> Float[Array, "b d"]:
    scores = None
    if self.pool == "softmax":
      scores = Scores(dtype=self.dtype, name="scores")(elements.values)
    return pooling.pool(self.pool, elements, scores=scores)


class PostNormTransformer(nn.Module):
  """Post-norm transformer layers over a few vectors per example, without positions.

  The layers are those of `torch.nn.TransformerEncoderLayer` with its defaults: ReLU,
  and the norm after each residual. A LayerNorm follows the last layer. Absent vectors
  are not attended to. The attention is dense, for a few modalities; use
  `transformer.Transformer` for sets of many elements.

  Attributes:
    heads: Number of heads; must divide the width.
    layers: Number of layers.
    ffn: Width of the hidden layer.
    dropout: Rate on attention weights, hidden units and residuals.
    dtype: Type of the computation; softmax and norms are in float32.
  """

  heads: int = 8
  layers: int = 1
  ffn: int = 2048
  dropout: float = 0.1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b m d"], present: Bool[Array, "b m"], *, train: bool
  ) -> Float[Array, "b m d"]:
    for layer in range(self.layers):
      x = self._layer(x, present, train, f"layer_{layer}")
    return self._norm("norm")(x)

  def _layer(self, x: Array, present: Array, train: bool, name: str) -> Array:
    drop = nn.Dropout(self.dropout, deterministic=not train)
    y = drop(self._attend(x, present, drop, f"{name}_attention"))
    x = self._norm(f"{name}_attention_norm")(x + y)
    y = nn.relu(nn.Dense(self.ffn, dtype=self.dtype, name=f"{name}_hidden")(x))
    y = nn.Dense(x.shape[-1], dtype=self.dtype, name=f"{name}_out")(drop(y))
    return self._norm(f"{name}_out_norm")(x + drop(y.astype(jnp.float32)))

  def _attend(self, x: Array, present: Array, drop: nn.Dropout, name: str) -> Array:
    d = x.shape[-1]
    heads = (self.heads, head_width(d, self.heads, "/".join(self.path)))
    query, key, value = (
      nn.DenseGeneral(heads, dtype=self.dtype, name=f"{name}_{part}")(x)
      for part in ("query", "key", "value")
    )
    scores = jnp.einsum(
      "bqhk,bmhk->bhqm", query, key, preferred_element_type=jnp.float32
    )
    scores = scores / math.sqrt(heads[1])
    weights = jax.nn.softmax(scores, where=present[:, None, None, :])
    weights = drop(weights).astype(self.dtype)
    y = jnp.einsum("bhqm,bmhk->bqhk", weights, value)
    y = nn.DenseGeneral(d, axis=(-2, -1), dtype=self.dtype, name=f"{name}_out")(y)
    return y.astype(jnp.float32)

  def _norm(self, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name)


class Deepset(nn.Module):
  """Scale, weight and pool elements of one width.

  Attributes:
    pool: As in `Pooling`.
    apply_attention: Whether each element is multiplied by a learned weight, the softmax
      of `Scores` over the example's elements. The weights `[n]` are sown in the
      collection "importance" as "weights".
    attention_dim: Hidden width of the scores; None for half of the elements' width.
    modality_normalize: Whether each feature is scaled to length 1 over an example's
      elements; otherwise each element is scaled to length 1.
    norm_factor: p of the p-norm that measures a length, at least 1.
    transformer: Applied before pooling; None for none.
    parity: Whether to compute as torchmultimodal does. Weights come before the scaling,
      which along features cancels them, so that the attention has no effect; and with a
      transformer, its output for the first element replaces the pool.
    dtype: Type of the computation of scores.
  """

  pool: str = "mean"
  apply_attention: bool = False
  attention_dim: int | None = None
  modality_normalize: bool = False
  norm_factor: float = 2.0
  transformer: nn.Module | None = None
  parity: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, elements: Ragged, present: Bool[Array, "b m"] | None = None, *, train: bool
  ) -> Float[Array, "b d"]:
    """Return the vector of each example.

    Args:
      elements: Vectors `[n, d]`.
      present: If given, every example has `m` elements, and those not present, which
        are zeros, are ignored. The transformer needs it.
      train: Whether dropout is on, which needs a "dropout" key.
    """
    if self.norm_factor < 1:
      raise ConfigError(f"norm_factor is {self.norm_factor}; it must be at least 1")
    some = elements.mask if present is None else present.reshape(-1)
    elements = elements.replace(values=elements.values.astype(jnp.float32))
    if self.parity:
      elements = self._scale(self._weigh(elements, some))
    else:
      elements = self._weigh(self._scale(elements), some)
    if self.transformer is not None:
      elements = self._transform(elements, present, train)
    if self.transformer is not None and self.parity:
      return elements.values[:: present.shape[1]]
    pooled = elements if present is None else _only(elements, some)
    return Pooling(self.pool, self.dtype, name="pooling")(pooled)

  def _weigh(self, elements: Ragged, some: Bool[Array, "n"]) -> Ragged:
    if not self.apply_attention:
      return elements
    scores = Scores(self.attention_dim, self.dtype, name="attention")(elements.values)
    weights = segment_softmax(jnp.where(some, scores, -jnp.inf), elements)
    sow_importance(self, "weights", weights)
    return elements.replace(values=elements.values * weights[:, None])

  def _scale(self, elements: Ragged) -> Ragged:
    along = elements if self.modality_normalize else None
    scaled = p_normalize(elements.values, self.norm_factor, along)
    return elements.replace(values=scaled)

  def _transform(self, elements: Ragged, present: Array | None, train: bool) -> Ragged:
    if present is None:
      raise ConfigError(
        "this transformer needs sets of one size; for sets of any size, use the"
        " transformer of a SequenceEncoder"
      )
    x = elements.values
    stacked = x.reshape(*present.shape, x.shape[-1])
    stacked = self.transformer(stacked, present, train=train)
    return elements.replace(values=stacked.reshape(x.shape))


def p_normalize(
  x: Float[Array, "n d"], p: float, along: Ragged | None = None
) -> Float[Array, "n d"]:
  """Divide by the p-norm of each vector, or of each feature over an example.

  A norm below 1e-12 is replaced by 1e-12, as in `torch.nn.functional.normalize`. Zeros
  stay zeros, with gradient zero.

  Args:
    x: Vectors, in the slots of `along` if that is given.
    p: At least 1; may be infinite.
    along: If given, norms are of each feature over the elements of an example; its own
      values are not read.
  """
  pool = "max" if math.isinf(p) else "sum"
  sizes = jnp.abs(x) if math.isinf(p) else jnp.abs(x) ** p
  if along is None:
    total = getattr(jnp, pool)(sizes, axis=-1, keepdims=True)
  else:
    total = along.to_elements(pooling.pool(pool, along.replace(values=sizes)))
  some = total != 0  # True for NaN, which must stay NaN.
  # `where` comes before the root, whose gradient at 0 is not finite.
  total = jnp.where(some, total, 1.0)
  norm = total if math.isinf(p) else total ** (1 / p)
  return jnp.where(some, x / jnp.maximum(norm, 1e-12), 0)


def _only(elements: Ragged, some: Bool[Array, "n"]) -> Ragged:
  """Move the elements that are present together; the rest is padding."""
  moved = from_vectors(elements.values, some)
  return Ragged(moved.values, moved.offsets[elements.offsets])
