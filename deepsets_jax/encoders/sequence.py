"""The sequence encoder: a modality's elements in the light of one another."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from deepsets_jax.encoders.transformer import Transformer, sinusoids
from deepsets_jax.ragged import Ragged

POSITIONS = ("rotary", "learned", "sinusoidal", "recency")
# Elements after which one starts at 1/e of its weight.
_FADING = 10


class SequenceEncoder(nn.Module):
  """Encodes each element, adds where it stands, and lets them meet in a transformer.

  An element's weight, where there is one, multiplies what comes out: it says how much
  the element counts, not what it means. Of `valued` elements it is read with them.

  Attributes:
    elements: The encoder of single elements, to `d` features.
    features: `d`.
    positions: How an element's place in its example is told, or its time where the
      modality has times: "rotary" turns queries and keys (Su et al., 2021),
      "sinusoidal" adds waves, "learned" adds a row of a table by the whole part of the
      place or time, clipped to the table; "recency" one by the number of elements that
      come after, times or not; None tells nothing, of a true set.
    fading: Whether the features of an element are each multiplied by a learned factor
      that depends on how many elements come after it, up to the table's end: how much
      of what is long past still counts. It starts at exp(-places / 10).
    max_positions: Rows of the learned tables.
    layers: Number of transformer blocks; 0 for none, the positions alone.
    heads, hidden, dropout, remat, dtype: As in `transformer.Transformer`.
    valued: Whether an element's weight is its value, which `elements` reads.
  """

  elements: nn.Module
  features: int
  positions: str | None = None
  fading: bool = False
  max_positions: int = 512
  layers: int = 1
  heads: int = 4
  hidden: int | None = None
  dropout: float = 0.0
  remat: bool = False
  dtype: Any = jnp.float32
  valued: bool = False

  def setup(self) -> None:
    if self.layers:
      self.transformer = Transformer(
        self.features,
        self.layers,
        self.heads,
        self.hidden,
        self.dropout,
        self.remat,
        self.dtype,
      )

  @nn.compact
  def __call__(self, elements: Ragged, *, train: bool) -> Ragged:
    weights = None if self.valued else elements.weights
    unweighted = elements if self.valued else elements.replace(weights=None)
    encoded = self.elements(unweighted, train=train)
    places = elements.positions if elements.times is None else elements.times
    after = elements.to_elements(elements.lengths) - 1 - elements.positions
    values = encoded.values + self._codes(
      after if self.positions == "recency" else places
    )
    if self.fading:
      values = values * self._fading(after)
    if self.layers:
      values = self.transformer(
        Ragged(values, elements.offsets),
        positions=places if self.positions == "rotary" else None,
        train=train,
      ).values
    if weights is not None:
      values = values * weights.astype(values.dtype)[:, None]
    return Ragged(values, elements.offsets)

  def _fading(self, after: Int[Array, "n"]) -> Float[Array, "n d"]:
    """What elements are multiplied by for the number that come after them."""
    shape = (self.max_positions, self.features)

    def start(*_) -> Array:
      places = jnp.arange(self.max_positions, dtype=jnp.float32)
      return jnp.broadcast_to(-places[:, None] / _FADING, shape)

    logs = self.param("fading", start)
    rows = jnp.clip(after, 0, self.max_positions - 1)
    return jnp.exp(logs[rows]).astype(self.dtype)

  def _codes(self, places: Array) -> Float[Array, "n d"]:
    """What is added to elements for their place."""
    match self.positions:
      case "sinusoidal":
        return sinusoids(places, self.features).astype(self.dtype)
      case "learned" | "recency":
        rows = jnp.clip(places.astype(jnp.int32), 0, self.max_positions - 1)
        table = nn.Embed(
          self.max_positions, self.features, dtype=self.dtype, name="positions"
        )
        return table(rows)
    return jnp.zeros((len(places), self.features), self.dtype)
