"""The scorer: a logit for a user and an item from the vectors of two towers.

Two towers meet only in a product, which makes items searchable. A scorer sees both
vectors at once; it ranks the few candidates of a search (Covington et al., "Deep Neural
Networks for YouTube Recommendations", 2016).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from deepsets_jax.data.tables.schema import Schema
from deepsets_jax.encoders import MLP
from deepsets_jax.models import two_tower
from deepsets_jax.ragged import Ragged


class Scorer(nn.Module):
  """Two towers, and an MLP of a user's vector, an item's vector and their product.

  The logit is the MLP's output plus the sum of the product. Without hidden layers it is
  the logit of the towers plus a linear model.

  Attributes:
    towers: The towers of users and items.
    hidden: Widths of the hidden layers of the MLP; empty for none.
    dropout: Dropout rate after each hidden layer, from 0 to below 1.
    dtype: Type of the computation of the MLP; logits are float32.
  """

  towers: two_tower.TwoTowers
  hidden: Sequence[int] = ()
  dropout: float = 0.0
  dtype: Any = jnp.float32

  def setup(self) -> None:
    self.mlp = MLP(self.hidden, dropout=self.dropout, dtype=self.dtype)
    self.out = nn.Dense(1, dtype=jnp.float32)

  def __call__(
    self,
    users: Mapping[str, Ragged],
    items: Mapping[str, Ragged],
    candidates: Ragged,
    *,
    train: bool = False,
  ) -> Float[Array, "n"]:
    """Returns the logit of each candidate; padding has an arbitrary finite logit.

    Args:
      users: As in `TwoTowers.embed_users`.
      items: Fields of distinct items.
      candidates: The list of each user: rows of `items`.
      train: Whether dropout is on, which needs a "dropout" key.
    """
    of_items = self.towers.embed_items(items, train=train)
    of_users = self.towers.embed_users(users, of_items, train=train)
    rows = jnp.take(of_items, candidates.values, axis=0, mode="fill", fill_value=0)
    return self.score(candidates.to_elements(of_users), rows, train=train)

  def score(
    self, users: Float[Array, "... d"], items: Float[Array, "... d"], *, train=False
  ) -> Float[Array, "..."]:
    """Returns the logits of pairs of a user vector and an item vector."""
    product = users * items
    x = jnp.concatenate([users, items, product], axis=-1)
    x = self.mlp(x, train=train).astype(jnp.float32)
    return self.out(x)[..., 0] + jnp.sum(product.astype(jnp.float32), axis=-1)


def build_scorer(
  config: ml_collections.ConfigDict, users: Schema, items: Schema
) -> Scorer:
  """Builds the scorer of `config.ranking` on the towers of `build_two_towers`.

  Raises:
    ConfigError: See `two_tower.build_two_towers`.
  """
  ranking = config.ranking
  return Scorer(
    two_tower.build_two_towers(config, users, items),
    tuple(ranking.hidden),
    ranking.dropout,
  )
