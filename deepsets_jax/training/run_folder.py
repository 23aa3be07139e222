"""The folder of a run. Its config is written once, and no other config may use it."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import ml_collections

from deepsets_jax.foundation import extensions
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.foundation.files import write_json

_CONFIG = "config.json"
# The folders of modules that the config names, see `foundation.extensions`.
_EXTENSIONS = "extensions.json"


def default_workdir(config_file: str) -> pathlib.Path:
  """Default folder: `configs/debian.py:concat,1` -> `runs/debian_concat_1`."""
  path, _, argument = config_file.partition(":")
  parts = [pathlib.Path(path).stem, *argument.split(",")]
  return pathlib.Path("runs") / "_".join(part for part in parts if part)


def adopt(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  upgrade: Callable[[ml_collections.ConfigDict], ml_collections.ConfigDict],
) -> ml_collections.ConfigDict:
  """Fill in the shards, budgets and metric that a config leaves open from a run.

  A run keeps its shapes when it is resumed, also on another number of devices.

  Args:
    config: The config to train.
    workdir: The run's folder.
    upgrade: A stored config to the same under today's names, with the defaults of the
      settings that are new.

  Raises:
    ConfigError: The folder holds a run of another config; the message names the keys.
  """
  if not (workdir / _CONFIG).exists():
    return config
  stored = upgrade(read_config(workdir))
  config = config.copy_and_resolve_references()
  with config.unlocked():
    if config.data.shards is None:
      config.data.shards = stored.data.shards
    if config.train.metric is None:
      config.train.metric = stored.train.metric
    for name, slots in stored.data.budgets.items():
      if config.data.budgets.get(name) is None:
        config.data.budgets[name] = slots
  wanted, found = _flat(_plain(config)), _flat(_plain(stored))
  differing = [k for k in sorted(wanted | found) if wanted.get(k) != found.get(k)]
  if differing:
    lines = [
      f"  {k}: {found.get(k)!r} there, {wanted.get(k)!r} here" for k in differing
    ]
    raise ConfigError(
      "\n".join([f"{workdir} holds a run of another config:", *lines])
      + "\ngive another --workdir, or the config of that run to go on with it"
    )
  return config


def create(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Create the folder with its config, unless they exist."""
  workdir.mkdir(parents=True, exist_ok=True)
  if not (workdir / _CONFIG).exists():
    write_json(workdir / _CONFIG, _plain(config))
    names = extensions.names_in(config)
    if names:
      write_json(workdir / _EXTENSIONS, extensions.folders_of(names))


def read_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
  """Read the config of the run in a folder.

  Raises:
    ConfigError: The folder holds no run, or its config is damaged.
  """
  try:
    if (workdir / _EXTENSIONS).exists():
      kept = json.loads((workdir / _EXTENSIONS).read_text())
      extensions.add_folders(kept, first=True)
    return ml_collections.ConfigDict(json.loads((workdir / _CONFIG).read_text()))
  except OSError as error:
    raise ConfigError(f"{workdir} is no folder of a run: {error}") from error
  except json.JSONDecodeError as error:
    raise ConfigError(
      f"{workdir / _CONFIG} is damaged ({error}): train the run again, in another"
      " folder"
    ) from error


def _plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The config as JSON represents it: no references, and lists for tuples."""
  resolved = config.copy_and_resolve_references().to_dict()
  return json.loads(json.dumps(resolved))


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  """Values by dotted key; an empty dictionary has no keys."""
  flat = {}
  for key, item in value.items():
    if isinstance(item, dict):
      flat |= _flat(item, f"{prefix}{key}.")
    else:
      flat[f"{prefix}{key}"] = item
  return flat
