"""The default config of each task, and what older configs called its settings."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from deepsets_jax.data.datasets import registry
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion import FUSIONS
from deepsets_jax.models.config import default_model, set_fusion
from deepsets_jax.training.config import default_optim, default_train

# The names that settings had before; they are answered with the new ones.
RENAMED: Mapping[str, str] = {
  "recall": "retrieval",
  "retrieval.shared": "retrieval.tie_item_tower",
  "retrieval.uniform": "retrieval.num_uniform_negatives",
  "retrieval.across": "retrieval.cross_device_negatives",
  "data.histories.window": "data.histories.max_history",
}
RENAMED_TASKS: Mapping[str, str] = {"labels": "supervised", "recall": "retrieval"}
# Groups whose keys are those of the data or the model.
_OPEN = {"data.budgets", "data.columns", "model.positions", "model.encoders"}
_OPEN |= {"item_model.positions", "item_model.encoders", "optim.factors"}


def supervised(data: str = "debian_programs") -> ml_collections.ConfigDict:
  """The defaults of classification and regression of examples.

  Args:
    data: The data set, `config.data.name`; its settings are a group of that name.
  """
  config = _common("supervised", data)
  config.data.update(
    config_dict.create(
      # For "table", a Parquet, Arrow, JSON lines or CSV file, a folder or a pattern of
      # such files, or tfds:NAME; for "tables", a folder with one folder per split.
      path=config_dict.placeholder(str),
      # For "table", the spec of its columns that experiments.describe writes; {} reads
      # it from the file beside the table.
      columns=ml_collections.ConfigDict(),
      # What happens to an example with more elements than the budget: "error", or keep
      # its "first" elements or a "random" subset (drawn by the seed).
      overflow="error",
    )
  )
  config.loss = config_dict.create(
    # Regression loss: "absolute" or "squared" error.
    regression="absolute",
    # Moves the targets 0 and 1 this far towards the middle.
    label_smoothing=0.0,
    # Weight of rare labels: a positive of a label rarer than the mean label weighs
    # (mean frequency / its frequency) to this power; in binary and multi-class tasks
    # this holds for the examples of a rare class.
    balance=0.0,
    # A loss of your own in place of that of the target, module:function of (logits,
    # targets, weights) to (weighted sum, weight); None for none.
    function=config_dict.placeholder(str),
  )
  return config


def retrieval(data: str = "movielens") -> ml_collections.ConfigDict:
  """The defaults of two-tower retrieval of the next item of a user.

  Args:
    data: "movielens", or "clicks" for a folder of a user's own.
  """
  config = _interactions("retrieval", data)
  config.retrieval.update(
    config_dict.create(
      # Divides the products of user and item vectors in the loss.
      temperature=1.0,
      # Whether the items of the other users of a shard are negatives.
      in_batch=True,
      # Whether the items of a user's history are excluded from its negatives: right
      # where nobody interacts with an item twice.
      mask_seen=True,
      # Number of negatives per shard drawn uniformly from all items, without repeats.
      num_uniform_negatives=256,
      # Share negatives between devices (all-gather of item vectors).
      cross_device_negatives=False,
    )
  )
  # Share of the items, drawn by the seed, whose events are left out of training and
  # evaluated in a split "cold".
  config.data.histories.cold_items = 0.0
  return config


def ranking(data: str = "movielens") -> ml_collections.ConfigDict:
  """The defaults of ranking lists of items for a user.

  Args:
    data: "movielens", or "clicks" for a folder of a user's own.
  """
  config = _interactions("ranking", data)
  config.ranking = config_dict.create(
    # Where lists come from: "ratings", runs of a user's events, ordered by rating; or
    # "clicks", the item of an event among random ones.
    lists="ratings",
    # Events per training list of "ratings".
    list_size=20,
    # Random items per list of "clicks".
    negatives=20,
    # "softmax", "pairwise" or "pointwise".
    loss="softmax",
    # Widths of the hidden layers on the vectors of a user and an item.
    hidden=(64,),
    # Dropout probability after each of these layers.
    dropout=0.0,
  )
  return config


DEFAULTS: Mapping[str, Callable[..., ml_collections.ConfigDict]] = {
  "supervised": supervised,
  "retrieval": retrieval,
  "ranking": ranking,
}


def _common(task: str, data: str) -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  # Seed of the splits, the initial parameters, the order of examples and all other
  # randomness of training.
  config.seed = 0
  # "supervised", "retrieval", "ranking", or module:Class for a task of your own.
  config.task = task
  # Number of optimizer steps.
  config.total_steps = 1000
  config.data = config_dict.create(
    # The data set: a key of `data.datasets.registry`, or module:function for one of
    # your own.
    name=data,
    # Examples per step, over all shards.
    batch_size=128,
    # Parts of a batch, each with its own element slots; a multiple of the number of
    # devices. A device takes its shards one after the other, so more shards than
    # devices is gradient accumulation. None for one per device, or more for a table of
    # many columns.
    shards=config_dict.placeholder(int),
    # Element slots of a shard by modality; {} for what a scan of the data proposes.
    budgets=ml_collections.ConfigDict(),
    # Probability of dropping a modality of a training example; at least one is kept.
    modality_dropout=0.0,
    # Probability of dropping each element of a training example.
    element_dropout=0.0,
  )
  settings = registry.find_entry(data).settings
  if settings is not None:
    config.data[data] = copy.deepcopy(settings)
  # The model of an example; in retrieval and ranking, of a user.
  config.model = default_model()
  config.optim = default_optim()
  config.train = default_train()
  return config


def _interactions(task: str, data: str) -> ml_collections.ConfigDict:
  config = _common(task, data)
  config.data.update(
    config_dict.create(
      # For "clicks", the folder with the events, and optionally items and users; for
      # "movielens", the archive, or None to download it.
      path=config_dict.placeholder(str),
      histories=dict(
        # Training examples: "prefixes", every event of every epoch with the history
        # before it; or "users", one event of each user, drawn again in each epoch.
        examples="prefixes",
        # Number of latest events of a longer history that are kept.
        max_history=50,
        # Events of each user held out for validation, and as many for test.
        held_out=1,
        # Fields of users that are modalities; None for all.
        user_fields=config_dict.placeholder(tuple),
        # Fields of items that are modalities; None for all.
        item_fields=config_dict.placeholder(tuple),
        # Training events that an item needs to have an id vector of its own; None for
        # no id vectors.
        id_events=config_dict.placeholder(int),
      ),
    )
  )
  # The model of an item.
  config.item_model = default_model()
  config.retrieval = config_dict.create(
    # Width of the vectors of users and items.
    dimensions=64,
    # Whether a history consists of the item tower's vectors; otherwise users have
    # embeddings of items of their own.
    tie_item_tower=True,
    # Whether the vectors of users and items are scaled to length 1.
    normalize=False,
    # Lengths of the list at which metrics are computed.
    cutoffs=(10,),
  )
  return config


def complete(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The config with the defaults of all settings that it lacks.

  Settings of fusions that are not chosen are left out. A config of a task of a user's
  own is returned as it is.

  Raises:
    ConfigError: A setting does not exist; the message has the nearest one that does.
  """
  full, unknown = _merged(config)
  if unknown:
    nearest = difflib.get_close_matches(unknown[0], [*_flat(full)], 1)
    hint = f"; did you mean config.{nearest[0]}?" if nearest else ""
    raise ConfigError(f"config.{unknown[0]} is not a setting{hint}")
  return full


