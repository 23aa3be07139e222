"""The scorer: how much a user would have an item, from the vectors of two towers.

Towers meet in a product alone, which makes items searchable. A scorer sees both vectors
at once, and is for the few candidates that a search left (Covington et al., 2016).
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
  """Two towers, and an MLP of a user's vector, an item's, and their product.

  The logit is that of the MLP plus the sum of the product, so that without hidden
  layers it is the towers' own with a linear model beside it.

  Attributes:
    towers: Of users and items.
    hidden: Widths of the layers of the MLP.
    dropout: Rate after each.
    dtype: Of the MLP; logits are float32.
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
    """The logit of each candidate, of padding some finite number.

    Args:
      users: As in `TwoTowers.embed_users`.
      items: Fields of distinct items.
      candidates: Of each user its list of rows of `items`.
      train: Needs a "dropout" key.
    """
    of_items = self.towers.embed_items(items, train=train)
    of_users = self.towers.embed_users(users, of_items, train=train)
    rows = jnp.take(of_items, candidates.values, axis=0, mode="fill", fill_value=0)
    return self.score(candidates.to_elements(of_users), rows, train=train)

  def score(
    self, users: Float[Array, "... d"], items: Float[Array, "... d"], *, train=False
  ) -> Float[Array, "..."]:
    """The logits of vectors of users and of items, pair by pair."""
    product = users * items
    x = jnp.concatenate([users, items, product], axis=-1)
    x = self.mlp(x, train=train).astype(jnp.float32)
    return self.out(x)[..., 0] + jnp.sum(product.astype(jnp.float32), axis=-1)


def build_scorer(
  config: ml_collections.ConfigDict, users: Schema, items: Schema
) -> Scorer:
  """The scorer of `config.ranking` on the towers of `towers.build`.

  Raises:
    ValueError: See `towers.build`.
  """
  ranking = config.ranking
  return Scorer(
    two_tower.build_two_towers(config, users, items),
    tuple(ranking.hidden),
    ranking.dropout,
  )
