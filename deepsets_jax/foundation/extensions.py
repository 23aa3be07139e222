"""Components of a user's own, named `module:Name` in a config.

A config names a component of the package by its key in a registry, such as "set_pool",
and one of a user's own as `my_fusion:GatedMean`: the class `GatedMean` of the module
`my_fusion`, which lies beside the config, in the working directory or is installed. The
folders of such modules are kept with a run, so that every command finds them again.
Nothing is imported from a run's folder: it may come from a stranger.
"""

from __future__ import annotations

import importlib
import importlib.util
import pathlib
import sys
from collections.abc import Iterable, Mapping
from importlib import machinery
from typing import Any

from deepsets_jax.foundation.errors import ConfigError

# Folders that were kept with runs.
_FIRST: list[str] = []


def find(
  setting: str, name: str, registry: Mapping[str, Any], kind: type | None = None
) -> Any:
  """The component that a setting names.

  Args:
    setting: The setting for messages, such as "config.model.fusion".
    name: A key of the registry, or `module:Name`.
    registry: The components of the package.
    kind: The class that a component of a user's own must be a subclass of; None for any
      object.

  Raises:
    ConfigError: The name is in no registry, cannot be imported, or is not of the kind.
  """
  if ":" not in str(name):
    if name not in registry:
      raise ConfigError(
        f"unknown {setting} {name!r}; one of {sorted(registry)}, or module:Name for one"
        " of your own"
      )
    return registry[name]
  found = _import(setting, name)
  if kind is not None and not (isinstance(found, type) and issubclass(found, kind)):
    raise ConfigError(
      f"{setting} {name!r} is not a subclass of {kind.__module__}.{kind.__qualname__}"
    )
  return found


def name_of(component: Any) -> str:
  """The name of a class or function for a config: `module:Name`."""
  return f"{component.__module__}:{component.__qualname__}"


def names_in(config: Mapping[str, Any]) -> set[str]:
  """The values `module:Name` of a config, of any depth."""
  found = set()
  for value in config.values():
    if isinstance(value, Mapping) or hasattr(value, "items"):
      found |= names_in(value)
    for one in value if isinstance(value, list | tuple) else [value]:
      if isinstance(one, str) and _is_name(one):
        found.add(one)
  return found


def folders_of(names: Iterable[str]) -> list[str]:
  """The folders that hold the imported modules of some names, for `add_folders`."""
  folders = set()
  for name in names:
    top = name.partition(":")[0].partition(".")[0]
    file = getattr(sys.modules.get(top), "__file__", None)
    if file is not None:
      path = pathlib.Path(file).resolve()
      folder = path.parent.parent if path.name == "__init__.py" else path.parent
      folders.add(str(folder))
  return sorted(folders)


def add_folders(folders: Iterable[str | pathlib.Path], *, first: bool = False) -> None:
  """Lets modules be imported from some folders, after all other places.

  Args:
    folders: The folders; one in the folder of a run is left out.
    first: Whether a module that a config names is looked for there before all other
      places. Modules that are imported otherwise are not.
  """
  for folder in map(str, folders):
    if _is_in_a_run(pathlib.Path(folder)):
      continue
    if folder not in sys.path:
      sys.path.append(folder)
    if first and folder not in _FIRST:
      _FIRST.append(folder)


def _is_name(text: str) -> bool:
  module, colon, attribute = text.partition(":")
  return bool(colon) and all(
    part.isidentifier() for part in (*module.split("."), *attribute.split("."))
  )


def _import(setting: str, name: str) -> Any:
  if not _is_name(name):
    raise ConfigError(
      f"{setting} {name!r} is not of the form module:Name, such as my_fusion:GatedMean"
    )
  module, _, attribute = name.partition(":")
  path = sys.path[:]
  sys.path[:0] = _FIRST
  try:
    spec = _find_spec(setting, name, module)
    found = importlib.import_module(module)
  finally:
    sys.path[:] = path
  for part in attribute.split("."):
    if not hasattr(found, part):
      raise ConfigError(f"{setting} {name!r}: {spec.origin} defines no {attribute!r}")
    found = getattr(found, part)
  return found


def _find_spec(setting: str, name: str, module: str) -> machinery.ModuleSpec:
  """Where a module is; raises where it is not, or is not to be imported."""
  try:
    spec = importlib.util.find_spec(module)
  except ModuleNotFoundError:  # Of a parent package.
    spec = None
  if spec is None:
    kept = "".join(f", in {folder}" for folder in _FIRST)
    raise ConfigError(
      f"{setting} {name!r}: there is no module {module!r} beside the config, in the"
      f" working directory, among the installed packages{kept}"
    )
  if spec.origin and _is_in_a_run(pathlib.Path(spec.origin).parent):
    raise ConfigError(
      f"{setting} {name!r}: {spec.origin} lies in the folder of a run, and nothing is"
      " imported from there; move the module beside the config"
    )
  return spec


def _is_in_a_run(folder: pathlib.Path) -> bool:
  """Whether a folder is that of a run, or lies in one."""
  folder = folder.resolve()
  return any(
    (parent / "config.json").exists() and (parent / "checkpoints").exists()
    for parent in (folder, *folder.parents)
  )
