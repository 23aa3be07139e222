"""The Set Transformer: attention blocks over one set, read by learned seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax import ragged
from deepsets_jax.encoders.transformer import (
  FeedForward,
  MultiHeadAttention,
  layer_norm,
)
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion.base import Fusion, check_present, modality_codes
from deepsets_jax.ragged import Ragged, attention


class MAB(nn.Module):
  """The multihead attention block of Lee et al. (2019): queries attend to keys.

  The paper has MAB(X, Y) = LN(H + rFF(H)) with H = LN(X + Multihead(X, Y, Y)). Here
  the norms come first, X + Multihead(LN(X), LN(Y), LN(Y)), as in the other blocks of
  this package. Queries have a length of about 1; if the norm scaled the residual to
  sqrt(d), what is read from the set would at first be lost beside it.

  Attributes:
    features, heads, hidden, dropout, dtype: As in `transformer.TransformerBlock`.
  """

  features: int
  heads: int = 4
  hidden: int | None = None
  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    queries: Float[Array, "n d"],
    keys: Float[Array, "m d"] | None,
    plan: attention.Plan,
    *,
    train: bool,
  ) -> Float[Array, "n d"]:
    """Returns the updated queries.

    Args:
      queries: Vectors that attend.
      keys: Vectors that they attend to; None for the queries themselves, a SAB.
      plan: Plan of the attention from queries to keys.
      train: Whether dropout is on, which needs a "dropout" key.
    """
    drop = nn.Dropout(self.dropout, deterministic=not train)
    normed = layer_norm(queries, self.dtype, "query_norm")
    seen = normed if keys is None else layer_norm(keys, self.dtype, "key_norm")
    attend = MultiHeadAttention(self.features, self.heads, self.dtype, name="attention")
    values = queries + drop(attend(normed, seen, plan))
    feed = FeedForward(
      self.features, self.hidden, self.dropout, dtype=self.dtype, name="feed"
    )
    normed = layer_norm(values, self.dtype, "feed_norm")
    return values + drop(feed(normed, train=train))


class SetTransformerFusion(Fusion):
  """Reads all elements of all modalities, as one set, by learned seeds.

  Lee et al., "Set Transformer" (2019): an encoder of SABs or ISABs; then a PMA, whose
  seeds attend to the elements; then SABs over the seeds, which stand side by side in
  the result. The sets of the paper hold elements of one kind. Here a learned code of
  its modality is added to each element, because attention could not tell modalities
  apart otherwise.

  The authors' code differs from the paper, and this class differs from their code in
  these points: logits are divided by the root of the width of a head, not of the whole
  vector; the residual is the query itself, not its projection; norms are always there;
  PMA has its rFF; sets may have any size. It differs from both paper and code in the
  order of norms (see `MAB`), a GELU in rFF, and the last rFF of the decoder, which is
  the head of the model.

  Attributes:
    layers: Number of blocks of the encoder; with 0 elements do not see each other.
    inducing: Number of learned points of each ISAB, through which elements see each
      other at a cost linear in their number; at least 1. None for SABs, in which each
      element sees each other one.
    seeds: Number of seeds, at least 1. The result is `seeds * d` wide.
    decoder_layers: Number of SABs over the seeds; not used with one seed.
    heads: Number of attention heads; must divide the features.
    hidden: Width of the feed-forward layers; None for four times the features.
    dropout: Dropout rate in all blocks, from 0 to below 1.

  Raises:
    ConfigError: `inducing` or `seeds` is not positive, or the heads do not divide the
      width.
  """

  layers: int = 1
  inducing: int | None = None
  seeds: int = 1
  decoder_layers: int = 1
  heads: int = 4
  hidden: int | None = None
  dropout: float = 0.0

  @nn.compact
  def __call__(
    self, modalities: Mapping[str, Ragged], *, train: bool
  ) -> Float[Array, "b f"]:
    check_present(modalities)
    self._check()
    codes = modality_codes(self)
    parts = [
      Ragged(part.values.astype(self.dtype) + codes[name], part.offsets)
      for name, part in sorted(modalities.items())
    ]
    elements, _ = ragged.concatenate(parts)
    values = self._encode(elements, train)
    read = self._decode(Ragged(values, elements.offsets), train)
    # The result has vectors of length about 1, as the elements have.
    read = layer_norm(read, jnp.float32, "norm", scale=self.features**-0.5)
    read = read.reshape(elements.num_examples, self.seeds * self.features)
    return jnp.where(elements.lengths[:, None] > 0, read, 0)

  def _check(self) -> None:
    if self.inducing is not None and self.inducing < 1:
      raise ConfigError(
        f"set_transformer: {self.inducing} inducing points; at least 1, or None for"
        " blocks in which each element sees each other one"
      )
    if self.seeds < 1:
      raise ConfigError(f"set_transformer: {self.seeds} seeds; at least 1")

  def _encode(self, elements: Ragged, train: bool) -> Float[Array, "n d"]:
    """The elements after the blocks of the encoder."""
    offsets, slots = elements.offsets, elements.num_slots
    values = elements.values
    if self.inducing is None:
      plan = attention.plan(offsets, offsets, slots, slots)
      for index in range(self.layers):
        values = self._block(f"encoder_{index}")(values, None, plan, train=train)
      return values
    count, b = self.inducing, elements.num_examples
    at_points = jnp.arange(b + 1, dtype=jnp.int32) * count
    gather = attention.plan(at_points, offsets, count, slots)
    spread = attention.plan(offsets, at_points, slots, count)
    for index in range(self.layers):
      points = self._points(f"inducing_{index}", count, b)
      points = self._block(f"encoder_{index}_in")(points, values, gather, train=train)
      values = self._block(f"encoder_{index}_out")(values, points, spread, train=train)
    return values

  def _decode(self, elements: Ragged, train: bool) -> Float[Array, "b*m d"]:
    """The seeds of each example after they have attended to its elements."""
    count, b = self.seeds, elements.num_examples
    at_seeds = jnp.arange(b + 1, dtype=jnp.int32) * count
    plan = attention.plan(at_seeds, elements.offsets, count, elements.num_slots)
    normed = layer_norm(elements.values, self.dtype, "pooling_norm")
    feed = FeedForward(
      self.features, self.hidden, self.dropout, dtype=self.dtype, name="pooling_feed"
    )
    seeds = self._points("seeds", count, b)
    pool = self._block("pooling")
    seeds = pool(seeds, feed(normed, train=train), plan, train=train)
    if count > 1:
      plan = attention.plan(at_seeds, at_seeds, count, count)
      for index in range(self.decoder_layers):
        seeds = self._block(f"decoder_{index}")(seeds, None, plan, train=train)
    return seeds

  def _block(self, name: str) -> MAB:
    return MAB(
      self.features, self.heads, self.hidden, self.dropout, self.dtype, name=name
    )

  def _points(self, name: str, count: int, b: int) -> Float[Array, "b*m d"]:
    """Learned vectors, the same for each example.

    They start short. Otherwise what they read from an example would be lost beside what
    is the same in all examples; as queries they are normed, so their length does not
    matter. An example without elements has them too: its slots exist anyway, and
    nothing reads them.
    """
    init = nn.initializers.normal(0.1 * self.features**-0.5, jnp.float32)
    points = self.param(name, init, (count, self.features)).astype(self.dtype)
    return jnp.tile(points, (b, 1))
