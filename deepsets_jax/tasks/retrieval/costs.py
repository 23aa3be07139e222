"""Costs of two towers, see `training.costs`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from deepsets_jax.data.interactions.next_item import HISTORY
from deepsets_jax.data.tables import budgets
from deepsets_jax.data.tables.batching import EpochPlan
from deepsets_jax.models.two_tower import TwoTowers
from deepsets_jax.ragged import Batch
from deepsets_jax.tasks.interactions import InteractionTask
from deepsets_jax.training import costs, sharding


def tower_costs(
  task: InteractionTask, towers: TwoTowers, params: PyTree
) -> dict[str, Any]:
  """Costs of two towers per user, see `training.costs.combine_parts`.

  The names of parts begin with "users." or "items.". The FLOPs for the items of a shard
  are divided among its users. The use of slots is that of some shards of the first
  epoch.

  Args:
    task: Task that trains the towers.
    towers: The two towers.
    params: Shapes of their parameters.
  """
  source = task.examples
  plan = EpochPlan(source.lengths, len(source), task.budget, 1, source.seed)
  pairs = [
    jax.tree.map(
      lambda x: x[0], task.batcher.batch(*plan.epoch_and_rows(step), step, 0)
    )
    for step in range(costs.SHARDS)
  ]
  examples = float(np.median([shard.users.weights.sum() for shard in pairs]))
  shapes = sharding.shard_shapes(task.abstract_batch)
  parts, reported = {}, {}
  for tower in ("users", "items"):
    model, own = getattr(towers, tower), params[tower]
    batches = [getattr(shard, tower) for shard in pairs]
    shape = _model_input(towers, getattr(shapes, tower))
    counted = costs.model_flops(model, own, shape, _squared_length)
    counted = {name: number / examples for name, number in counted.items()}
    filled = [_model_input(towers, batch) for batch in batches]
    attention = costs.attention_flops(model, own, filled)
    usage = {
      name: _usage([batch.modalities[name] for batch in batches], batches)
      for name in batches[0].modalities
    }
    found = costs.model_parts(own, counted, attention, usage)
    parts |= {f"{tower}.{name}": part for name, part in found.items()}
    reported |= {f"{tower}.{name}": number for name, number in attention.items()}
  return costs.combine_parts(parts, reported, examples)


def _squared_length(vectors: Array, shard: Batch) -> Array:
  """Stands in for the loss, which needs the vectors of both towers."""
  del shard
  return jnp.sum(jnp.square(vectors))


def _model_input(towers: TwoTowers, batch: PyTree) -> PyTree:
  """The input of a tower. With a tied item tower, histories hold item vectors."""
  if not towers.tie_item_tower or HISTORY not in batch.modalities:
    return batch
  history = batch.modalities[HISTORY]
  shape = (history.values.shape[0], len(towers.users.head.bias))
  if isinstance(history.values, jax.ShapeDtypeStruct):
    vectors = jax.ShapeDtypeStruct(shape, jnp.float32)
  else:
    vectors = np.zeros(shape, np.float32)
  modalities = {**batch.modalities, HISTORY: history.replace(values=vectors)}
  return batch.replace(modalities=modalities)


def _usage(parts: list[Any], batches: list[Batch]) -> budgets.Usage:
  """Use of the slots of a modality in some shards."""
  lengths = np.concatenate(
    [
      np.diff(part.offsets)[batch.weights > 0]
      for part, batch in zip(parts, batches, strict=True)
    ]
  )
  slots = parts[0].values.shape[0]
  return budgets.Usage.of(lengths, slots, len(parts))
