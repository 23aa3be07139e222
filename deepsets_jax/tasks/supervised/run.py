"""A run's parts, built from its config: data, model, loss, compiled functions.

Every error of config or data is raised here, before anything is written or trained.
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

# Cells of a shard of a table, as elements of 256 features 8 MB. On a CPU of two cores a
# step of 400 columns and 80 rows then takes half the time that it takes in one shard.
_MOST_CELLS = 8192


@dataclasses.dataclass(frozen=True)
class Run:
  """What a run is made of, once its config has been looked at; it has no state.

  Attributes:
    config: Resolved: every setting that was left open is filled in.
    tables: The splits.
    budget: Of a shard.
    shards: Of a batch, over all devices.
    mesh: Of all devices.
    absence: What is left out of training examples, or None.
    model, loss, step, predict: See `models`, `losses`, `train_step`, `evaluate`.
    init: The state before the first step, on the devices; of the config's seed, or of
      one that is given.
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
  def abstract_state(self) -> train_step.State:
    """Shapes, types and shardings of a state, to restore one."""
    return abstract(jax.eval_shape(self.init), sharding.replicated(self.mesh))

  @property
  def abstract_batch(self) -> Batch:
    """Shapes, types and shardings of a batch `[s, ...]` of all processes."""
    one = Batcher(self.tables["train"], self.budget).batch([np.arange(1)])
    return abstract_batch(one, self.shards, self.mesh)

  def compile_step(self) -> jax.stages.Compiled:
    """The step for this run's shapes, to call and to ask for its costs."""
    return self.step.lower(self.abstract_state, self.abstract_batch).compile()

  def logits(self, params: PyTree, split: str) -> np.ndarray:
    """The logits of a split, `[b, k]`."""
    return evaluation.predict(
      self.predict, params, self.tables[split], self.budget, self.shards, self.mesh
    )


