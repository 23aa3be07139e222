"""The common part of the tasks on interactions: batches, state, results."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import grain
import jax
import ml_collections
import numpy as np
import optax
from jaxtyping import Array, PyTree

from deepsets_jax import figures
from deepsets_jax.data.interactions import field_selection
from deepsets_jax.data.interactions.cold import ColdSplit
from deepsets_jax.data.interactions.histories import Histories, Split
from deepsets_jax.data.tables import loader
from deepsets_jax.data.tables.batching import Budget, EpochPlan, SetDropout
from deepsets_jax.foundation.files import write_json
from deepsets_jax.tasks import report
from deepsets_jax.tasks.retrieval.open_settings import ITEM_PREFIX
from deepsets_jax.training import sharding, task
from deepsets_jax.training import step as train_step
from deepsets_jax.training.checkpoints import LoopState
from deepsets_jax.training.step import State, Step
from deepsets_jax.training.task import CompiledTask
from deepsets_jax.training.writers import read_metrics


class Examples(Protocol):
  """Training examples, such as `next_item.NextItemExamples`.

  Attributes:
    seed: Seed of their order.
  """

  seed: int

  def __len__(self) -> int: ...

  def lengths(self, epoch: int) -> Mapping[str, np.ndarray]: ...


class Batches(Protocol):
  """Gathers examples into batches with `users` and `items`; see `pairs.PairBatcher`."""

  item_budget: Budget

  def batch(self, epoch: int, rows: Any, step: int, first_shard: int) -> Any: ...


class InteractionTask(CompiledTask):
  """The part of `training.task.Task` that all tasks on interactions share.

  Attributes:
    config: Config of the run with every open setting filled in.
    mesh: Mesh of all devices.
    examples: Training examples.
    splits: Users and the events that are held out from them, by name of the split.
    budget: Users of a shard, and slots of their modalities.
    batcher: Gathers training batches.
    step: The training step.
    init: Builds the state before the first step.
  """

  config: ml_collections.ConfigDict
  mesh: jax.sharding.Mesh
  examples: Examples
  splits: Mapping[str, Split | ColdSplit]
  budget: Budget
  batcher: Batches
  step: Step
  init: Callable[..., State]

  @property
  def higher_is_better(self) -> bool:
    """True for all metrics of these tasks."""
    return True

  @property
  def abstract_batch(self) -> Any:
    """Shapes, types and shardings of a batch `[s, ...]` of all processes."""
    one = self.batcher.batch(0, [np.arange(1)], 0, 0)
    return sharding.abstract_batch(one, self.config.data.shards, self.mesh)

  def train_batches(self) -> grain.DatasetIterator:
    """This process's shards of the batches of all steps."""
    examples, shards = self.examples, self.config.data.shards
    plan = EpochPlan(
      examples.lengths, len(examples), self.budget, shards, examples.seed
    )
    own = loader.own_shards(shards)

    def batch(step: int) -> Any:
      epoch, rows = plan.epoch_and_rows(step)
      return self.batcher.batch(epoch, rows[own], step, own.start)

    return loader.prefetch(batch, self.config.total_steps)

  def fill(self, batch: Any) -> dict[str, float]:
    """See `task.fill`; the modalities of items have a prefix."""
    items = {f"{ITEM_PREFIX}{k}": v for k, v in batch.items.modalities.items()}
    return task.fill({**batch.users.modalities, **items})

  def keep(self, workdir: pathlib.Path) -> None:
    """Write nothing: loading the run reads its data again."""

  def evaluate(self, params: PyTree, split: str) -> dict[str, float]:
    """Compute the metrics of a split."""
    raise NotImplementedError

  def validate(self, params: PyTree) -> dict[str, float]:
    """Compute the metrics of the validation split."""
    return self.evaluate(params, "validation")

  def evaluate_splits(self, params: PyTree) -> dict[str, dict[str, float]]:
    """Compute the metrics of all splits but the training split."""
    return {split: self.evaluate(params, split) for split in self.splits}

  def report(
    self,
    workdir: pathlib.Path,
    params: PyTree,
    loop_state: LoopState,
    costs: dict[str, Any],
  ) -> dict[str, Any]:
    """Evaluate the splits, and write the results and the learning curves."""
    results = self.evaluate_splits(params)
    results |= report.facts(params, loop_state) | {"summary": costs}
    if sharding.is_main_process():
      figure = figures.learning_curves(
        read_metrics(workdir), self.config.train.metric, loop_state.best_step
      )
      figures.save(figure, workdir / "learning_curves.png")
      write_json(workdir / "results.json", results)
    return results


def set_dropout(config: ml_collections.ConfigDict) -> SetDropout:
  """Dropout of modalities and elements of users in training."""
  data = config.data
  return SetDropout(data.modality_dropout, data.element_dropout, config.seed)


def build_init(
  config: ml_collections.ConfigDict,
  init_params: Callable[[Array, Any], PyTree],
  tx: optax.GradientTransformation,
  batcher: Batches,
  mesh: jax.sharding.Mesh,
) -> Callable[..., State]:
  """See `step.build_init`; `init_params` maps a key and a shard to parameters."""
  shard = jax.tree.map(lambda x: x[0], batcher.batch(0, [np.arange(1)], 0, 0))
  return train_step.build_init(
    lambda key: init_params(key, shard),
    tx,
    mesh,
    seed=config.seed,
    average=config.optim.ema_decay is not None,
  )


def select_fields(
  config: ml_collections.ConfigDict, histories: Histories, train_ends: np.ndarray
) -> Histories:
  """Select the fields of users and items that `config.data.histories` names."""
  settings = config.data.histories
  return field_selection.select_fields(
    histories,
    histories.popularity(train_ends),
    user_fields=settings.user_fields,
    item_fields=settings.item_fields,
    id_events=settings.id_events,
  )
