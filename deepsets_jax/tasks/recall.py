"""Recall: of all items those that a user comes to next, by two towers."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import grain
import jax
import ml_collections
import numpy as np
from jaxtyping import Array, Float, PyTree

from deepsets_jax import (
  evaluate,
  figures,
  optimizer,
  report,
  sharding,
  towers,
  train_step,
)
from deepsets_jax import run as runs
from deepsets_jax.checkpoint import Position
from deepsets_jax.data import budgets, cold, fields, loader, prefixes, sources
from deepsets_jax.data.batching import Absence, Budget, EpochPlan
from deepsets_jax.data.cold import ColdSplit
from deepsets_jax.data.histories import Histories, Split, leave_out
from deepsets_jax.data.pairs import PairBatcher, Pairs
from deepsets_jax.data.prefixes import HISTORY, Prefixes
from deepsets_jax.data.table import Table
from deepsets_jax.recall import costs, evaluation, softmax
from deepsets_jax.tasks import base
from deepsets_jax.train_step import State, Step
from deepsets_jax.writers import read_metrics, write_json

# Of a modality of items among the budgets of both.
_ITEM = "item_"


@dataclasses.dataclass(frozen=True)
class Recall:
  """Two towers on histories; see `base.Task`.

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
  prefixes: Prefixes
  budget: Budget
  batcher: PairBatcher
  model: towers.TwoTowers
  step: Step
  init: Callable[..., State]

  @classmethod
  def build(cls, config: ml_collections.ConfigDict) -> Recall:
    """The task of a config; see `tasks.build`."""
    runs.check_positive(config)
    mesh = sharding.make_mesh()
    config = config.copy_and_resolve_references()
    settings = config.data.histories
    source = sources.load_histories(config.data)
    histories, cold_split = source.histories, {}
    if settings.cold_items:
      histories, asked = cold.without(histories, settings.cold_items, config.seed)
      cold_split["cold"] = asked
    splits, train_ends = leave_out(histories, settings.held_out)
    popularity = histories.popularity(train_ends)
    keys = ("user_fields", "item_fields", "id_events")
    histories = fields.given(histories, popularity, **{k: settings[k] for k in keys})
    examples = Prefixes(
      histories, train_ends, settings.window, settings.examples, config.seed
    )
    budget, batcher = _fit(config, examples)
    model = towers.build(config, prefixes.schema(histories), histories.items.schema)
    tx = optimizer.build(config.optim, config.total_steps)
    init = _init(config, model, tx, batcher, mesh)
    jax.eval_shape(init)  # What a module refuses, it refuses here.
    keys = ("temperature", "in_batch", "mask_seen")
    lose = softmax.SampledSoftmax(model, **{k: config.recall[k] for k in keys})
    step = train_step.build(
      lose.of_device if config.recall.across else lose.of_shard,
      tx,
      mesh,
      ema_decay=config.optim.ema_decay,
      together=config.recall.across,
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
  def higher_is_better(self) -> bool:
    """So it is of every metric of recall that a model may be chosen by."""
    return True

  @property
  def abstract_state(self) -> State:
    """Shapes of a state."""
    return runs.abstract(jax.eval_shape(self.init), sharding.replicated(self.mesh))

  @property
  def abstract_batch(self) -> Pairs:
    """Shapes of a batch `[s, ...]` of all processes."""
    one = self.batcher.batch(0, [np.arange(1)], 0, 0)
    return runs.abstract_batch(one, self.config.data.shards, self.mesh)

  def train_batches(self) -> grain.DatasetIterator:
    """The batches of all steps, this process's shards."""
    config, examples = self.config, self.prefixes
    shards = config.data.shards
    plan = EpochPlan(examples.lengths, len(examples), self.budget, shards, config.seed)
    own = loader.own_shards(shards)

    def batch(step: int) -> Pairs:
      epoch, rows = plan.epoch_and_rows(step)
      return self.batcher.batch(epoch, rows[own], step, own.start)

    return loader.ahead(batch, config.total_steps)

  def compile_step(self) -> jax.stages.Compiled:
    """The step for this run's shapes."""
    return self.step.lower(self.abstract_state, self.abstract_batch).compile()

  def fill(self, batch: Pairs) -> dict[str, float]:
    """See `base.fill`; those of items have a prefix."""
    items = {f"{_ITEM}{k}": v for k, v in batch.items.modalities.items()}
    return base.fill({**batch.users.modalities, **items})

  def keep(self, workdir: pathlib.Path) -> None:
    """Nothing: the data is read again."""

  def items(self, params: PyTree) -> Float[np.ndarray, "i d"]:
    """The vectors of all items, in the order of their table."""
    return self._vectors(self._embed_items, params, self.histories.items, self._items)

  def users(
    self, params: PyTree, items: Float[np.ndarray, "i d"], table: Table
  ) -> Float[np.ndarray, "q d"]:
    """The vectors of users, given those of all items.

    Args:
      params: Of the model.
      items: See `items`.
      table: Of users before an event, see `prefixes.users_before`.
    """
    slots = {
      name: max(room, budgets.rounded(int(table.lengths(name).max())))
      for name, room in self.budget.slots.items()
    }
    budget = Budget(self.budget.examples, slots)
    placed = jax.device_put(items, sharding.replicated(self.mesh))
    return self._vectors(self._embed_users, (params, placed), table, budget)

  def before(self, split: str) -> Table:
    """The users of a split, as they are known."""
    chosen = self.splits[split]
    return prefixes.users_before(
      self.histories, chosen.user_rows, chosen.known_ends, self.prefixes.window
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
      self.config.recall.cutoffs,
      among,
    )

  def costs(self) -> dict[str, Any]:
    """What the parts of both towers cost, per user; see `summary.of_parts`."""
    return costs.of_towers(self)

  def report(
    self,
    workdir: pathlib.Path,
    params: PyTree,
    position: Position,
    summary: dict[str, Any],
  ) -> dict[str, Any]:
    """Evaluates validation and test and writes results and pictures."""
    results = {split: self.evaluate(params, split) for split in self.splits}
    if "cold" in self.splits:
      among = self.splits["cold"].cold_rows
      results["cold_alone"] = self.evaluate(params, "cold", among=among)
    results |= report.facts(params, position) | {"summary": summary}
    if sharding.is_main_process():
      figure = figures.learning_curves(
        read_metrics(workdir), self.config.train.metric, position.best_step
      )
      figures.save(figure, workdir / "learning_curves.png")
      write_json(workdir / "results.json", results)
    return results

  @functools.cached_property
  def _embed_items(self) -> evaluate.Predict:
    def of_shard(params: PyTree, batch: Any) -> Array:
      return self.model.apply(
        {"params": params}, batch.modalities, method="embed_items"
      )

    return evaluate.build(of_shard, self.mesh)

  @functools.cached_property
  def _embed_users(self) -> evaluate.Predict:
    def of_shard(inputs: tuple[PyTree, Array], batch: Any) -> Array:
      params, items = inputs
      return self.model.apply(
        {"params": params}, batch.modalities, items, method="embed_users"
      )

    return evaluate.build(of_shard, self.mesh)

  @property
  def _items(self) -> Budget:
    return self.batcher.item_budget

  def _vectors(
    self, step: evaluate.Predict, params: PyTree, table: Table, budget: Budget
  ) -> np.ndarray:
    shards = self.config.data.shards
    return evaluate.predict(step, params, table, budget, shards, self.mesh)


def _fit(
  config: ml_collections.ConfigDict, examples: Prefixes
) -> tuple[Budget, PairBatcher]:
  """Fills in what the config leaves open; the budget of users, and the batcher."""
  data, recall = config.data, config.recall
  with config.unlocked():
    if config.train.metric is None:
      config.train.metric = f"ndcg_{recall.cutoffs[0]}"
    per_shard = runs.examples_per_shard(config)
    lengths = examples.lengths(0)
    given = {k: v for k, v in data.budgets.items() if v is not None}
    users = {
      name: budgets.room(length, int(length.max()), per_shard)
      for name, length in lengths.items()
    }
    # In a later epoch of one event per user a history may be longer than in the first.
    users[HISTORY] = max(users[HISTORY], budgets.rounded(examples.window))
    users |= {k: v for k, v in given.items() if k in users}
    budget = Budget(per_shard, users)
    items = {k.removeprefix(_ITEM): v for k, v in given.items() if k.startswith(_ITEM)}
    absence = Absence(data.modality_dropout, data.element_dropout, config.seed)
    batcher = PairBatcher(
      examples,
      budget,
      uniform=recall.uniform,
      in_batch=recall.in_batch,
      shared=recall.shared,
      item_slots=items or None,
      absence=absence,
    )
    items = {f"{_ITEM}{k}": v for k, v in batcher.item_budget.slots.items()}
    unknown = sorted(set(given) - set(users) - set(items))
    if unknown:
      raise ValueError(
        f"config.data.budgets.{unknown[0]}: no such modality; there are"
        f" {sorted({**users, **items})}"
      )
    data.budgets = users | items
  return budget, batcher


def _init(
  config: ml_collections.ConfigDict,
  model: towers.TwoTowers,
  tx: Any,
  batcher: PairBatcher,
  mesh: jax.sharding.Mesh,
) -> Callable[..., State]:
  """The jitted function to a state at step 0."""
  one = batcher.batch(0, [np.arange(1)], 0, 0)
  one = jax.tree.map(lambda x: x[0], one)

  def init(seed: int = config.seed) -> State:
    init_key, step_key = jax.random.split(jax.random.key(seed))
    params = model.init(init_key, one.users.modalities, one.items.modalities)
    average = config.optim.ema_decay is not None
    return train_step.init_state(params["params"], tx, step_key, average=average)

  return jax.jit(init, out_shardings=sharding.replicated(mesh))
