"""Recall: of all items those that a user comes to next, by two towers."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
from jaxtyping import Array, Float, PyTree

from deepsets_jax.data.datasets import registry
from deepsets_jax.data.interactions import cold, field_selection, next_item
from deepsets_jax.data.interactions.catalog import ItemCatalog
from deepsets_jax.data.interactions.cold import ColdSplit
from deepsets_jax.data.interactions.histories import Histories, Split, leave_out
from deepsets_jax.data.interactions.next_item import NextItemExamples
from deepsets_jax.data.interactions.pairs import PairBatcher, Pairs
from deepsets_jax.data.tables.batching import Budget
from deepsets_jax.data.tables.table import Table
from deepsets_jax.models import two_tower
from deepsets_jax.tasks import interactions
from deepsets_jax.tasks.retrieval import costs, evaluation, shapes, softmax
from deepsets_jax.tasks.retrieval.vectors import Vectors
from deepsets_jax.tasks.supervised import run as runs
from deepsets_jax.training import optimizer, sharding
from deepsets_jax.training import step as train_step
from deepsets_jax.training.checkpoints import LoopState
from deepsets_jax.training.step import State, Step


@dataclasses.dataclass(frozen=True)
class RetrievalTask(interactions.InteractionTask):
  """Two towers on histories; see `task.Task`.

  Attributes:
    config: Resolved.
    mesh: Of all devices.
    titles: Of each item, to be printed.
    histories: With the fields that the config chooses, and ids of items.
    splits: By name, who is to find what.
    train_ends: Where the training events of each user end.
    prefixes: The training examples.
    budget: Of the users of a shard.
    batcher: Of training.
    model: The towers.
    step: The training step.
    init: The state before it.
  """

  config: ml_collections.ConfigDict
  mesh: jax.sharding.Mesh
  titles: np.ndarray
  histories: Histories
  splits: dict[str, Split | ColdSplit]
  train_ends: np.ndarray
  prefixes: NextItemExamples
  budget: Budget
  batcher: PairBatcher
  model: two_tower.TwoTowers
  step: Step
  init: Callable[..., State]

  @classmethod
  def build(
    cls, config: ml_collections.ConfigDict, source: ItemCatalog | None = None
  ) -> RetrievalTask:
    """The task of a config, see `tasks.build_task`; of its data, or of those given."""
    runs.check_positive(config)
    mesh = sharding.make_mesh()
    config = config.copy_and_resolve_references()
    settings = config.data.histories
    source = source or registry.load_histories(config.data)
    histories, cold_split = source.histories, {}
    if settings.cold_items:
      histories, asked = cold.hold_out(histories, settings.cold_items, config.seed)
      cold_split["cold"] = asked
    splits, train_ends = leave_out(histories, settings.held_out)
    popularity = histories.popularity(train_ends)
    keys = ("user_fields", "item_fields", "id_events")
    histories = field_selection.select_fields(
      histories, popularity, **{k: settings[k] for k in keys}
    )
    examples = NextItemExamples(
      histories, train_ends, settings.max_history, settings.examples, config.seed
    )
    budget, batcher = _fit(config, examples)
    model = two_tower.build_two_towers(
      config, next_item.schema(histories), histories.items.schema
    )
    tx = optimizer.build_optimizer(config.optim, config.total_steps)

    def params(key: Array, one: Pairs) -> PyTree:
      return model.init(key, one.users.modalities, one.items.modalities)["params"]

    init = interactions.init(config, params, tx, batcher, mesh)
    keys = ("temperature", "in_batch", "mask_seen")
    lose = softmax.SampledSoftmax(model, **{k: config.retrieval[k] for k in keys})
    step = train_step.build_step(
      lose.of_device if config.retrieval.cross_device_negatives else lose.of_shard,
      tx,
      mesh,
      ema_decay=config.optim.ema_decay,
      together=config.retrieval.cross_device_negatives,
    )
    return cls(
      config=config,
      mesh=mesh,
      titles=source.titles,
      histories=histories,
      splits=splits | cold_split,
      train_ends=train_ends,
      prefixes=examples,
      budget=budget,
      batcher=batcher,
      model=model,
      step=step,
      init=init,
    )

  @property
  def examples(self) -> NextItemExamples:
    """See `on_histories.InteractionTask`."""
    return self.prefixes

  def items(self, params: PyTree) -> Float[np.ndarray, "i d"]:
    """The vectors of all items, in the order of their table."""
    return self._vectors.items(params, self.histories.items)

  def users(
    self, params: PyTree, items: Float[np.ndarray, "i d"], table: Table
  ) -> Float[np.ndarray, "q d"]:
    """The vectors of users, given those of all items.

    Args:
      params: Of the model.
      items: See `items`.
      table: Of users before an event, see `prefixes.users_before`.
    """
    return self._vectors.users(params, items, table)

  def before(self, split: str) -> Table:
    """The users of a split, as they are known."""
    chosen = self.splits[split]
    return next_item.users_before(
      self.histories, chosen.user_rows, chosen.known_ends, self.prefixes.max_history
    )

  def validate(self, params: PyTree) -> dict[str, float]:
    """The metrics of full ranking on validation."""
    return self.evaluate(params, "validation")

  def evaluate(
    self,
    params: PyTree,
    split: str,
    table: Table | None = None,
    among: np.ndarray | None = None,
  ) -> dict[str, float]:
    """The metrics of full ranking, own earlier items left out, and of the lists.

    Args:
      params: Of the model.
      split: Of `splits`.
      table: The users of the split as they are known, where not all is.
      among: Rows of the items to find the targets among, increasing; None for all.
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
    """What the parts of both towers cost, per user; see `costs.model_costs`."""
    return costs.tower_costs(self)

  def report(
    self,
    workdir: pathlib.Path,
    params: PyTree,
    position: LoopState,
    summary: dict[str, Any],
  ) -> dict[str, Any]:
    """Evaluates validation and test and writes results and pictures."""
    results = {split: self.evaluate(params, split) for split in self.splits}
    if "cold" in self.splits:
      among = self.splits["cold"].cold_rows
      results["cold_alone"] = self.evaluate(params, "cold", among=among)
    return interactions.write_results(
      workdir, self.config, results, params, position, summary
    )

  @functools.cached_property
  def _vectors(self) -> Vectors:
    shards, items = self.config.data.shards, self.batcher.item_budget
    return Vectors(self.model, self.mesh, shards, self.budget, items)


def _fit(
  config: ml_collections.ConfigDict, examples: NextItemExamples
) -> tuple[Budget, PairBatcher]:
  """Fills in what the config leaves open; the budget of users, and the batcher."""
  items, keys = (
    examples.histories.items,
    ("num_uniform_negatives", "in_batch", "tie_item_tower"),
  )
  settings = {k: config.retrieval[k] for k in keys}
  settings["dropout"] = interactions.absence(config)
  # One config is for catalogues of any size.
  settings["num_uniform_negatives"] = min(settings["num_uniform_negatives"], len(items))
  with config.unlocked():
    shapes.check_metrics(config, len(items))
    budget = shapes.user_budget(config, examples.lengths(0), examples.longest())
    batcher = shapes.batcher(
      config,
      budget,
      items.modalities,
      lambda slots: PairBatcher(examples, budget, item_slots=slots, **settings),
    )
  return budget, batcher
