"""The sequence encoder: a transformer over the elements of a modality."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from deepsets_jax.encoders.transformer import Transformer, sinusoids
from deepsets_jax.ragged import Ragged

POSITIONS = ("rotary", "learned", "sinusoidal", "recency")
# Elements after which the initial weight of fading has fallen to 1/e.
_FADING = 10


class SequenceEncoder(nn.Module):
  """Encode each element, add its position, and apply a transformer.

  If elements have weights, each multiplies the element's output: a weight says how much
  an element counts, not what it means. The weights of `valued` elements are read by the
  encoder of elements instead.

  Attributes:
    elements: The encoder of single elements, to `d` features.
    features: `d`.
    positions: Encoding of an element's position in its example, or of its time if the
      modality has times. "rotary" turns queries and keys (Su et al., 2021).
      "sinusoidal" adds waves. "learned" adds a row of a table, the integer part of the
      position or time, clipped to the table. "recency" adds the row of the number of
      later elements, and ignores times. None is for sets without an order.
    fading: Whether each feature of an element is multiplied by a learned factor that
      depends on the number of later elements, clipped to the table: old elements can
      count less. It starts at exp(-later / 10).
    max_positions: Rows of the learned tables.
    layers: Number of transformer blocks; 0 for positions without a transformer.
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
    later = elements.to_elements(elements.lengths) - 1 - elements.positions
    values = encoded.values + self._codes(
      later if self.positions == "recency" else places
    )
    if self.fading:
      values = values * self._fading(later)
    if self.layers:
      values = self.transformer(
        Ragged(values, elements.offsets),
        positions=places if self.positions == "rotary" else None,
        train=train,
      ).values
    if weights is not None:
      values = values * weights.astype(values.dtype)[:, None]
    return Ragged(values, elements.offsets)

  def _fading(self, later: Int[Array, "n"]) -> Float[Array, "n d"]:
    """The factors of elements, by the number of later elements."""
    shape = (self.max_positions, self.features)

    def start(*_) -> Array:
      places = jnp.arange(self.max_positions, dtype=jnp.float32)
      return jnp.broadcast_to(-places[:, None] / _FADING, shape)

    logs = self.param("fading", start)
    rows = jnp.clip(later, 0, self.max_positions - 1)
    return jnp.exp(logs[rows]).astype(self.dtype)

  def _codes(self, places: Array) -> Float[Array, "n d"]:
    """Return the vectors to add to elements for their positions."""
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
