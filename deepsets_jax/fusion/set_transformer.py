"""The Set Transformer: attention blocks over one set, read by learned seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax import ragged
from deepsets_jax.encoders.importance import pull_back, wants_importance
from deepsets_jax.encoders.transformer import (
  FeedForward,
  MultiHeadAttention,
  layer_norm,
)
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion.base import Fusion, check_present, modality_codes, normalized
from deepsets_jax.ragged import Ragged, attention


class MAB(nn.Module):
  """The multihead attention block of Lee et al. (2019): queries look at keys.

  The paper has MAB(X, Y) = LN(H + rFF(H)) with H = LN(X + Multihead(X, Y, Y)). Here
  the norms come first, X + Multihead(LN(X), LN(Y), LN(Y)), as in the other blocks of
  this package: queries are of length about 1, and beside a residual that the norm has
  brought to sqrt(d) what the set says would at first be lost.

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
    """The changed queries; without keys they look at each other, a SAB."""
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
  """All elements of all modalities as one set, read by learned seeds.

  Lee et al., "Set Transformer" (2019): an encoder of SABs or ISABs; then a PMA, seeds
  that look at the elements; then SABs over the seeds, which stand side by side in the
  result. The paper's sets are of one kind. Here each element bears a learned code of
  its modality, which attention could not tell otherwise.

  The public code differs from the paper, and this from the code: logits are over the
  root of a head's width, not of the whole; the residual is the query itself, not its
  projection; norms are always there; PMA has its rFF; sets may be of any size. From
  both differ the order of norms (see `MAB`), a GELU in rFF, and the decoder's last
  rFF, which is the model's head.

  The attention that is sown, see `Fusion`, is the rollout from all seeds alike through
  all blocks (`encoders.importance.pull_back`). Half of a mass stays on the queries of a
  block: what so ends on seeds and inducing points comes from no element, and the
  weights of an example's elements are over their sum.

  Attributes:
    layers: Number of the encoder's blocks.
    inducing: Learned points of each ISAB, through which elements see each other at a
      cost linear in their number; None for SABs, where each sees each.
    seeds: The result is `seeds * d` wide.
    decoder_layers: Number of SABs over the seeds; with one seed there is none.
    heads, hidden, dropout: Of all blocks, see `transformer.TransformerBlock`.

  Raises:
    ConfigError: No inducing point or seed, or heads that do not divide the width.
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
    elements, slots = ragged.concatenate(parts)
    values = self._encode(elements, train)
    read = self._decode(Ragged(values, elements.offsets), train)
    if wants_importance(self):
      mass = self._rollout(elements.num_examples)
      weights = {
        name: jnp.take(mass, slot, axis=0, mode="fill", fill_value=0)
        for name, slot in zip(sorted(modalities), slots, strict=True)
      }
      self.sow_attention(normalized(weights, modalities))
    # Seeds leave with a length of about 1, as elements came.
    read = layer_norm(read, jnp.float32, "norm", scale=self.features**-0.5)
    read = read.reshape(elements.num_examples, self.seeds * self.features)
    return jnp.where(elements.lengths[:, None] > 0, read, 0)

  def _check(self) -> None:
    if self.inducing is not None and self.inducing < 1:
      raise ConfigError(
        f"set_transformer: {self.inducing} inducing points; at least 1, or None for"
        " blocks in which each element sees each"
      )
    if self.seeds < 1:
      raise ConfigError(f"set_transformer: {self.seeds} seeds; at least 1")

  def _encode(self, elements: Ragged, train: bool) -> Float[Array, "n d"]:
    """The elements, changed by each other."""
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
    """The seeds of each example, after they have looked at its elements."""
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

  def _rollout(self, b: int) -> Float[Array, "n"]:
    """The elements' part of a mass of 1 for each example, even over its seeds."""

    def back(name, mass):
      return pull_back(self.variables["importance"][name]["attention"], mass)

    mass = jnp.full(b * self.seeds, 1 / self.seeds, jnp.float32)
    if self.seeds > 1:
      for index in reversed(range(self.decoder_layers)):
        mass = sum(back(f"decoder_{index}", mass))
    _, mass = back("pooling", mass)
    for index in reversed(range(self.layers)):
      if self.inducing is None:
        mass = sum(back(f"encoder_{index}", mass))
      else:
        mass, of_points = back(f"encoder_{index}_out", mass)
        mass += back(f"encoder_{index}_in", of_points)[1]
    return mass

  def _block(self, name: str) -> MAB:
    return MAB(
      self.features, self.heads, self.hidden, self.dropout, self.dtype, name=name
    )

  def _points(self, name: str, count: int, b: int) -> Float[Array, "b*m d"]:
    """Learned vectors, the same for each example.

    They are short at first, or what they read of an example would drown in what is the
    same in all; as queries they are normed, and their length is of no account.

    An empty example has them, too: the slots are there anyhow, and nothing reads them.
    """
    init = nn.initializers.normal(0.1 * self.features**-0.5, jnp.float32)
    points = self.param(name, init, (count, self.features)).astype(self.dtype)
    return jnp.tile(points, (b, 1))
