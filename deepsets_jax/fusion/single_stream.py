"""One stream: all elements of all modalities in one transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from deepsets_jax import ragged
from deepsets_jax.encoders.importance import wants_importance
from deepsets_jax.encoders.transformer import Transformer
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion.base import (
  Fusion,
  check_present,
  modality_codes,
  of_examples,
  spread_evenly,
  uniform,
)
from deepsets_jax.ragged import Ragged, pooling

READOUTS = ("fused", "elements", "all")


class SingleStreamFusion(Fusion):
  """All elements, with a code for their modality, and a fused token per modality.

  In the manner of MMT (Gabeur et al., 2020): beside its elements each modality that is
  there sends one token that pools them, and the global embedding is read from these
  tokens' outputs. Places and times are told by the encoders (`config.model.positions`).
  `fusion.mmt` is MMT itself.

  The attention that is sown, see `Fusion`, is the transformer's rollout from all that
  is read out alike; what falls on a modality's fused token is its elements', in equal
  parts.

  Attributes:
    fused: The pool that makes a modality's fused token, any but "softmax"; None for no
      such token.
    readout: What is pooled at the end: "fused" tokens, the "elements", or "all".
    pools: Of the readout, side by side.
    layers, heads, hidden, dropout, remat: Of the transformer, see
      `transformer.Transformer`.

  Raises:
    ConfigError: An unknown readout, or one of fused tokens where there are none.
  """

  fused: str | None = "max"
  readout: str = "fused"
  pools: Sequence[str] = ("mean",)
  layers: int = 1
  heads: int = 4
  hidden: int | None = None
  dropout: float = 0.0
  remat: bool = False

  @nn.compact
  def __call__(
    self, modalities: Mapping[str, Ragged], *, train: bool
  ) -> Float[Array, "b f"]:
    check_present(modalities)
    self._check_readout()
    elements, tokens = self._tokens(modalities)
    stream, slots = ragged.concatenate([*tokens, *elements])
    transformer = Transformer(
      self.features,
      self.layers,
      self.heads,
      self.hidden,
      self.dropout,
      self.remat,
      dtype=self.dtype,
      name="transformer",
    )
    stream = transformer(stream, train=train)
    parts, read = self._read_parts(tokens, elements, slots)
    if wants_importance(self):
      mass = jnp.zeros(stream.num_slots, jnp.float32)
      for share, slot in zip(uniform(parts), read, strict=True):
        mass = mass.at[slot].set(share, mode="drop", unique_indices=True)
      mass = transformer.rollout(mass)
      self.sow_attention(
        _to_elements(mass, sorted(modalities), tokens, elements, slots)
      )
    if self.readout != "all":
      stream = {
        str(index): part.replace(
          values=jnp.take(stream.values, slot, axis=0, mode="fill", fill_value=0)
        )
        for index, (part, slot) in enumerate(zip(parts, read, strict=True))
      }
    return jnp.concatenate([pooling.pool(p, stream) for p in self.pools], axis=-1)

  def _read_parts(
    self,
    tokens: Sequence[Ragged],
    elements: Sequence[Ragged],
    slots: Sequence[Int[Array, "n"]],
  ) -> tuple[Sequence[Ragged], Sequence[Int[Array, "n"]]]:
    """The parts of the stream that are read out, and their slots in it."""
    count = len(tokens)
    match self.readout:
      case "fused":
        return tokens, slots[:count]
      case "elements":
        return elements, slots[count:]
    return [*tokens, *elements], slots

  def _check_readout(self) -> None:
    if self.readout not in READOUTS:
      raise ConfigError(f"unknown readout {self.readout!r}; one of {list(READOUTS)}")
    if self.readout == "fused" and self.fused is None:
      raise ConfigError(
        "single_stream: readout 'fused' without fused tokens; set fused to a pool, or"
        " readout to 'elements' or 'all'"
      )

  def _tokens(
    self, modalities: Mapping[str, Ragged]
  ) -> tuple[list[Ragged], list[Ragged]]:
    """The elements with their codes, and the fused tokens with theirs."""
    codes = modality_codes(self)
    token = self.param(
      "fused_token",
      nn.initializers.normal(0.1 * self.features**-0.5, jnp.float32),
      (1, self.features),
    )
    elements, tokens = [], []
    for name in sorted(modalities):
      part = modalities[name]
      coded = part.values.astype(self.dtype) + codes[name]
      elements.append(Ragged(coded, part.offsets))
      if self.fused is not None:
        vectors = pooling.pool(self.fused, part).astype(self.dtype)
        vectors = vectors + codes[name] + token.astype(self.dtype)
        tokens.append(ragged.from_vectors(vectors, part.lengths > 0))
    return elements, tokens


def _to_elements(
  mass: Float[Array, "m"],
  names: Sequence[str],
  tokens: Sequence[Ragged],
  elements: Sequence[Ragged],
  slots: Sequence[Int[Array, "n"]],
) -> dict[str, Float[Array, "n"]]:
  """The mass of a stream's rows by modality, a fused token's over its elements."""
  weights = {}
  of_tokens, of_elements = slots[: len(tokens)], slots[len(tokens) :]
  for index, name in enumerate(names):
    slot = of_elements[index]
    weights[name] = jnp.take(mass, slot, axis=0, mode="fill", fill_value=0)
    if tokens:
      of_token = of_examples(mass, of_tokens[index], tokens[index])
      weights[name] += spread_evenly(of_token, elements[index])
  return weights
