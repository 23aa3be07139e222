"""The encoders of torchmultimodal: bags of instances, of ids, and of weighted ids.

Each encodes a bag to one element. In a `Ragged`, bags may have any size, padding is not
pooled, and an empty bag gives no element. A dense array is pooled over all of its
entries, with the numbers of the originals (facebookresearch/multimodal).
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
  """Encode each instance, and fuse each bag of instances by a deep set.

  Attributes:
    encoder: Encoder of instances, `Ragged` to `Ragged` with `features` features. For
      bags of any size, a `SequenceEncoder` corrects the transformer pooling of the
      original.
    features: Width of an encoded instance.
    deepset: Fuses a bag; set its `parity` to compute as the original.
    mlp: Applied to the fused vector, as `MLP`; None for the fused vector itself.
    partition_sizes: For dense input: the number of entries along axis 1 of each
      instance.
    auto_mapping: For dense input: a dense layer for each position in the bag, so that
      order matters.
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
    """Return the vector of each bag.

    Args:
      bags: A `Ragged` of instances, or an array. In an array `[b, n]` each run of
        `partition_sizes` entries is one instance. In an array `[b, n, i]` each run is a
        bag of vectors, which the encoder must reduce to one.
      train: Whether dropout is on, which needs a "dropout" key.

    Raises:
      ConfigError: Axis 1 of an array is not the sum of `partition_sizes`, the encoder
        does not give one vector per instance, or `auto_mapping` is set for a `Ragged`.
    """
    if not isinstance(bags, Ragged):
      return self._dense(bags, train)
    if self.auto_mapping:
      raise ConfigError(
        "auto_mapping needs dense input: it has a layer per position, and a set has no"
        " positions"
      )
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
      # The part is one vector, or a bag of `size` vectors.
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
  """Encode a bag of ids by the sum, mean or maximum of their embeddings.

  Attributes:
    vocabulary_size: Number of ids.
    features: `d`.
    pool: "sum", "mean" or "max".
    pooling_dim: For dense input: the axis of the embeddings `[*ids.shape, d]` to pool.
    use_hash: Whether to accept any id, by the remainder that skips id 0.
    dtype: Type of the embeddings.
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
    """Return the pooled embeddings of a `Ragged` or an array of ids."""
    del train
    if self.pool not in _EMBEDDING_POOLS:
      raise ConfigError(f"unknown pool {self.pool!r}; one of {list(_EMBEDDING_POOLS)}")
    embed = nn.Embed(self.vocabulary_size, self.features, self.dtype, name="embedding")
    pooler = Pooling(self.pool)
    if isinstance(ids, Ragged):
      return _pool_bags(pooler, embed(self._hash(ids.values)), ids)
    return _pool_axis(pooler, embed(self._hash(ids)), self.pooling_dim)

  def _hash(self, ids: Array) -> Array:
    return ids % (self.vocabulary_size - 1) + 1 if self.use_hash else ids


class WeightedEmbeddingEncoder(nn.Module):
  """Encode a bag of weighted ids by the pool of their embeddings times the weights.

  Attributes:
    vocabulary_size: Number of ids.
    features: `d`.
    pool: As in `deepset.Pooling`.
    pooling_dim: For dense input: the axis of `[b, vocabulary_size, d]` to pool.
    dtype: Type of the embeddings.
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
    """Return the pooled vectors.

    Args:
      ids: A `Ragged` of ids `[n]` with weights, or an array with a weight for every id
        of the vocabulary. In an array, ids of weight 0 are pooled, too.
      train: Not used.

    Raises:
      ConfigError: A `Ragged` has no weights, or an array has another width.
    """
    del train
    embed = nn.Embed(self.vocabulary_size, self.features, self.dtype, name="embedding")
    pooler = Pooling(self.pool)
    if isinstance(ids, Ragged):
      if ids.weights is None:
        raise ConfigError("ids have no weights; use EmbeddingEncoder for them")
      values = embed(ids.values) * ids.weights.astype(self.dtype)[:, None]
      return _pool_bags(pooler, values, ids)
    if ids.shape[1:] != (self.vocabulary_size,):
      raise ConfigError(
        f"weights have shape {ids.shape}; expected one for each of"
        f" {self.vocabulary_size} ids"
      )
    table = embed(jnp.arange(self.vocabulary_size, dtype=jnp.int32))
    values = table[None] * ids.astype(self.dtype)[..., None]
    return _pool_axis(pooler, values, self.pooling_dim)


def _pool_bags(pooler: Pooling, values: Float[Array, "n d"], bags: Ragged) -> Ragged:
  """Pool values in the slots of bags to one element per bag that is not empty."""
  return from_vectors(pooler(Ragged(values, bags.offsets)), bags.lengths > 0)


def _pool_axis(pooler: Pooling, x: Float[Array, "..."], axis: int) -> Array:
  """Pool one axis of a dense array, as one set of elements with all other axes."""
  first = jnp.moveaxis(x, axis, 0)
  flat = first.reshape(len(first), -1)
  whole = Ragged(flat, jnp.array([0, len(first)], jnp.int32))
  return pooler(whole).reshape(first.shape[1:])
