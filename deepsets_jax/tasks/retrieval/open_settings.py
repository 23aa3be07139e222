"""What a config leaves open of the shapes of a run on histories, filled in."""

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

# Of a modality of items among the budgets of both.
ITEM = "item_"


class _Batcher(Protocol):
  @property
  def item_budget(self) -> Budget: ...


_B = TypeVar("_B", bound=_Batcher)


def user_budget(
  config: ml_collections.ConfigDict, lengths: Mapping[str, np.ndarray], longest: int
) -> Budget:
  """Of a shard of users: the slots that the config gives, and for others a proposal.

  Args:
    config: Of a run, unlocked; it is given its number of shards where it has none.
    lengths: Elements of each example of the first epoch, by modality.
    longest: The most events of a history in any epoch, which may be above those of the
      first.

  Raises:
    ConfigError: Slots that one example alone would need more of.
  """
  per_shard, given = runs.examples_per_shard(config), _given(config)
  slots = {}
  for name, length in lengths.items():
    largest = longest if name == HISTORY else int(length.max())
    slots[name] = given.get(name, budgets.room(length, largest, per_shard))
    if slots[name] < max(largest, 1):
      lower = ", or lower config.data.histories.max_history" if name == HISTORY else ""
      raise ConfigError(
        f"config.data.budgets.{name} is {slots[name]}, and a user has up to {largest}"
        f" {name!r} elements: raise it{lower}"
      )
  return Budget(per_shard, slots)


def batcher(
  config: ml_collections.ConfigDict,
  users: Budget,
  items: Collection[str],
  build: Callable[[dict[str, int] | None], _B],
) -> _B:
  """The batcher of the item slots that the config gives, and for others a proposal.

  Args:
    config: Of a run, unlocked; it is given the budgets of both sides.
    users: See `user_budget`.
    items: The modalities of items.
    build: From their slots, None for a proposal, to the batcher.

  Raises:
    ConfigError: A budget names nothing or has no slot, or a field of users has the name
      by which a budget of items goes.
  """
  names = {f"{ITEM}{name}": name for name in items}
  given = _given(config)
  if both := sorted(set(users.slots) & set(names)):
    raise ConfigError(
      f"a field of users is called {both[0]!r}, as among config.data.budgets that of"
      f" items {names[both[0]]!r} is: give one another name"
    )
  if unknown := sorted(set(given) - set(users.slots) - set(names)):
    raise ConfigError(
      f"config.data.budgets.{unknown[0]}: no such modality; there are"
      f" {sorted([*users.slots, *names])}"
    )
  slots = {names[key]: slots for key, slots in given.items() if key in names}
  for name, room in slots.items():
    if room < 1:
      raise ConfigError(f"config.data.budgets.{ITEM}{name} is {room}; expected above 0")
  if set(slots) != set(items):
    slots = {**build(None).item_budget.slots, **slots}
  config.data.budgets = users.slots | {f"{ITEM}{k}": v for k, v in slots.items()}
  return build(slots)


def check_metrics(config: ml_collections.ConfigDict, num_items: int) -> None:
  """Fills in the metric of an unlocked config.

  Raises:
    ConfigError: Cutoffs that no list has, or a metric that is not of recall or that a
      model may not be chosen by.
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
      f"unknown config.train.metric {metric!r}; one of {[*legal, 'mrr']}"
    )


def _given(config: ml_collections.ConfigDict) -> dict[str, int]:
  return {k: v for k, v in config.data.budgets.items() if v is not None}
