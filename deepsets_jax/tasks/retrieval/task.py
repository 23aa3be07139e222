"""The retrieval task: two towers find the next items of a user among all items."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import ml_collections
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from deepsets_jax.data.datasets import registry
from deepsets_jax.data.interactions import cold, next_item
from deepsets_jax.data.interactions.catalog import ItemCatalog
from deepsets_jax.data.interactions.cold import ColdSplit
from deepsets_jax.data.interactions.histories import Histories, Split, leave_out
from deepsets_jax.data.interactions.next_item import NextItemExamples
from deepsets_jax.data.interactions.pairs import PairBatcher, Pairs
from deepsets_jax.data.tables.batching import Budget
from deepsets_jax.data.tables.table import Table
from deepsets_jax.models import two_tower
from deepsets_jax.tasks import interactions
from deepsets_jax.tasks.retrieval import costs, evaluation, open_settings, softmax
from deepsets_jax.tasks.retrieval.vectors import TowerVectors
from deepsets_jax.tasks.supervised import run as runs
from deepsets_jax.training import optimizer, sharding
from deepsets_jax.training import step as train_step
from deepsets_jax.training.step import State, Step


@dataclasses.dataclass(frozen=True)
class RetrievalTask(interactions.InteractionTask):
  """Two towers on histories; implements `training.task.Task`.

  Attributes:
    config, mesh, examples, budget, batcher, step, init, splits: See
      `InteractionTask`.
    titles: Printable title of each item.
    histories: Events of all users, with the selected fields of users and items.
    train_ends: End of each user's training events.
    model: The two towers.
  """

  name: ClassVar[str] = "retrieval"

  config: ml_collections.ConfigDict
  mesh: jax.sharding.Mesh
  titles: np.ndarray
  histories: Histories
  splits: dict[str, Split | ColdSplit]
  train_ends: np.ndarray
  examples: NextItemExamples
  budget: Budget
  batcher: PairBatcher
  model: two_tower.TwoTowers
  step: Step
  init: Callable[..., State]

  @classmethod
  def build(
    cls, config: ml_collections.ConfigDict, source: ItemCatalog | None = None
  ) -> RetrievalTask:
    """Build the task of a config, see `tasks.build_task`.

    Args:
      config: Config of the run.
      source: Its data; by default that of `config.data`.
    """
    runs.check_positive(config)
    mesh = sharding.make_mesh()
    config = config.copy_and_resolve_references()
    source = source or registry.load_histories(config.data)
    histories, splits, train_ends = _split(config, source.histories)
    settings = config.data.histories
    examples = NextItemExamples(
      histories, train_ends, settings.max_history, settings.examples, config.seed
    )
    budget, batcher = _batching(config, examples)
    model = two_tower.build_two_towers(
      config, next_item.schema(histories), histories.items.schema
    )
    tx = optimizer.build_optimizer(config.optim, config.total_steps)

    def init_params(key: Array, shard: Pairs) -> PyTree:
      return model.init(key, shard.users.modalities, shard.items.modalities)["params"]

    return cls(
      config=config,
      mesh=mesh,
      titles=source.titles,
      histories=histories,
      splits=splits,
      train_ends=train_ends,
      examples=examples,
      budget=budget,
      batcher=batcher,
      model=model,
      step=_build_step(config, model, tx, mesh),
      init=interactions.build_init(config, init_params, tx, batcher, mesh),
    )

  def items(self, params: PyTree) -> Float[np.ndarray, "i d"]:
    """Compute the vectors of all items, in the order of their table."""
    return self._vectors.items(params, self.histories.items)

  def users(
    self, params: PyTree, items: Float[np.ndarray, "i d"], table: Table
  ) -> Float[np.ndarray, "q d"]:
    """Compute the vectors of users.

    Args:
      params: Parameters of the model.
      items: Vectors of all items, see `items`.
      table: Users before an event, see `next_item.users_before`.
    """
    return self._vectors.users(params, items, table)

  def before(self, split: str) -> Table:
    """Table of the users of a split before their held-out events."""
    chosen = self.splits[split]
    return next_item.users_before(
      self.histories, chosen.user_rows, chosen.known_ends, self.examples.max_history
    )

  def evaluate(
    self,
    params: PyTree,
    split: str,
    table: Table | None = None,
    among: np.ndarray | None = None,
  ) -> dict[str, float]:
    """Compute the metrics of full ranking and of the recommended lists.

    The items that a user has seen before are left out.

    Args:
      params: Parameters of the model.
      split: Name of a split.
      table: Users of the split, if they differ from `before(split)`.
      among: Ascending rows of the items to rank; None for all items.
    """
    items, chosen = self.items(params), self.splits[split]
    table = self.before(split) if table is None else table
    return evaluation.evaluate(
      self.users(params, items, table),
      items,
      chosen.targets(self.histories),
      chosen.known(self.histories),
      self.histories.popularity(self.train_ends),
      self.config.retrieval.cutoffs,
      among,
    )

  def costs(self) -> dict[str, Any]:
    """Costs of both towers per user, see `costs.tower_costs`."""
    return costs.tower_costs(self, self.model, self.abstract_state.params)

  def evaluate_splits(self, params: PyTree) -> dict[str, dict[str, float]]:
    """Compute the metrics of all splits, and of cold items among themselves."""
    results = super().evaluate_splits(params)
    if "cold" in self.splits:
      among = self.splits["cold"].cold_rows
      results["cold_alone"] = self.evaluate(params, "cold", among=among)
    return results

  @functools.cached_property
  def _vectors(self) -> TowerVectors:
    shards, items = self.config.data.shards, self.batcher.item_budget
    return TowerVectors(self.model, self.mesh, shards, self.budget, items)


def _split(
  config: ml_collections.ConfigDict, histories: Histories
) -> tuple[Histories, dict[str, Split | ColdSplit], np.ndarray]:
  """Hold out events, and cold items if the config asks for them.

  Returns:
    The histories with the selected fields, the splits by name, and the end of each
    user's training events.
  """
  settings, cold_split = config.data.histories, {}
  if settings.cold_items:
    histories, split = cold.hold_out(histories, settings.cold_items, config.seed)
    cold_split["cold"] = split
  splits, train_ends = leave_out(histories, settings.held_out)
  histories = interactions.select_fields(config, histories, train_ends)
  return histories, splits | cold_split, train_ends


def _batching(
  config: ml_collections.ConfigDict, examples: NextItemExamples
) -> tuple[Budget, PairBatcher]:
  """Fill in the open settings; returns the budget of users, and the batcher."""
  items, settings = examples.histories.items, config.retrieval
  keywords = dict(
    # The same config serves catalogs of any size.
    num_uniform_negatives=min(settings.num_uniform_negatives, len(items)),
    in_batch=settings.in_batch,
    tie_item_tower=settings.tie_item_tower,
    dropout=interactions.set_dropout(config),
  )
  with config.unlocked():
    open_settings.fill_in_metric(config, len(items))
    budget = open_settings.user_budget(config, examples.lengths(0), examples.longest())
    batcher = open_settings.build_batcher(
      config,
      budget,
      items.modalities,
      lambda slots: PairBatcher(examples, budget, item_slots=slots, **keywords),
    )
  return budget, batcher


def _build_step(
  config: ml_collections.ConfigDict,
  model: two_tower.TwoTowers,
  tx: optax.GradientTransformation,
  mesh: jax.sharding.Mesh,
) -> Step:
  settings = config.retrieval
  loss = softmax.SampledSoftmax(
    model, settings.temperature, settings.in_batch, settings.mask_seen
  )
  together = settings.cross_device_negatives
  return train_step.build_step(
    loss.device_loss if together else loss.shard_loss,
    tx,
    mesh,
    ema_decay=config.optim.ema_decay,
    together=together,
  )
