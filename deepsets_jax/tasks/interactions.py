"""What tasks on histories have in common: batches, a state, and the run's files."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import grain
import jax
import ml_collections
import numpy as np
from jaxtyping import Array, PyTree

from deepsets_jax import figures
from deepsets_jax.data.tables import loader
from deepsets_jax.data.tables.batching import Budget, EpochPlan, SetDropout
from deepsets_jax.foundation.files import write_json
from deepsets_jax.tasks import report
from deepsets_jax.tasks.retrieval import shapes
from deepsets_jax.tasks.supervised import run as runs
from deepsets_jax.training import sharding, task
from deepsets_jax.training import step as train_step
from deepsets_jax.training.checkpoints import LoopState
from deepsets_jax.training.step import State, Step
from deepsets_jax.training.writers import read_metrics


class Examples(Protocol):
  """The training examples, such as `prefixes.NextItemExamples`.

  Attributes:
    seed: Of their order.
  """

  seed: int

  def __len__(self) -> int: ...

  def lengths(self, epoch: int) -> Mapping[str, np.ndarray]: ...


class Batches(Protocol):
  """Gathers them, such as `pairs.PairBatcher`, into `users`, `items` and more."""

  item_budget: Budget

  def batch(self, epoch: int, rows: Any, step: int, first_shard: int) -> Any: ...


class InteractionTask:
  """The part of a `task.Task` that is the same for all; for dataclasses.

  Attributes:
    config: Resolved.
    mesh: Of all devices.
    examples: Of training.
    budget: Of the users of a shard, and of what comes with them.
    batcher: Of training.
    step: The training step.
    init: The state before it.
  """

  config: ml_collections.ConfigDict
  mesh: jax.sharding.Mesh
  examples: Examples
  budget: Budget
  batcher: Batches
  step: Step
  init: Callable[..., State]

  @property
  def higher_is_better(self) -> bool:
    """So it is of every metric that a model may be chosen by."""
    return True

  @property
  def abstract_state(self) -> State:
    """Shapes of a state."""
    return runs.abstract(jax.eval_shape(self.init), sharding.replicated(self.mesh))

  @property
  def abstract_batch(self) -> Any:
    """Shapes of a batch `[s, ...]` of all processes."""
    one = self.batcher.batch(0, [np.arange(1)], 0, 0)
    return runs.abstract_batch(one, self.config.data.shards, self.mesh)

  def train_batches(self) -> grain.DatasetIterator:
    """The batches of all steps, this process's shards."""
    examples, shards = self.examples, self.config.data.shards
    plan = EpochPlan(
      examples.lengths, len(examples), self.budget, shards, examples.seed
    )
    own = loader.own_shards(shards)

    def batch(step: int) -> Any:
      epoch, rows = plan.epoch_and_rows(step)
      return self.batcher.batch(epoch, rows[own], step, own.start)

    return loader.prefetch(batch, self.config.total_steps)

  def compile_step(self) -> jax.stages.Compiled:
    """The step for this run's shapes."""
    return self.step.lower(self.abstract_state, self.abstract_batch).compile()

  def fill(self, batch: Any) -> dict[str, float]:
    """See `task.fill`; those of items have a prefix."""
    items = {f"{shapes.ITEM}{k}": v for k, v in batch.items.modalities.items()}
    return task.fill({**batch.users.modalities, **items})

  def keep(self, workdir: pathlib.Path) -> None:
    """Nothing: the data is read again."""


def absence(config: ml_collections.ConfigDict) -> SetDropout:
  """What is left out of users in training."""
  data = config.data
  return SetDropout(data.modality_dropout, data.element_dropout, config.seed)


def init(
  config: ml_collections.ConfigDict,
  params: Callable[[Array, Any], PyTree],
  tx: Any,
  batcher: Batches,
  mesh: jax.sharding.Mesh,
) -> Callable[..., State]:
  """The jitted function to a state at step 0.

  Args:
    config: Of the run.
    params: From a key and a shard to the parameters of the model.
    tx: The optimizer.
    batcher: Of training.
    mesh: Of all devices.
  """
  one = batcher.batch(0, [np.arange(1)], 0, 0)
  one = jax.tree.map(lambda x: x[0], one)

  def of_seed(seed: int = config.seed) -> State:
    init_key, step_key = jax.random.split(jax.random.key(seed))
    average = config.optim.ema_decay is not None
    return train_step.init_state(params(init_key, one), tx, step_key, average=average)

  made = jax.jit(of_seed, out_shardings=sharding.replicated(mesh))
  jax.eval_shape(made)  # What a module refuses, it refuses here.
  return made


def write_results(
  workdir: pathlib.Path,
  config: ml_collections.ConfigDict,
  results: dict[str, Any],
  params: PyTree,
  position: LoopState,
  summary: dict[str, Any],
) -> dict[str, Any]:
  """The metrics of splits with what is known of the run besides, and its pictures."""
  results = results | report.facts(params, position) | {"summary": summary}
  if sharding.is_main_process():
    figure = figures.learning_curves(
      read_metrics(workdir), config.train.metric, position.best_step
    )
    figures.save(figure, workdir / "learning_curves.png")
    write_json(workdir / "results.json", results)
  return results
