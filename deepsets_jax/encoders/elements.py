"""Encoders of single elements: a vector or a token id into the common `d` features.

Nothing here mixes elements, so that padding slots need no mask: what they become is
dropped by the pool.
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
    values = to_common_space(self.features, self.dtype)(values)
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
      values = to_common_space(self.features, self.dtype)(values)
    return _ModalityScale()(elements.replace(values=values))


class FieldEncoder(nn.Module):
  """Cells of a table to `[n, d]`: token ids `[n]` of its columns, values as weights.

  The first layer is a vector of the column plus the value times a vector of the id, and
  the activation, so that each feature of a number bends at another value. The value of
  a category is 1, so that its vector is an embedding. The layers after the first one
  are shared, so that there are as many arrays of parameters for any number of columns.

  Attributes:
    groups: Number of ids of each column, as in `schema.Modality`.
    features: `d`.
    hidden: Widths of hidden layers before a last dense one, that of the first layer
      included; none makes the first layer the result, without norm and dropout.
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
    # Features start with a variance of 2, of which relu leaves a mean square of 1; as a
    # result they have a length of about 1, as in `to_common_space`.
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
  """Vectors that are in the common space already, times the factor of their modality.

  Attributes:
    dtype: Of the result.
  """

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, elements: Ragged, *, train: bool) -> Ragged:
    del train
    values = elements.values.astype(self.dtype)
    return _ModalityScale()(elements.replace(values=values))


class _ModalityScale(nn.Module):
  """The elements times their weights, which are used up, and a learned factor.

  One factor, 1 at first, for a whole modality: how much it has to say.
  """

  @nn.compact
  def __call__(self, elements: Ragged) -> Ragged:
    factor = self.param("factor", nn.initializers.ones, (), jnp.float32)
    values = elements.values
    if elements.weights is not None:
      values = values * elements.weights.astype(values.dtype)[:, None]
    return Ragged(values * factor.astype(values.dtype), elements.offsets)
