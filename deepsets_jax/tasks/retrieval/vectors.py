"""Vectors of whole tables of users and items, computed by the two towers."""

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
from deepsets_jax.tasks.trained import enlarged_budget
from deepsets_jax.training import evaluation, sharding


@dataclasses.dataclass(frozen=True)
class TowerVectors:
  """Embeds tables of users and items on all devices.

  Attributes:
    model: The two towers.
    mesh: Mesh of all devices.
    shards: Number of shards of a batch, over all devices.
    user_budget: Budget of a shard of users, enlarged for tables with larger examples.
    item_budget: Budget of a shard of items, enlarged in the same way.
  """

  model: TwoTowers
  mesh: jax.sharding.Mesh
  shards: int
  user_budget: Budget
  item_budget: Budget

  def items(self, params: PyTree, table: Table) -> Float[np.ndarray, "i d"]:
    """Compute the vectors of all items, in the order of their table."""
    return self._vectors(self._embed_items, params, table, self.item_budget)

  def users(
    self, params: PyTree, items: Float[np.ndarray, "i d"], table: Table
  ) -> Float[np.ndarray, "q d"]:
    """Compute the vectors of users.

    Args:
      params: Parameters of the towers.
      items: Vectors of all items, see `items`.
      table: Users before an event, see `next_item.users_before`.
    """
    placed = jax.device_put(items, sharding.replicated(self.mesh))
    return self._vectors(self._embed_users, (params, placed), table, self.user_budget)

  @functools.cached_property
  def _embed_items(self) -> evaluation.Predict:
    def shard_fn(params: PyTree, batch: Any) -> Array:
      return self.model.apply(
        {"params": params}, batch.modalities, method="embed_items"
      )

    return evaluation.shard_map_jit(shard_fn, self.mesh)

  @functools.cached_property
  def _embed_users(self) -> evaluation.Predict:
    def shard_fn(inputs: tuple[PyTree, Array], batch: Any) -> Array:
      params, items = inputs
      return self.model.apply(
        {"params": params}, batch.modalities, items, method="embed_users"
      )

    return evaluation.shard_map_jit(shard_fn, self.mesh)

  def _vectors(
    self, step: evaluation.Predict, params: PyTree, table: Table, budget: Budget
  ) -> np.ndarray:
    # Training batches may truncate large examples; evaluation does not.
    budget = enlarged_budget(budget, table)
    return evaluation.predict(step, params, table, budget, self.shards, self.mesh)
