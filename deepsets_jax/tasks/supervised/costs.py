"""Costs of a supervised run by the parts of its model, see `training.costs`."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array

from deepsets_jax.data.tables import budgets
from deepsets_jax.data.tables.batching import Batcher, EpochPlan, lengths_of
from deepsets_jax.ragged import Batch
from deepsets_jax.tasks.supervised.run import Run
from deepsets_jax.training import costs, sharding


def model_costs(run: Run) -> dict[str, Any]:
  """Costs of each part of the model, see `training.costs.combine_parts`."""
  table = run.tables["train"]
  examples = budgets.examples_per_shard(table, run.budget)
  shard = sharding.shard_shapes(run.abstract_batch)
  params = run.abstract_state.params

  def loss_fn(logits: Array, shard: Batch) -> Array:
    return run.loss(logits, shard.targets, shard.weights)[0]

  batcher = Batcher(table, run.budget, run.absence)
  plan = EpochPlan(lengths_of(table), len(table), run.budget, 1, run.config.seed)
  batches = [batcher.shard(plan.rows(i)[0], i) for i in range(costs.SHARDS)]
  counted = costs.model_flops(run.model, params, shard, loss_fn)
  counted = {name: number / examples for name, number in counted.items()}
  attention = costs.attention_flops(run.model, params, batches)
  usage = budgets.usage(table, run.budget)
  return costs.combine_parts(
    costs.model_parts(params, counted, attention, usage), attention, examples
  )
