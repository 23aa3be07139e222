"""What two towers will cost, told before they train; see `summary`."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from deepsets_jax.data.interactions.next_item import HISTORY, NextItemExamples
from deepsets_jax.data.interactions.pairs import PairBatcher
from deepsets_jax.data.tables import budgets
from deepsets_jax.data.tables.batching import Budget, EpochPlan
from deepsets_jax.models.two_tower import TwoTowers
from deepsets_jax.ragged import Batch
from deepsets_jax.training import costs


class _Task(Protocol):
  """What is needed of a task of towers."""

  model: TwoTowers
  prefixes: NextItemExamples
  batcher: PairBatcher
  budget: Budget
  abstract_state: Any
  abstract_batch: Any


def tower_costs(task: _Task) -> dict[str, Any]:
  """As `costs.model_costs`, the parts of each tower under its name.

  FLOPs are per user: the items of a shard count for its users. How slots are filled is
  that of some shards of the first epoch.
  """
  plan = EpochPlan(
    task.prefixes.lengths, len(task.prefixes), task.budget, 1, task.prefixes.seed
  )
  pairs = [
    jax.tree.map(
      lambda x: x[0], task.batcher.batch(*plan.epoch_and_rows(step), step, 0)
    )
    for step in range(costs.SHARDS)
  ]
  examples = float(np.median([shard.users.weights.sum() for shard in pairs]))
  parts, reported = {}, {}
  for tower in ("users", "items"):
    model = getattr(task.model, tower)
    params = task.abstract_state.params[tower]
    batches = [getattr(shard, tower) for shard in pairs]
    shape = _as_given(task, getattr(costs.shard_shapes(task.abstract_batch), tower))
    counted = costs.model_flops(model, params, shape, _length)
    counted = {name: number / examples for name, number in counted.items()}
    filled = [_as_given(task, batch) for batch in batches]
    attention = costs.attention_flops(model, params, filled)
    usage = {
      name: _usage([batch.modalities[name] for batch in batches], batches)
      for name in batches[0].modalities
    }
    found = costs.model_parts(params, counted, attention, usage)
    parts |= {f"{tower}.{name}": part for name, part in found.items()}
    reported |= {f"{tower}.{name}": number for name, number in attention.items()}
  return costs.assembled(parts, reported, examples)


def _length(vectors: Array, shard: Batch) -> Array:
  """Stands for the loss of the vectors, which is of both towers."""
  del shard
  return jnp.sum(jnp.square(vectors))


def _as_given(task: _Task, batch: PyTree) -> PyTree:
  """The batch as its model sees it: a history is of vectors where these are shared."""
  if not task.model.tie_item_tower or HISTORY not in batch.modalities:
    return batch
  history = batch.modalities[HISTORY]
  width = task.model.users.head.bias
  shape = (history.values.shape[0], len(width))
  if isinstance(history.values, jax.ShapeDtypeStruct):
    vectors = jax.ShapeDtypeStruct(shape, jnp.float32)
  else:
    vectors = np.zeros(shape, np.float32)
  modalities = {**batch.modalities, HISTORY: history.replace(values=vectors)}
  return batch.replace(modalities=modalities)


def _usage(parts: list[Any], batches: list[Batch]) -> budgets.Usage:
  """How one modality fills its slots, over some shards."""
  lengths = np.concatenate(
    [
      np.diff(part.offsets)[batch.weights > 0]
      for part, batch in zip(parts, batches, strict=True)
    ]
  )
  slots = parts[0].values.shape[0]
  return budgets.Usage.of(lengths, slots, len(parts))
