"""Attribution by argmax: the elements that a max or min pool took its features from."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax.ragged import monoids, pooling
from deepsets_jax.ragged.arrays import Ragged


def max_shares(
  elements: Mapping[str, Ragged], pooled: Float[Array, "b d"]
) -> dict[str, Float[Array, "n"]]:
  """Compute the share of the features of a max or min pool that each element provides.

  An element provides a feature where it attains the pooled value; several elements
  that do share it equally, within a modality and across modalities. The shares of an
  example's elements of all modalities add up to 1, or to less if a pooled feature is
  NaN, which no element attains.

  Args:
    elements: Vectors `[n, d]` of each modality.
    pooled: The result of the pool over these elements.

  Returns:
    The shares of each modality's elements, in float32; 0 on padding.
  """
  attained = {
    name: part.replace(values=_attains(part, pooled)) for name, part in elements.items()
  }
  ties = jnp.maximum(pooling.pool("sum", attained), 1)
  return {
    name: jnp.mean(part.values / part.to_elements(ties, fill=1), axis=-1)
    for name, part in attained.items()
  }


def _attains(part: Ragged, pooled: Float[Array, "b d"]) -> Float[Array, "n d"]:
  """1 where an element has the pooled value, 0 elsewhere and on padding."""
  # NaN on padding is equal to nothing.
  attained = monoids.floats(part) == part.to_elements(pooled, fill=jnp.nan)
  return attained.astype(jnp.float32)