def abstract(tree: PyTree, place: jax.sharding.Sharding) -> PyTree:
  """Shapes, types and shardings of arrays of these shapes and types."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree
  )


def abstract_batch(one: PyTree, shards: int, mesh: jax.sharding.Mesh) -> PyTree:
  """What a batch of so many shards is, given one of one shard on the host."""
  one = jax.eval_shape(lambda batch: batch, one)  # On devices int64 is int32.
  one = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((shards, *x.shape[1:]), x.dtype), one
  )
  return abstract(one, sharding.by_shard(mesh))


def build_run(
  config: ml_collections.ConfigDict, tables: Mapping[str, Table] | None = None
) -> Run:
  """The parts of a run.

  Args:
    config: Of the run.
    tables: Its splits; None for those that `config.data` names. For a run that is
      trained already any of the schema will do, such as `table.blank`.

  Raises:
    ConfigError: A setting names nothing, or does not fit the data or the devices.
    DataError: Bad data.
  """
  check_positive(config)
  mesh = sharding.make_mesh()
  if tables is None:
    config = registry.resolve_columns(config)
    tables = registry.load_tables(config.data, config.seed)
  schema = tables["train"].schema
  config, tables, budget = _fit(config, dict(tables))
  _check_metric(config.train.metric, metrics.names(schema.target))
  targets = np.asarray(tables["train"].targets)
  bias = losses.prior_logits(schema.target, targets)
  model = set_model.build_set_model(config.model, schema, bias)
  loss = _loss(config.loss, schema.target, targets)
  tx = optimizer.build_optimizer(config.optim, config.total_steps)
  init = _init(config, model, tx, Batcher(tables["train"], budget), mesh)
  check_init(init)
  return Run(
    config=config,
    tables=tables,
    budget=budget,
    shards=config.data.shards,
    mesh=mesh,
    absence=_absence(config),
    model=model,
    loss=loss,
    step=train_step.build_step(
      train_step.supervised(model.apply, loss),
      tx,
      mesh,
      ema_decay=config.optim.ema_decay,
    ),
    predict=evaluation.build_predict(model.apply, mesh),
    init=init,
  )


def check_init(init: Callable[..., train_step.State]) -> None:
  """Traces the initialization, so that a module that refuses its settings does so now.

  Raises:
    ConfigError: A module has raised a ValueError.
  """
  try:
    jax.eval_shape(init)
  except ConfigError:
    raise
  except ValueError as error:
    raise ConfigError(f"config.model: {error}") from error


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
  """Raises a ValueError for a number of something that is below 1."""
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
      f"unknown config.train.metric {name!r}; one of {sorted((*legal, 'loss'))}"
    )


def _absence(config: ml_collections.ConfigDict) -> SetDropout | None:
  data = config.data
  absence = SetDropout(data.modality_dropout, data.element_dropout, config.seed)
  return absence if data.modality_dropout or data.element_dropout else None


def _init(
  config: ml_collections.ConfigDict,
  model: set_model.SetModel,
  tx: optax.GradientTransformation,
  batcher: Batcher,
  mesh: jax.sharding.Mesh,
) -> Callable[..., train_step.State]:
  """The jitted function to a state at step 0; shapes come from one example."""
  batch = batcher.batch([np.arange(1)])
  modalities = jax.tree.map(lambda x: x[0], batch.modalities)

  def init(seed: int = config.seed) -> train_step.State:
    init_key, step_key = jax.random.split(jax.random.key(seed))
    params = model.init(init_key, modalities)["params"]
    average = config.optim.ema_decay is not None
    return train_step.init_state(params, tx, step_key, average=average)

  return jax.jit(init, out_shardings=sharding.replicated(mesh))


def _fit(
  config: ml_collections.ConfigDict, tables: dict[str, Table]
) -> tuple[ml_collections.ConfigDict, dict[str, Table], Budget]:
  """Config with what was open filled in, tables that fit the budget, the budget."""
  config = config.copy_and_resolve_references()
  data = config.data
  with config.unlocked():
    if config.train.metric is None:
      config.train.metric = _usual_metric(tables["validation"])
    if data.shards is None:
      data.shards = _shards(tables["train"], data.batch_size)
    examples = examples_per_shard(config)
    proposed = budgets.propose(tables, examples)
    # A modality without a value may be missing from this form of the data.
    chosen = {k: v for k, v in data.budgets.items() if v is not None}
    unknown = sorted(set(chosen) - set(proposed))
    if unknown:
      raise ConfigError(
        f"config.data.budgets.{unknown[0]}: the data has no such modality; it has"
        f" {sorted(proposed)}"
      )
    data.budgets = proposed | chosen
  budget = Budget(examples, data.budgets.to_dict())
  if data.overflow not in ("error", "first", "random"):
    raise ConfigError(
      f"unknown config.data.overflow {data.overflow!r};"
      " one of ['error', 'first', 'random']"
    )
  if data.overflow != "error":
    tables = {
      split: _truncated(split, table, config, budget) for split, table in tables.items()
    }
  budgets.check(tables, budget.slots)
  return config, tables, budget


def _usual_metric(validation: Table) -> str:
  """The metric that the best checkpoint is chosen by: one that validation has."""
  name = metrics.usual(validation.schema.target)
  if name not in evaluation.undefined(validation):
    return name
  logging.warning(
    "validation: %s says nothing of its %d examples, which are too few or all of one"
    " class; the best checkpoint is chosen by the loss", name, len(validation),
  )  # fmt: skip
  return "loss"


def _shards(table: Table, batch_size: int) -> int:
  """One shard per device, or more of a wide table, whose cells would not fit caches.

  Memory is then that of `_MOST_CELLS` elements for any number of columns.
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
  """Of an unlocked config, which is given its number of shards where it has none."""
  data = config.data
  if data.shards is None:
    data.shards = jax.device_count()
  sharding.check_shards(data.shards)
  if data.batch_size % data.shards:
    raise ConfigError(
      f"config.data.batch_size {data.batch_size} is not a multiple of the"
      f" {data.shards} shards"
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
