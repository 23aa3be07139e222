"""The vectors of whole tables of users and items, by the towers of a run."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from deepsets_jax.data.tables.batching import Budget
from deepsets_jax.data.tables.table import Table
from deepsets_jax.models.two_tower import TwoTowers
from deepsets_jax.tasks.trained import fitting
from deepsets_jax.training import evaluation, sharding


@dataclasses.dataclass(frozen=True)
class Vectors:
  """What embeds tables, on all devices.

  Attributes:
    model: The towers.
    mesh: Of all devices.
    shards: Of a batch.
    user_budget, item_budget: Of a shard of either; a table with a larger example has
      more slots.
  """

  model: TwoTowers
  mesh: jax.sharding.Mesh
  shards: int
  user_budget: Budget
  item_budget: Budget

  def items(self, params: PyTree, table: Table) -> Float[np.ndarray, "i d"]:
    """The vectors of all items, in the order of their table."""
    return self._vectors(self._embed_items, params, table, self.item_budget)

  def users(
    self, params: PyTree, items: Float[np.ndarray, "i d"], table: Table
  ) -> Float[np.ndarray, "q d"]:
    """The vectors of users, given those of all items.

    Args:
      params: Of the towers.
      items: See `items`.
      table: Of users before an event, see `prefixes.users_before`.
    """
    placed = jax.device_put(items, sharding.replicated(self.mesh))
    return self._vectors(self._embed_users, (params, placed), table, self.user_budget)

  @functools.cached_property
  def _embed_items(self) -> evaluation.Predict:
    def of_shard(params: PyTree, batch: Any) -> Array:
      return self.model.apply(
        {"params": params}, batch.modalities, method="embed_items"
      )

    return evaluation.shard_map_jit(of_shard, self.mesh)

  @functools.cached_property
  def _embed_users(self) -> evaluation.Predict:
    def of_shard(inputs: tuple[PyTree, Array], batch: Any) -> Array:
      params, items = inputs
      return self.model.apply(
        {"params": params}, batch.modalities, items, method="embed_users"
      )

    return evaluation.shard_map_jit(of_shard, self.mesh)

  def _vectors(
    self, step: evaluation.Predict, params: PyTree, table: Table, budget: Budget
  ) -> np.ndarray:
    # Batches of training cut the largest items, and here none is.
    budget = fitting(table, budget)
    return evaluation.predict(step, params, table, budget, self.shards, self.mesh)
