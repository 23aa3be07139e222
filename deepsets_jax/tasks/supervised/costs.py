"""What a supervised run costs, by the parts of its model; see `training.costs`."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array

from deepsets_jax.data.tables import budgets
from deepsets_jax.data.tables.batching import Batcher, EpochPlan, lengths_of
from deepsets_jax.ragged import Batch
from deepsets_jax.tasks.supervised.run import Run
from deepsets_jax.training import costs


def model_costs(run: Run) -> dict[str, Any]:
  """What each part of the model costs; a value for `json.dump`.

  Returns:
    "parts": by "encoders.<modality>", "fusion" and "head", in this order, the number of
      "parameters", "flops_per_example" and, of an encoder, the fields of
      `budgets.Usage`.
    "parameters", "flops_per_example": the sums; of the latter,
      "attention_flops_per_example" are those that modules report.
    "examples_per_shard": the median.
  """
  table = run.tables["train"]
  examples = budgets.examples_per_shard(table, run.budget)
  shard = costs.shard_shapes(run.abstract_batch)
  params = run.abstract_state.params

  def lose(logits: Array, shard: Batch) -> Array:
    return run.loss(logits, shard.targets, shard.weights)[0]

  batcher = Batcher(table, run.budget, run.absence)
  plan = EpochPlan(lengths_of(table), len(table), run.budget, 1, run.config.seed)
  batches = [batcher.shard(plan.rows(i)[0], i) for i in range(costs.SHARDS)]
  counted = costs.model_flops(run.model, params, shard, lose)
  counted = {name: number / examples for name, number in counted.items()}
  attention = costs.attention_flops(run.model, params, batches)
  usage = budgets.usage(table, run.budget)
  return costs.assembled(
    costs.model_parts(params, counted, attention, usage), attention, examples
  )
