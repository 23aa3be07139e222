"""The ranking task: a scorer orders the candidates that are offered to a user."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import ml_collections
import numpy as np
from jaxtyping import Array, Float, PyTree

from deepsets_jax.data.datasets import registry
from deepsets_jax.data.interactions.candidates import CANDIDATES, ListBatcher, Lists
from deepsets_jax.data.interactions.histories import Histories, Split, leave_out
from deepsets_jax.data.interactions.lists import ClickLists, RatingLists, last_part
from deepsets_jax.data.tables.batching import Budget
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.models import scorer
from deepsets_jax.tasks import interactions
from deepsets_jax.tasks.ranking import losses, metrics, scoring
from deepsets_jax.tasks.ranking.scoring import PairScorer
from deepsets_jax.tasks.retrieval import costs, open_settings
from deepsets_jax.tasks.retrieval.vectors import TowerVectors
from deepsets_jax.tasks.supervised import run as runs
from deepsets_jax.training import optimizer, sharding, task
from deepsets_jax.training import step as train_step
from deepsets_jax.training.step import State, Step


@dataclasses.dataclass(frozen=True)
class RankingTask(interactions.InteractionTask):
  """A scorer on histories; implements `training.task.Task`.

  Attributes:
    config, mesh, budget, batcher, step, init, splits: See
      `InteractionTask`.
    titles: Printable title of each item.
    histories: Events of all users, with the selected fields of users and items.
    train_ends: End of each user's training events.
    examples: Lists to train on.
    model: The scorer.
  """

  name: ClassVar[str] = "ranking"

  config: ml_collections.ConfigDict
  mesh: jax.sharding.Mesh
  titles: np.ndarray
  histories: Histories
  splits: dict[str, Split]
  train_ends: np.ndarray
  examples: RatingLists | ClickLists
  budget: Budget
  batcher: ListBatcher
  model: scorer.Scorer
  step: Step
  init: Callable[..., State]

  @classmethod
  def build(cls, config: ml_collections.ConfigDict) -> RankingTask:
    """Build the task of a config, see `tasks.build_task`."""
    runs.check_positive(config)
    mesh = sharding.make_mesh()
    config = config.copy_and_resolve_references()
    source = registry.load_histories(config.data)
    splits, train_ends = _held_out(config, source.histories)
    histories = interactions.select_fields(config, source.histories, train_ends)
    examples = _examples(config, histories, train_ends)
    budget, batcher = _batching(config, examples)
    model = scorer.build_scorer(config, examples.schema(), histories.items.schema)
    tx = optimizer.build_optimizer(config.optim, config.total_steps)
    loss = losses.build_ranking_loss(config.ranking.loss, examples.highest)
    step = train_step.build_step(
      _objective(model, loss), tx, mesh, ema_decay=config.optim.ema_decay
    )

    def init_params(key: Array, shard: Lists) -> PyTree:
      return model.init(
        key, shard.users.modalities, shard.items.modalities, shard.candidates
      )["params"]

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
      step=step,
      init=interactions.build_init(config, init_params, tx, batcher, mesh),
    )

  def fill(self, batch: Lists) -> dict[str, float]:
    """See `InteractionTask.fill`."""
    return super().fill(batch) | task.fill({CANDIDATES: batch.candidates})

  def vectors(
    self, params: PyTree, split: str
  ) -> tuple[Float[np.ndarray, "q d"], Float[np.ndarray, "i d"]]:
    """Vectors of the users of a split, before the held-out events, and of all items."""
    chosen, params = self.splits[split], params["towers"]
    table = self.examples.users_before(chosen.user_rows, chosen.known_ends)
    items = self._vectors.items(params, self.histories.items)
    return self._vectors.users(params, items, table), items

  def evaluate(self, params: PyTree, split: str) -> dict[str, float]:
    """Compute the metrics of a split.

    For ratings they are those of its lists, see `ranking.metrics.of_lists`. For clicks
    all items are ranked for each user, see `ranking.scoring.PairScorer.of_all`.
    """
    chosen, ks = self.splits[split], self.config.retrieval.cutoffs
    users, items = self.vectors(params, split)
    if isinstance(self.examples, ClickLists):
      lists = (chosen.targets(self.histories), chosen.known(self.histories))
      return self._pairs.of_all(params, users, items, *lists, chosen.user_rows, ks)
    lists, labels = self.examples.between(chosen.known_ends, chosen.target_ends)
    owners = np.repeat(np.arange(len(users)), lists.lengths)
    scores = self._pairs.scores(params, users, items, owners, lists.values)
    liked = self.examples.liked
    return metrics.of_lists(scores, labels, lists, ks, relevant=liked)

  def costs(self) -> dict[str, Any]:
    """Costs of the towers and the scorer per list, see `retrieval.costs`."""
    params = self.abstract_state.params
    found = costs.tower_costs(self, self.model.towers, params["towers"])
    pairs = self.budget.slots[CANDIDATES]
    part = scoring.cost(self.model, params, pairs, found["examples_per_shard"])
    found["parts"]["scorer"] = part
    for name, number in part.items():
      found[name] += number
    return found

  @functools.cached_property
  def _vectors(self) -> TowerVectors:
    users = {k: v for k, v in self.budget.slots.items() if k != CANDIDATES}
    return TowerVectors(
      self.model.towers,
      self.mesh,
      self.config.data.shards,
      Budget(self.budget.examples, users),
      self.batcher.item_budget,
    )

  @functools.cached_property
  def _pairs(self) -> PairScorer:
    return PairScorer(self.model)


def _held_out(
  config: ml_collections.ConfigDict, histories: Histories
) -> tuple[dict[str, Split], np.ndarray]:
  match config.ranking.lists:
    case "ratings":
      return last_part(histories)
    case "clicks":
      return leave_out(histories, config.data.histories.held_out)
  raise ConfigError(
    f"unknown config.ranking.lists {config.ranking.lists!r}; choose one of"
    " ['ratings', 'clicks']"
  )


def _examples(
  config: ml_collections.ConfigDict, histories: Histories, train_ends: np.ndarray
) -> RatingLists | ClickLists:
  settings, ranking = config.data.histories, config.ranking
  slots = config.data.budgets.get(CANDIDATES)
  if ranking.lists == "ratings":
    return RatingLists(
      histories, train_ends, settings.max_history, ranking.list_size, config.seed, slots
    )
  return ClickLists(
    histories,
    train_ends,
    settings.max_history,
    settings.examples,
    config.seed,
    ranking.negatives,
    slots,
  )


def _batching(
  config: ml_collections.ConfigDict, examples: RatingLists | ClickLists
) -> tuple[Budget, ListBatcher]:
  """Fill in the open settings; returns the budget of lists, and the batcher."""
  items = examples.histories.items
  settings = dict(
    tie_item_tower=config.retrieval.tie_item_tower,
    dropout=interactions.set_dropout(config),
  )
  with config.unlocked():
    if config.ranking.lists == "clicks":
      open_settings.fill_in_metric(config, len(items))
    else:
      _fill_in_metric(config)
    budget = open_settings.user_budget(config, examples.lengths(0), examples.longest())
    batcher = open_settings.build_batcher(
      config,
      budget,
      items.modalities,
      lambda slots: ListBatcher(examples, budget, item_slots=slots, **settings),
    )
  return budget, batcher


def _fill_in_metric(config: ml_collections.ConfigDict) -> None:
  """Like `open_settings.fill_in_metric`, for lists of ratings."""
  legal, metric = metrics.names(config.retrieval.cutoffs), config.train.metric
  if metric is None:
    config.train.metric = legal[0]
  elif metric not in legal:
    raise ConfigError(
      f"unknown config.train.metric {metric!r}; choose one of {list(legal)}"
    )


def _objective(model: scorer.Scorer, loss: losses.Loss) -> train_step.Objective:
  def objective(params: PyTree, lists: Lists, key: Array) -> tuple[Array, Array]:
    logits = model.apply(
      {"params": params},
      lists.users.modalities,
      lists.items.modalities,
      lists.candidates,
      train=True,
      rngs={"dropout": key},
    )
    return loss(logits, lists.labels, lists.candidates)

  return objective
