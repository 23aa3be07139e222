"""Labels, classes or numbers of sets: the task of `run.Run`."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import grain
import jax
import ml_collections
from jaxtyping import PyTree

from deepsets_jax.data.datasets import registry
from deepsets_jax.data.tables import loader
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Batch
from deepsets_jax.tasks import report
from deepsets_jax.tasks.supervised import encodings
from deepsets_jax.tasks.supervised import run as runs
from deepsets_jax.tasks.supervised.costs import model_costs
from deepsets_jax.training import evaluation, metrics, sharding, task
from deepsets_jax.training.checkpoints import LoopState
from deepsets_jax.training.step import State


@dataclasses.dataclass(frozen=True)
class SupervisedTask:
  """A run that is asked for labels; see `task.Task`."""

  run: runs.Run

  @classmethod
  def build(cls, config: ml_collections.ConfigDict) -> SupervisedTask:
    """See `run.build_run`.

    Raises:
      ConfigError: Also, the metric to choose the best checkpoint by is not defined on
        the validation part.
    """
    run = runs.build_run(config)
    table, metric = run.tables["validation"], run.config.train.metric
    if metric in evaluation.undefined(table):
      raise ConfigError(
        f"config.train.metric {metric!r} says nothing of the {len(table)} examples of"
        " validation, which are too few or all of one class; take 'loss', or another"
        " split"
      )
    return cls(run)

  @property
  def config(self) -> ml_collections.ConfigDict:
    """Of the run."""
    return self.run.config

  @property
  def mesh(self) -> jax.sharding.Mesh:
    """Of all devices."""
    return self.run.mesh

  @property
  def init(self) -> Callable[..., State]:
    """The state before the first step."""
    return self.run.init

  @property
  def higher_is_better(self) -> bool:
    """Whether more of the metric is."""
    return metrics.higher_is_better(self.config.train.metric)

  @property
  def abstract_state(self) -> State:
    """Shapes of a state."""
    return self.run.abstract_state

  def costs(self) -> dict[str, Any]:
    """See `costs.model_costs`."""
    return model_costs(self.run)

  def compile_step(self) -> jax.stages.Compiled:
    """See `run.Run`."""
    return self.run.compile_step()

  def train_batches(self) -> grain.DatasetIterator:
    """See `loader.train_batches`."""
    run = self.run
    return loader.train_batches(
      run.tables["train"],
      run.budget,
      run.shards,
      seed=run.config.seed,
      total_steps=run.config.total_steps,
      dropout=run.absence,
    )

  def validate(self, params: PyTree) -> dict[str, float]:
    """Every metric, at the threshold that suits this part best."""
    run = self.run
    table, logits = run.tables["validation"], run.logits(params, "validation")
    threshold = evaluation.choose_threshold(table, logits)
    return evaluation.evaluate(table, logits, run.loss, threshold)

  def fill(self, batch: Batch) -> dict[str, float]:
    """See `task.fill`."""
    return task.fill(batch.modalities)

  def keep(self, workdir: pathlib.Path) -> None:
    """How columns of a file became tables, where they did."""
    encoding = registry.encoding(self.config.data, self.config.seed)
    if encoding is not None and sharding.is_main_process():
      encodings.keep(encoding, workdir)

  def report(
    self,
    workdir: pathlib.Path,
    params: PyTree,
    position: LoopState,
    summary: dict[str, Any],
  ) -> dict[str, Any]:
    """See `report.write_report`."""
    return report.write_report(self.run, workdir, params, position, summary)
