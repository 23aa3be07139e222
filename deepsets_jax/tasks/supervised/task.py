"""The supervised task: labels, classes or numbers of sets."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, ClassVar

import grain
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


@dataclasses.dataclass(frozen=True)
class SupervisedTask(runs.Run):
  """The parts of a run with the methods of `training.task.Task`."""

  name: ClassVar[str] = "supervised"

  @classmethod
  def build(cls, config: ml_collections.ConfigDict) -> SupervisedTask:
    """Build the task of a config, see `run.build_run`.

    Raises:
      ConfigError: See `run.build_run`; or `config.train.metric` is not defined on the
        validation split.
    """
    run = runs.build_run(config)
    table, metric = run.tables["validation"], run.config.train.metric
    if metric in evaluation.undefined(table):
      raise ConfigError(
        f"config.train.metric {metric!r} is not defined on the {len(table)} validation"
        " examples, which are too few or all of one class. Choose 'loss', or validate"
        " on other examples"
      )
    return cls(**vars(run))

  @property
  def higher_is_better(self) -> bool:
    """Whether a larger `config.train.metric` is better."""
    return metrics.higher_is_better(self.config.train.metric)

  def costs(self) -> dict[str, Any]:
    """See `costs.model_costs`."""
    return model_costs(self)

  def train_batches(self) -> grain.DatasetIterator:
    """See `loader.train_batches`."""
    return loader.train_batches(
      self.tables["train"],
      self.budget,
      self.shards,
      seed=self.config.seed,
      total_steps=self.config.total_steps,
      dropout=self.absence,
    )

  def validate(self, params: PyTree) -> dict[str, float]:
    """Compute all metrics, with the threshold that is best on the validation split."""
    table, logits = self.tables["validation"], self.logits(params, "validation")
    threshold = evaluation.choose_threshold(table, logits)
    return evaluation.evaluate(table, logits, self.loss, threshold)

  def fill(self, batch: Batch) -> dict[str, float]:
    """See `task.fill`."""
    return task.fill(batch.modalities)

  def keep(self, workdir: pathlib.Path) -> None:
    """Write the encoding of the columns, if the data is a file of columns."""
    encoding = registry.encoding(self.config.data, self.config.seed)
    if encoding is not None and sharding.is_main_process():
      encodings.keep(encoding, workdir)

  def report(
    self,
    workdir: pathlib.Path,
    params: PyTree,
    loop_state: LoopState,
    costs: dict[str, Any],
  ) -> dict[str, Any]:
    """See `report.write_report`."""
    return report.write_report(self, workdir, params, loop_state, costs)
