"""torchmultimodal's encoders: bags of instances, of ids, and of weighted ids.

Each gives one element per bag. Given a `Ragged`, a bag may be of any size, padding is
not pooled, and an empty bag gives no element. Given a dense array, as the originals
(facebookresearch/multimodal), all of its places are pooled, with their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from deepsets_jax.encoders.channels import ChannelDeepset
from deepsets_jax.encoders.deepset import Deepset, Pooling
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged, from_vectors

_EMBEDDING_POOLS = ("max", "mean", "sum")


class MILEncoder(nn.Module):
  """Instances encoded alike, and each bag of them fused by a deepset.

  Attributes:
    encoder: Of instances: `Ragged` to `Ragged` with `features` features. Of bags of any
      size, a `SequenceEncoder` here is the original's transformer pooling, mended.
    features: Of an encoded instance.
    deepset: Fuses a bag; with `parity`, as the original does.
    mlp: From the fused vector to the result, as `MLP`; None for the vector itself.
    partition_sizes: Of dense input: how many entries along axis 1 make each instance.
    auto_mapping: Of dense input: a dense layer for each place in the bag, so that order
      matters.
  """

  encoder: nn.Module
  features: int
  deepset: Deepset
  mlp: nn.Module | None = None
  partition_sizes: Sequence[int] | None = None
  auto_mapping: bool = False

  @nn.compact
  def __call__(
    self, bags: Ragged | Float[Array, "b n ..."], *, train: bool
  ) -> Ragged | Float[Array, "b f"]:
    """The vector of each bag.

    Args:
      bags: A `Ragged` of instances, or an array: of `[b, n]` each run of
        `partition_sizes` is one instance, of `[b, n, i]` a bag of vectors, which the
        encoder must bring to one.
      train: Whether dropout is on, which needs a "dropout" key.

    Raises:
      ConfigError: An array's axis 1 is not the sum of `partition_sizes`, the encoder
        does not give one vector per instance, or `auto_mapping` of bags of any size.
    """
    if not isinstance(bags, Ragged):
      return self._dense(bags, train)
    if self.auto_mapping:
      raise ConfigError("auto_mapping has a layer for each place; a set has no places")
    encoded = self.encoder(bags, train=train)
    fused = self._result(self.deepset(encoded, train=train), train)
    return from_vectors(fused, encoded.lengths > 0)

  def _result(self, fused: Float[Array, "b d"], train: bool) -> Float[Array, "b f"]:
    return fused if self.mlp is None else self.mlp(fused, train=train)

  def _dense(self, x: Float[Array, "b n ..."], train: bool) -> Float[Array, "b f"]:
    sizes = self.partition_sizes
    if sizes is None or sum(sizes) != x.shape[1]:
      raise ConfigError(
        f"partition_sizes {sizes} must add up to axis 1 of the input, {x.shape[1]}"
      )
    b, begin, vectors = len(x), 0, {}
    for index, size in enumerate(sizes):
      part, begin = x[:, begin : begin + size], begin + size
      # One vector each, or a bag of `size` vectors.
      count = 1 if x.ndim == 2 else size
      part = part.reshape(b * count, *(part.shape[1:] if x.ndim == 2 else x.shape[2:]))
      offsets = jnp.arange(b + 1, dtype=jnp.int32) * count
      values = self.encoder(Ragged(part, offsets), train=train).values
      if values.shape != (b, self.features):
        raise ConfigError(
          f"the encoder gave {values.shape} for partition {index}, expected"
          f" {(b, self.features)}: one vector per instance"
        )
      vectors[f"mil_{index}"] = values
    widths = dict.fromkeys(vectors, self.features)
    fusion = ChannelDeepset(widths, self.deepset, self.auto_mapping, name="fusion")
    return self._result(fusion(vectors, train=train), train)


class EmbeddingEncoder(nn.Module):
  """A bag of ids to the sum, mean or maximum of their embeddings.

  Attributes:
    vocabulary_size: Number of ids.
    features: `d`.
    pool: "sum", "mean" or "max".
    pooling_dim: Of dense input: the axis to pool, of the ids' with `d` after them.
    use_hash: Whether ids of any size are taken, modulo the vocabulary without id 0.
    dtype: Of the embeddings.
  """

  vocabulary_size: int
  features: int
  pool: str = "mean"
  pooling_dim: int = 1
  use_hash: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, ids: Ragged | Int[Array, "b ..."], *, train: bool
  ) -> Ragged | Float[Array, "b ..."]:
    """The pooled embeddings: of a `Ragged` of ids `[n]`, or of an array of them."""
    del train
    if self.pool not in _EMBEDDING_POOLS:
      raise ConfigError(f"unknown pool {self.pool!r}; one of {list(_EMBEDDING_POOLS)}")
    embed = nn.Embed(self.vocabulary_size, self.features, self.dtype, name="embedding")
    pooler = Pooling(self.pool)
    if isinstance(ids, Ragged):
      values = embed(self._hash(ids.values))
      pooled = pooler(Ragged(values, ids.offsets))
      return from_vectors(pooled, ids.lengths > 0)
    return _pool_axis(pooler, embed(self._hash(ids)), self.pooling_dim)

  def _hash(self, ids: Array) -> Array:
    return ids % (self.vocabulary_size - 1) + 1 if self.use_hash else ids


class WeightedEmbeddingEncoder(nn.Module):
  """A bag of weighted ids to the pool of their embeddings times the weights.

  Attributes:
    vocabulary_size: Number of ids.
    features: `d`.
    pool: As in `channels.Pooling`.
    pooling_dim: Of dense input: the axis to pool, of `[b, vocabulary_size, d]`.
    dtype: Of the embeddings.
  """

  vocabulary_size: int
  features: int
  pool: str = "sum"
  pooling_dim: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, ids: Ragged | Float[Array, "b v"], *, train: bool
  ) -> Ragged | Float[Array, "b ..."]:
    """The pooled vectors.

    Args:
      ids: A `Ragged` of ids `[n]` with weights, only these being pooled; or an array of
        the weights of all ids, which are all pooled, those of weight 0 too.
      train: Not used.

    Raises:
      ConfigError: A `Ragged` without weights, or an array of another width.
    """
    del train
    embed = nn.Embed(self.vocabulary_size, self.features, self.dtype, name="embedding")
    pooler = Pooling(self.pool)
    if isinstance(ids, Ragged):
      if ids.weights is None:
        raise ConfigError("ids without weights: EmbeddingEncoder takes these")
      values = embed(ids.values) * ids.weights.astype(self.dtype)[:, None]
      pooled = pooler(Ragged(values, ids.offsets))
      return from_vectors(pooled, ids.lengths > 0)
    if ids.shape[1:] != (self.vocabulary_size,):
      raise ConfigError(
        f"weights of shape {ids.shape}, expected one for each of"
        f" {self.vocabulary_size} ids"
      )
    table = embed(jnp.arange(self.vocabulary_size, dtype=jnp.int32))
    values = table[None] * ids.astype(self.dtype)[..., None]
    return _pool_axis(pooler, values, self.pooling_dim)


def _pool_axis(pooler: Pooling, x: Float[Array, "..."], axis: int) -> Array:
  """One axis of a dense array pooled, as one set whose elements have all other axes."""
  first = jnp.moveaxis(x, axis, 0)
  flat = first.reshape(len(first), -1)
  whole = Ragged(flat, jnp.array([0, len(first)], jnp.int32))
  return pooler(whole).reshape(first.shape[1:])
