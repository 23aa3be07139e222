"""Build dataclasses of settings from JSON, with checked names and types."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from deepsets_jax.foundation.errors import ConfigError


def check_mapping(value: Any, where: str) -> Mapping[str, Any]:
  """Return the value, which must be an object of JSON.

  Raises:
    ConfigError: The value is not an object; `where` is its name in the message.
  """
  if not isinstance(value, Mapping):
    raise ConfigError(f"{where}: {value!r}; expected an object of names and values")
  return value


def check_names(where: str, settings: Mapping[str, Any], cls: type) -> None:
  """Raise a `ConfigError` for a setting that a dataclass does not have."""
  legal = [field.name for field in dataclasses.fields(cls)]
  unknown = [key for key in settings if key not in legal]
  if unknown:
    raise ConfigError(
      f"{where}: unknown setting {unknown[0]!r}; expected one of {legal}"
    )


# Legal types of a JSON value, by the annotation of its field.
_TYPES: Mapping[str, tuple[type, ...]] = {
  "str": (str,),
  "str | None": (str, type(None)),
  "int": (int,),
  "int | None": (int, type(None)),
  "bool": (bool,),
  "Sequence[float]": (list, tuple),
  "Sequence[str]": (list, tuple),
}


def build_dataclass(where: str, settings: Mapping[str, Any], cls: type) -> Any:
  """Build a dataclass of settings from JSON.

  Raises:
    ConfigError: A setting is unknown, missing, or has a wrong type or value; `where` is
      the name of the settings in the message.
  """
  check_names(where, settings, cls)
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
