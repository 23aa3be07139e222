"""The settings of fusions in a config: their fields and defaults."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import ml_collections
from ml_collections import config_dict

from deepsets_jax.foundation import extensions
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion import FUSIONS, Fusion

# Fields that the model fills in.
_FILLED_IN = {"modalities", "features", "dtype", "parent", "name"}
_PLACEHOLDERS = {"int": int, "float": float, "str": str}


def get_fusion(name: str) -> type[Fusion]:
  """The class of `config.model.fusion`, a key of `FUSIONS` or `module:Name`.

  Raises:
    ConfigError: There is no such fusion.
  """
  return extensions.find("config.model.fusion", name, FUSIONS, Fusion)


def group_of(name: str) -> str:
  """The key in `config.model` of the settings: a registered name or that of a class."""
  return name.partition(":")[2].replace(".", "_") or name


def fusion_settings(name: str, **settings: Any) -> ml_collections.ConfigDict:
  """The settings of a fusion at their defaults but for those that are given.

  They are the fields of its class, which describes them.

  Args:
    name: A key of `FUSIONS` or `module:Name`.
    **settings: Settings with other values.

  Raises:
    ConfigError: There is no such fusion, or it has no such setting.
  """
  found = default_fields(get_fusion(name), _FILLED_IN)
  unknown = sorted(set(settings) - set(found))
  if unknown:
    raise ConfigError(
      f"config.model.{group_of(name)}.{unknown[0]}: the fusion {name!r} has no such"
      f" setting; it has {sorted(found)}"
    )
  found.update(settings)
  return found


def default_fields(
  module: type[nn.Module], without: set[str]
) -> ml_collections.ConfigDict:
  """The fields of a Flax module that have a default, as settings of a config."""
  settings = ml_collections.ConfigDict()
  for field in dataclasses.fields(module):
    if field.name in without or field.default is dataclasses.MISSING:
      continue
    value = field.default
    if value is None:
      kind = str(field.type).partition("|")[0].strip()
      value = config_dict.placeholder(_PLACEHOLDERS.get(kind, object))
    settings[field.name] = value
  return settings
