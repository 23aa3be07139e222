"""The parts of a supervised run, built from its config: data, model, loss, step.

Every error of the config or the data is raised here, before anything is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import ml_collections
import numpy as np
import optax
from absl import logging
from jaxtyping import PyTree

from deepsets_jax.data.datasets import registry
from deepsets_jax.data.tables import budgets
from deepsets_jax.data.tables.batching import Batcher, Budget, SetDropout
from deepsets_jax.data.tables.schema import Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation import extensions
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.models import set_model
from deepsets_jax.ragged import Batch
from deepsets_jax.training import evaluation, losses, metrics, optimizer, sharding
from deepsets_jax.training import step as train_step
from deepsets_jax.training.task import CompiledTask

# Largest number of table cells in a shard: 8 MB as elements of 256 features. On a CPU
# with two cores, a step with 400 columns and 80 rows takes half as long with shards of
# this size as with one shard.
_MOST_CELLS = 8192


@dataclasses.dataclass(frozen=True)
class Run(CompiledTask):
  """The parts of a supervised run, without its state.

  Attributes:
    config: Config of the run with every open setting filled in.
    tables: Tables by split.
    budget: Examples and slots of a shard.
    shards: Number of shards of a batch, over all devices.
    mesh: Mesh of all devices.
    absence: Dropout of modalities and elements of training examples, or None.
    model: The model.
    loss: See `losses.build_loss`.
    step: See `step.build_step`.
    predict: See `evaluation.build_predict`.
    init: Builds the state before the first step, from the config's seed or another one.
  """

  config: ml_collections.ConfigDict
  tables: dict[str, Table]
  budget: Budget
  shards: int
  mesh: jax.sharding.Mesh
  absence: SetDropout | None
  model: set_model.SetModel
  loss: losses.Loss
  step: train_step.Step
  predict: evaluation.Predict
  init: Callable[..., train_step.State]

  @property
  def abstract_batch(self) -> Batch:
    """Shapes, types and shardings of a batch `[s, ...]` of all processes."""
    one = Batcher(self.tables["train"], self.budget).batch([np.arange(1)])
    return sharding.abstract_batch(one, self.shards, self.mesh)

  def logits(self, params: PyTree, split: str) -> np.ndarray:
    """Compute the logits `[b, k]` of a split."""
    return evaluation.predict(
      self.predict, params, self.tables[split], self.budget, self.shards, self.mesh
    )


def build_run(
  config: ml_collections.ConfigDict, tables: Mapping[str, Table] | None = None
) -> Run:
  """Build the parts of a run.

  Args:
    config: Config of the run.
    tables: Tables by split; by default those of `config.data`. To load a trained run,
      any tables with its schema suffice, such as `table.blank`.

  Raises:
    ConfigError: A setting is unknown, or does not fit the data or the devices.
    DataError: The data is bad.
  """
  check_positive(config)
  mesh = sharding.make_mesh()
  if tables is None:
    config = registry.resolve_columns(config)
    tables = registry.load_tables(config.data, config.seed)
  schema = tables["train"].schema
  config, tables, budget = _fill_in(config, dict(tables))
  _check_metric(config.train.metric, metrics.names(schema.target))
  targets = np.asarray(tables["train"].targets)
  bias = losses.prior_logits(schema.target, targets)
  model = set_model.build_set_model(config.model, schema, bias)
  loss = _loss(config.loss, schema.target, targets)
  tx = optimizer.build_optimizer(config.optim, config.total_steps)
  return Run(
    config=config,
    tables=tables,
    budget=budget,
    shards=config.data.shards,
    mesh=mesh,
    absence=_set_dropout(config),
    model=model,
    loss=loss,
    step=train_step.build_step(
      train_step.supervised(model.apply, loss),
      tx,
      mesh,
      ema_decay=config.optim.ema_decay,
    ),
    predict=evaluation.build_predict(model.apply, mesh),
    init=_build_init(config, model, tx, Batcher(tables["train"], budget), mesh),
  )


def _build_init(
  config: ml_collections.ConfigDict,
  model: set_model.SetModel,
  tx: optax.GradientTransformation,
  batcher: Batcher,
  mesh: jax.sharding.Mesh,
) -> Callable[..., train_step.State]:
  """See `step.build_init`; the shapes of the parameters come from one example."""
  example = jax.tree.map(lambda x: x[0], batcher.batch([np.arange(1)]).modalities)
  return train_step.build_init(
    lambda key: model.init(key, example)["params"],
    tx,
    mesh,
    seed=config.seed,
    average=config.optim.ema_decay is not None,
  )


def _loss(
  config: ml_collections.ConfigDict, target: Target, targets: np.ndarray
) -> losses.Loss:
  """The loss of the target, or the one of a user's own that the config names."""
  settings = config.to_dict()
  own = settings.pop("function")
  if own is not None:
    return extensions.find("config.loss.function", own, {})
  return losses.build_loss(target, targets, **settings)


