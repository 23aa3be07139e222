"""One stream: all elements of all modalities in one transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from deepsets_jax import ragged
from deepsets_jax.encoders.transformer import Transformer
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion.base import Fusion, check_present, modality_codes
from deepsets_jax.ragged import Ragged, pooling

READOUTS = ("fused", "elements", "all")


class SingleStreamFusion(Fusion):
  """A transformer over all elements and a fused token of each modality.

  In the manner of MMT (Gabeur et al., "Multi-modal Transformer for Video Retrieval",
  2020): a learned code of its modality is added to each element; each modality that is
  there adds one token that pools its elements; and the result is read from the outputs
  of these tokens. Encoders add the positions and times (`config.model.positions`).
  `models.mmt` is MMT itself.

  Attributes:
    fused: The pool that makes a modality's fused token: a name in `pooling.POOLS` or
      "median", except "softmax"; None for no such token.
    readout: The outputs that are pooled to the result: "fused" tokens, "elements", or
      "all".
    pools: Pools of these outputs, side by side: names as for `fused`. The result is
      `len(pools) * d` wide.
    layers: Number of transformer blocks.
    heads: Number of attention heads; must divide the features.
    hidden: Width of the feed-forward layers; None for four times the features.
    dropout: Dropout rate in the transformer, from 0 to below 1.
    remat: Whether the backward pass recomputes each block: less memory, more time.

  Raises:
    ConfigError: `readout` is unknown, or is "fused" without fused tokens.
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
    tokens, elements = self._tokens(modalities)
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
    read = self.rows_read(stream, tokens, elements, slots)
    return jnp.concatenate([pooling.pool(p, read) for p in self.pools], axis=-1)

  def rows_read(
    self,
    stream: Ragged,
    tokens: Sequence[Ragged],
    elements: Sequence[Ragged],
    slots: Sequence[Int[Array, "n"]],
  ) -> Ragged | dict[str, Ragged]:
    """The rows of a stream that `readout` selects.

    Args:
      stream: The fused tokens and the elements, in one flat array.
      tokens, elements: The parts that `ragged.concatenate` has joined, in this order.
      slots: Where each row of each part is in the stream.
    """
    parts, count = [*tokens, *elements], len(tokens)
    match self.readout:
      case "all":
        return stream
      case "fused":
        chosen = slice(count)
      case _:
        chosen = slice(count, None)
    return {
      str(index): part.replace(
        values=jnp.take(stream.values, slot, axis=0, mode="fill", fill_value=0)
      )
      for index, (part, slot) in enumerate(
        zip(parts[chosen], slots[chosen], strict=True)
      )
    }

  def _check_readout(self) -> None:
    if self.readout not in READOUTS:
      raise ConfigError(
        f"single_stream: unknown readout {self.readout!r}; one of {list(READOUTS)}"
      )
    if self.readout == "fused" and self.fused is None:
      raise ConfigError(
        "single_stream: readout 'fused' without fused tokens; set fused to a pool, or"
        " readout to 'elements' or 'all'"
      )

  def _tokens(
    self, modalities: Mapping[str, Ragged]
  ) -> tuple[list[Ragged], list[Ragged]]:
    """The fused tokens and the elements of each modality, with its code added."""
    codes = modality_codes(self)
    token = self.param(
      "fused_token",
      nn.initializers.normal(0.1 * self.features**-0.5, jnp.float32),
      (1, self.features),
    )
    tokens, elements = [], []
    for name in sorted(modalities):
      part = modalities[name]
      coded = part.values.astype(self.dtype) + codes[name]
      elements.append(Ragged(coded, part.offsets))
      if self.fused is not None:
        vectors = pooling.pool(self.fused, part).astype(self.dtype)
        vectors = vectors + codes[name] + token.astype(self.dtype)
        tokens.append(ragged.from_vectors(vectors, part.lengths > 0))
    return tokens, elements
