"""Dataclasses of settings from JSON, with a look at their names and types."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from deepsets_jax.foundation.errors import ConfigError


def mapping(value: Any, where: str) -> Mapping[str, Any]:
  """The value, which must be an object of JSON.

  Raises:
    ConfigError: It is not.
  """
  if not isinstance(value, Mapping):
    raise ConfigError(f"{where}: {value!r}; expected an object of names and values")
  return value


def known(where: str, settings: Mapping[str, Any], cls: type) -> None:
  """Raises `ValueError` for a setting that a dataclass does not have."""
  legal = [field.name for field in dataclasses.fields(cls)]
  unknown = [key for key in settings if key not in legal]
  if unknown:
    raise ConfigError(f"{where}: unknown {unknown[0]!r}; there are {legal}")


# What a JSON value may be, by the annotation of its field.
_TYPES: Mapping[str, tuple[type, ...]] = {
  "str": (str,),
  "str | None": (str, type(None)),
  "int": (int,),
  "int | None": (int, type(None)),
  "bool": (bool,),
  "Sequence[float]": (list, tuple),
  "Sequence[str]": (list, tuple),
}


def made(where: str, settings: Mapping[str, Any], cls: type) -> Any:
  """A dataclass of settings whose types are looked at."""
  known(where, settings, cls)
  for field in dataclasses.fields(cls):
    required = (
      field.default is dataclasses.MISSING
      and field.default_factory is dataclasses.MISSING
    )
    if field.name not in settings:
      if required:
        raise ConfigError(f"{where}: {field.name!r} is missing")
      continue
    value, legal = settings[field.name], _TYPES.get(str(field.type))
    wrong = legal is not None and (
      not isinstance(value, legal) or (isinstance(value, bool) and bool not in legal)
    )
    if wrong:
      raise ConfigError(f"{where}.{field.name}: {value!r}; expected {field.type}")
  try:
    return cls(**settings)
  except ValueError as error:
    raise ConfigError(f"{where}: {error}") from error