def upgrade(
  config: ml_collections.ConfigDict,
) -> tuple[ml_collections.ConfigDict, list[str]]:
  """A config that an older version stored, under today's names.

  Returns:
    The config with the defaults of settings that are new, and the names of those that
    no longer exist, which are left out.
  """
  renamed = ml_collections.ConfigDict(_renamed(config.to_dict()))
  return _merged(renamed)


def renamed_setting(key: str) -> str | None:
  """The new name of a setting that had another one, `recall.uniform`; else None."""
  new = key
  for old, name in RENAMED.items():
    if new == old or new.startswith(f"{old}."):
      new = name + new.removeprefix(old)
  return new if new != key else None


def _renamed(config: dict[str, Any]) -> dict[str, Any]:
  config = copy.deepcopy(config)
  task = config.setdefault("task", "supervised")  # Older runs had no other task.
  config["task"] = RENAMED_TASKS.get(task, task)
  for old, new in RENAMED.items():
    *path, key = old.split(".")
    group = config
    for part in path:
      group = group.get(part, {})
    if key in group:
      group[new.rpartition(".")[2]] = group.pop(key)
  return config


def _merged(
  config: ml_collections.ConfigDict,
) -> tuple[ml_collections.ConfigDict, list[str]]:
  """The defaults with the values of a config, and the settings that do not exist."""
  config = config.copy_and_resolve_references()
  if ":" in config.task:
    return config, []
  if config.task not in DEFAULTS:
    check_task(config.task)
  full = DEFAULTS[config.task](config.data.name)
  for key in ("model", "item_model"):
    if key in config and key in full:
      set_fusion(full[key], config[key].fusion)
  unknown = _merge(full, config, "")
  return full.lock(), unknown


def check_task(task: str) -> None:
  """Raises for a name that is no task.

  Raises:
    ConfigError: An unknown or an older name.
  """
  if task in RENAMED_TASKS:
    raise ConfigError(f"config.task {task!r} is now called {RENAMED_TASKS[task]!r}")
  raise ConfigError(
    f"unknown config.task {task!r}; one of {sorted(DEFAULTS)}, or module:Class for one"
    " of your own"
  )


def _merge(
  into: ml_collections.ConfigDict, given: ml_collections.ConfigDict, prefix: str
) -> list[str]:
  """Writes the values of a config over the defaults; returns the unknown settings."""
  unknown = []
  for key, value in given.items():
    path = f"{prefix}{key}"
    if path in _OPEN:
      into[key] = value
    elif key not in into:
      if not _is_free(path, given):
        unknown.append(path)
    elif isinstance(value, ml_collections.ConfigDict):
      unknown += _merge(into[key], value, f"{path}.")
    else:
      with into.ignore_type():
        into[key] = value
  return unknown


def _is_free(path: str, group: ml_collections.ConfigDict) -> bool:
  """Whether a group that is not among the defaults may stay out without a word."""
  name = path.rpartition(".")[2]
  is_fusion = path.startswith(("model.", "item_model.")) and name in FUSIONS
  is_data = path.startswith("data.") and name in registry.ENTRIES
  return is_fusion or is_data


def _flat(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[str]:
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from _flat(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}"