def check_positive(config: ml_collections.ConfigDict) -> None:
  """Raise a ConfigError if a setting that counts something is below 1."""
  for key in (
    "total_steps",
    "data.batch_size",
    "data.shards",
    "model.features",
    "train.eval_every",
    "train.log_every",
    "train.patience",
  ):
    value = config
    for part in key.split("."):
      value = value[part]
    if value is not None and value < 1:
      raise ConfigError(f"config.{key} is {value}; expected at least 1")


def _check_metric(name: str, legal: Sequence[str]) -> None:
  if name not in (*legal, "loss"):
    raise ConfigError(
      f"unknown config.train.metric {name!r}; choose one of {sorted((*legal, 'loss'))}"
    )


def _set_dropout(config: ml_collections.ConfigDict) -> SetDropout | None:
  data = config.data
  if not data.modality_dropout and not data.element_dropout:
    return None
  return SetDropout(data.modality_dropout, data.element_dropout, config.seed)


def _fill_in(
  config: ml_collections.ConfigDict, tables: dict[str, Table]
) -> tuple[ml_collections.ConfigDict, dict[str, Table], Budget]:
  """Fill in the open settings.

  Returns:
    The config, the tables cut to the budget if `config.data.overflow` asks for it, and
    the budget of a shard.
  """
  config = config.copy_and_resolve_references()
  data = config.data
  with config.unlocked():
    if config.train.metric is None:
      config.train.metric = _usual_metric(tables["validation"])
    if data.shards is None:
      data.shards = _shards(tables["train"], data.batch_size)
    examples = examples_per_shard(config)
    proposed = budgets.propose(tables, examples)
    # A modality whose budget is None need not exist in this variant of the data.
    chosen = {k: v for k, v in data.budgets.items() if v is not None}
    unknown = sorted(set(chosen) - set(proposed))
    if unknown:
      raise ConfigError(
        f"config.data.budgets.{unknown[0]}: the data has no such modality; choose one"
        f" of {sorted(proposed)}"
      )
    data.budgets = proposed | chosen
  budget = Budget(examples, data.budgets.to_dict())
  if data.overflow not in ("error", "first", "random"):
    raise ConfigError(
      f"unknown config.data.overflow {data.overflow!r};"
      " choose one of ['error', 'first', 'random']"
    )
  if data.overflow != "error":
    tables = {
      split: _truncated(split, table, config, budget) for split, table in tables.items()
    }
  budgets.check(tables, budget.slots)
  return config, tables, budget


def _usual_metric(validation: Table) -> str:
  """Metric that selects the best checkpoint: the usual one if validation defines it."""
  name = metrics.usual(validation.schema.target)
  if name not in evaluation.undefined(validation):
    return name
  logging.warning(
    "validation: %s is not defined on its %d examples, which are too few or all of one"
    " class. The loss selects the best checkpoint instead", name, len(validation),
  )  # fmt: skip
  return "loss"


def _shards(table: Table, batch_size: int) -> int:
  """Number of shards: one per device, or more for a wide table.

  A shard then has at most `_MOST_CELLS` cells, which fit into caches and limit memory
  for any number of columns.
  """
  cells = sum(
    len(table.modalities[name].values)
    for name, modality in table.schema.modalities.items()
    if modality.valued
  )
  batch, shards = batch_size * cells / max(len(table), 1), jax.device_count()
  while batch / shards > _MOST_CELLS and batch_size % (2 * shards) == 0:
    shards *= 2
  return shards


def examples_per_shard(config: ml_collections.ConfigDict) -> int:
  """Number of examples per shard; fills in the number of shards if it is open.

  Args:
    config: Config of a run, unlocked.

  Raises:
    ConfigError: The devices do not divide the shards, or the shards the batch.
  """
  data = config.data
  if data.shards is None:
    data.shards = jax.device_count()
  sharding.check_shards(data.shards)
  if data.batch_size % data.shards:
    raise ConfigError(
      f"config.data.batch_size {data.batch_size} is not a multiple of the"
      f" {data.shards} shards; choose a multiple"
    )
  return data.batch_size // data.shards


def _truncated(
  split: str, table: Table, config: ml_collections.ConfigDict, budget: Budget
) -> Table:
  table, counts = budgets.truncate(
    table, budget.slots, config.data.overflow, config.seed
  )
  for name, count in counts.items():
    logging.warning(
      "%s: %d of %d examples cut to %d %r elements (overflow=%r)",
      split, count, len(table), budget.slots[name], name, config.data.overflow,
    )  # fmt: skip
  return table
