"""Encoders of single elements: from a vector or a token id to `d` features.

They do not mix elements. Therefore padding slots need no mask: pools ignore them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from deepsets_jax.encoders.layers import MLP, activation, to_common_space
from deepsets_jax.ragged import Ragged


class DenseEncoder(nn.Module):
  """Encode vectors `[n, i]` by an MLP and a last dense layer to `[n, d]`.

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
    values = to_common_space(self.features, self.dtype)(values)
    return _ModalityScale()(elements.replace(values=values))


class TokenEncoder(nn.Module):
  """Encode token ids `[n]` by embeddings, and an MLP if it has layers, to `[n, d]`.

  If elements have weights, such as TF-IDF, each multiplies its element's vector. A sum
  pool without hidden layers is then a weighted bag of words.

  Attributes:
    vocabulary_size: Number of ids.
    features: `d`.
    hidden: Widths of layers between the embedding and a last dense layer. Without
      hidden layers the embedding is the result.
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
      values = to_common_space(self.features, self.dtype)(values)
    return _ModalityScale()(elements.replace(values=values))


class FieldEncoder(nn.Module):
  """Encode cells of a table to `[n, d]`: token ids `[n]`, with values as weights.

  The first layer is the vector of the column plus the value times the vector of the id,
  then the activation. Each feature of a number thus bends at a different value. The
  value of a category is 1, so that it has an embedding. Later layers are shared, so
  that the number of parameter arrays does not depend on the number of columns.

  Attributes:
    groups: Number of ids of each column, as in `schema.Modality`.
    features: `d`.
    hidden: Widths of hidden layers before a last dense layer, including that of the
      first layer. Without hidden layers the first layer is the result, without norm and
      dropout.
    norm, dropout, activation, dtype: As in `MLP`.
  """

  groups: Sequence[int]
  features: int
  hidden: Sequence[int] = ()
  norm: bool = False
  dropout: float = 0.0
  activation: str = "relu"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, elements: Ragged, *, train: bool) -> Ragged:
    width = self.hidden[0] if self.hidden else self.features
    # Hidden features start with a variance of 2, of which relu leaves a mean square of
    # 1. Features of the result start at a length of about 1, as in `to_common_space`.
    init = nn.initializers.normal(1.0 if self.hidden else width**-0.5)
    embed = functools.partial(
      nn.Embed, features=width, dtype=self.dtype, embedding_init=init
    )
    of_id = np.repeat(np.arange(len(self.groups), dtype=np.int32), self.groups)
    columns = embed(len(self.groups), name="columns")(
      jnp.asarray(of_id)[elements.values]
    )
    slopes = embed(len(of_id), name="ids")(elements.values)
    values = columns + slopes * elements.weights.astype(self.dtype)[:, None]
    if self.hidden:
      mlp = MLP(
        self.hidden,
        self.norm,
        self.dropout,
        self.activation,
        self.dtype,
        first_given=True,
      )
      values = to_common_space(self.features, self.dtype)(mlp(values, train=train))
    else:
      values = activation(self.activation)(values)
    return _ModalityScale()(elements.replace(values=values, weights=None))


class Scaled(nn.Module):
  """Multiply vectors that have `d` features already by a factor of their modality.

  Attributes:
    dtype: Type of the result.
  """

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, elements: Ragged, *, train: bool) -> Ragged:
    del train
    values = elements.values.astype(self.dtype)
    return _ModalityScale()(elements.replace(values=values))


class _ModalityScale(nn.Module):
  """Multiply elements by their weights, which are dropped, and by a learned factor.

  One factor, 1 at first, sets the importance of a whole modality.
  """

  @nn.compact
  def __call__(self, elements: Ragged) -> Ragged:
    factor = self.param("factor", nn.initializers.ones, (), jnp.float32)
    values = elements.values
    if elements.weights is not None:
      values = values * elements.weights.astype(values.dtype)[:, None]
    return Ragged(values * factor.astype(values.dtype), elements.offsets)
