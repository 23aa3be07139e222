"""Two towers: users and items, each a multi-modal set, as vectors of one space.

The product of a user's vector and an item's vector scores how likely the item is the
user's next one (Covington et al., "Deep Neural Networks for YouTube Recommendations",
2016; Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
Recommendations", 2019). Item vectors do not depend on users, so they can be indexed and
searched.
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Float

from deepsets_jax.data.interactions.next_item import HISTORY
from deepsets_jax.data.tables.schema import Modality, Schema
from deepsets_jax.encoders import l2_normalize
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.models import set_model
from deepsets_jax.ragged import Ragged


class TwoTowers(nn.Module):
  """A model of users and a model of items, whose heads have the same width `d`.

  Attributes:
    users: A `SetModel` of the user's fields and HISTORY.
    items: A `SetModel` of the item's fields.
    tie_item_tower: Whether the elements of a history are the item tower's vectors of
      its items. Otherwise the user tower embeds an item by its row in the table.
    normalize: Whether vectors are scaled to length 1. Zeros stay zeros; before training
      a user without known fields has zeros.
  """

  users: nn.Module
  items: nn.Module
  tie_item_tower: bool
  normalize: bool

  def __call__(
    self, users: Mapping[str, Ragged], items: Mapping[str, Ragged]
  ) -> tuple[Float[np.ndarray, "b d"], Float[np.ndarray, "c d"]]:
    """Returns the vectors of users and of items; used to initialise all parameters."""
    vectors = self.embed_items(items)
    return self.embed_users(users, vectors), vectors

  def embed_items(
    self, items: Mapping[str, Ragged], *, train: bool = False
  ) -> Float[np.ndarray, "c d"]:
    """Returns the vectors of items."""
    return self._finish(self.items(items, train=train))

  def embed_users(
    self,
    users: Mapping[str, Ragged],
    items: Float[np.ndarray, "c d"],
    *,
    train: bool = False,
  ) -> Float[np.ndarray, "b d"]:
    """Returns the vectors of users.

    Args:
      users: Fields and HISTORY. The values of HISTORY are rows of `items` with
        `tie_item_tower`, and rows of the table of items otherwise.
      items: Vectors of items.
      train: Whether dropout is on, which needs a "dropout" key.
    """
    if self.tie_item_tower and HISTORY in users:
      history = users[HISTORY]
      vectors = jnp.take(items, history.values, axis=0, mode="fill", fill_value=0)
      users = {**users, HISTORY: history.replace(values=vectors)}
    return self._finish(self.users(users, train=train))

  def _finish(self, vectors):
    return l2_normalize(vectors) if self.normalize else vectors


def build_two_towers(
  config: ml_collections.ConfigDict, users: Schema, items: Schema
) -> TwoTowers:
  """Builds the user tower from `config.model`, the item tower from `config.item_model`.

  Args:
    config: The config of a run.
    users: The schema of a user before an event.
    items: The schema of an item.

  Raises:
    ConfigError: A setting is unknown, or a width is below 1.
  """
  retrieval, features = config.retrieval, config.item_model.features
  if features < 1:
    raise ConfigError(f"config.item_model.features is {features}; expected at least 1")
  if retrieval.dimensions < 1:
    raise ConfigError(
      f"config.retrieval.dimensions is {retrieval.dimensions}; expected at least 1"
    )
  if retrieval.tie_item_tower:
    vectors = Modality(
      "vectors", retrieval.dimensions, ordered=True, timed=True, encoded=True
    )
    users = Schema({**users.modalities, HISTORY: vectors}, users.target)
  start = np.zeros(retrieval.dimensions, np.float32)
  return TwoTowers(
    users=set_model.build_set_model(config.model, users, start),
    items=set_model.build_set_model(config.item_model, items, start),
    tie_item_tower=retrieval.tie_item_tower,
    normalize=retrieval.normalize,
  )
