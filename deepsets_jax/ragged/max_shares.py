"""Which elements a max or min pool has taken its features from."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax.ragged import monoids, pooling
from deepsets_jax.ragged.arrays import Ragged


def max_shares(
  elements: Mapping[str, Ragged], pooled: Float[Array, "b d"]
) -> dict[str, Float[Array, "n"]]:
  """The share of the features of a max or min pool that each element has won.

  By modality, in float32. An element wins a feature where it attains the pooled value;
  several that do share it equally, in one modality or across several. The shares of an
  example's elements of all modalities add up to 1; padding has 0. A feature that is
  NaN is won by none.

  Args:
    elements: Vectors `[n, d]` of each modality.
    pooled: What the pool has made of them.
  """
  won = {
    name: part.replace(values=_attains(part, pooled)) for name, part in elements.items()
  }
  ties = jnp.maximum(pooling.pool("sum", won), 1)
  return {
    name: jnp.mean(part.values / part.to_elements(ties, fill=1), axis=-1)
    for name, part in won.items()
  }


def _attains(part: Ragged, pooled: Float[Array, "b d"]) -> Float[Array, "n d"]:
  """1 where an element has the pooled value, 0 elsewhere and on padding."""
  # NaN on padding: equal to nothing.
  attained = monoids.floats(part) == part.to_elements(pooled, fill=jnp.nan)
  return attained.astype(jnp.float32)
