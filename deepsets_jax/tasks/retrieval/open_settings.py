"""Open settings of a config on interactions, filled in from the data.

They are the number of shards, the budgets of users and items, and the metric that
selects the best checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol, TypeVar

import ml_collections
import numpy as np

from deepsets_jax.data.interactions.next_item import HISTORY
from deepsets_jax.data.tables import budgets
from deepsets_jax.data.tables.batching import Budget
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.tasks.supervised import run as runs

# Prefix of the modalities of items in `config.data.budgets`.
ITEM_PREFIX = "item_"


class _Batcher(Protocol):
  @property
  def item_budget(self) -> Budget: ...


_B = TypeVar("_B", bound=_Batcher)


def user_budget(
  config: ml_collections.ConfigDict, lengths: Mapping[str, np.ndarray], longest: int
) -> Budget:
  """Budget of a shard of users: slots from the config, and proposed ones if open.

  Args:
    config: Config of a run, unlocked; its number of shards is filled in.
    lengths: Number of elements of each example of the first epoch, by modality.
    longest: Largest number of events of a history in any epoch.

  Raises:
    ConfigError: A single example does not fit into the slots.
  """
  per_shard, given = runs.examples_per_shard(config), _given(config)
  slots = {}
  for name, length in lengths.items():
    largest = longest if name == HISTORY else int(length.max())
    slots[name] = given.get(name, budgets.slots_for(length, largest, per_shard))
    if slots[name] < max(largest, 1):
      lower = ", or lower config.data.histories.max_history" if name == HISTORY else ""
      raise ConfigError(
        f"config.data.budgets.{name} is {slots[name]}, but a user has up to {largest}"
        f" {name!r} elements; raise it{lower}"
      )
  return Budget(per_shard, slots)


def build_batcher(
  config: ml_collections.ConfigDict,
  users: Budget,
  items: Collection[str],
  build: Callable[[dict[str, int] | None], _B],
) -> _B:
  """Build the batcher, with item slots from the config and proposed ones if open.

  Args:
    config: Config of a run, unlocked; the budgets of users and items are filled in.
    users: See `user_budget`.
    items: Modalities of items.
    build: {item modality: slots} -> batcher; None stands for proposed slots.

  Raises:
    ConfigError: A budget names no modality or has no slot, or a modality of users has
      the prefixed name of a modality of items.
  """
  names = {f"{ITEM_PREFIX}{name}": name for name in items}
  given = _given(config)
  if both := sorted(set(users.slots) & set(names)):
    raise ConfigError(
      f"config.data.budgets.{both[0]} would be the budget of both the user field"
      f" {both[0]!r} and the item field {names[both[0]]!r}; rename one of them"
    )
  if unknown := sorted(set(given) - set(users.slots) - set(names)):
    raise ConfigError(
      f"config.data.budgets.{unknown[0]}: the data has no such modality; choose one of"
      f" {sorted([*users.slots, *names])}"
    )
  slots = {names[key]: slots for key, slots in given.items() if key in names}
  for name, room in slots.items():
    if room < 1:
      raise ConfigError(
        f"config.data.budgets.{ITEM_PREFIX}{name} is {room}; expected at least 1"
      )
  if set(slots) != set(items):
    slots = {**build(None).item_budget.slots, **slots}
  config.data.budgets = users.slots | {f"{ITEM_PREFIX}{k}": v for k, v in slots.items()}
  return build(slots)


def fill_in_metric(config: ml_collections.ConfigDict, num_items: int) -> None:
  """Fill in the metric that selects the best checkpoint, and check the cutoffs.

  Args:
    config: Config of a run, unlocked.
    num_items: Number of items that are ranked.

  Raises:
    ConfigError: A cutoff is longer than the list of all items, or the metric is unknown
      or cannot select a checkpoint.
  """
  cutoffs, metric = config.retrieval.cutoffs, config.train.metric
  if not cutoffs or min(cutoffs) < 1 or max(cutoffs) > num_items:
    raise ConfigError(
      f"config.retrieval.cutoffs is {tuple(cutoffs)}; expected at least one, each from"
      f" 1 to {num_items}, the number of items"
    )
  legal = [f"{name}_{k}" for name in ("ndcg", "hr", "recall") for k in cutoffs]
  if metric is None:
    config.train.metric = legal[0]
  elif metric not in (*legal, "mrr"):
    raise ConfigError(
      f"unknown config.train.metric {metric!r}; choose one of {[*legal, 'mrr']}"
    )


def _given(config: ml_collections.ConfigDict) -> dict[str, int]:
  return {k: v for k, v in config.data.budgets.items() if v is not None}
