"""What all commands share: how they read flags, and how they report an error.

A mistake of the user ends in one line, `error: ...`, and exit code 1; `--debug` shows
the traceback as well. Any other exception is a defect and always has one.
"""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags

from deepsets_jax.foundation import extensions
from deepsets_jax.foundation.errors import ConfigError, UserError
from deepsets_jax.fusion import FUSIONS
from deepsets_jax.tasks import defaults

flags.DEFINE_bool("debug", False, "Whether an error ends in a traceback.")

# Configs that had another name.
_RENAMED_CONFIGS = {
  "movielens_recall.py": "movielens_retrieval.py",
  "movielens_rank.py": "movielens_ranking.py",
}


def run(main: Callable[[list[str]], Any]) -> NoReturn:
  """Reads the flags of the command line and runs the main function of a command.

  Args:
    main: Takes the arguments that are no flags, the command's name first.
  """
  app.run(functools.partial(guarded, main), flags_parser=_parse)


def guarded(main: Callable[..., Any], *arguments: Any) -> Any:
  """Call a function, and end the command with one line if the user made a mistake."""
  try:
    return main(*arguments)
  except (UserError, OSError) as error:
    _fail(error)


def no_arguments(argv: Sequence[str]) -> None:
  """Raises where the command line has something that is no flag.

  Raises:
    ConfigError: It has.
  """
  if len(argv) > 1:
    raise ConfigError(f"unknown arguments {list(argv[1:])}; flags begin with --")


def _parse(argv: list[str]) -> list[str]:
  try:
    _look_at_config(argv)
    return flags.FLAGS(argv)
  # A config raises what Python raises for a name or a value of another type.
  except (flags.Error, UserError, AttributeError, KeyError, TypeError, ValueError) as e:
    return _fail(e, debug="--debug" in argv)


def _look_at_config(argv: Sequence[str]) -> None:
  """Lets modules beside the config be imported, and answers names that have changed.

  Raises:
    ConfigError: There is no such config, or a setting has another name now.
  """
  for argument in argv[1:]:
    key, _, value = argument.removeprefix("-").removeprefix("-").partition("=")
    if key == "config":
      path = pathlib.Path(value.partition(":")[0])
      if not path.exists():
        new = _RENAMED_CONFIGS.get(path.name)
        hint = f"; it is now called {path.with_name(new)}" if new else ""
        raise ConfigError(f"there is no config {path}{hint}")
      extensions.add_folders([path.parent.resolve()])
    elif key.startswith("config."):
      setting = key.removeprefix("config.")
      new = defaults.renamed_setting(setting)
      if new is not None:
        raise ConfigError(f"config.{setting} is now called config.{new}")


def _fail(error: Exception, *, debug: bool = False) -> NoReturn:
  """Ends the command with one line, or with a traceback where flags ask for it."""
  if debug or (flags.FLAGS.is_parsed() and flags.FLAGS.debug):
    raise error
  raise SystemExit(f"error: {_explained(error)}") from error


def _explained(error: Exception) -> str:
  """The message of an error, without what Python and absl wrap it in."""
  text = str(error)
  if isinstance(error, AttributeError | KeyError):  # An override of no setting.
    # The key is quoted once or twice, and a suggestion may follow.
    key = re.match(r"[\\'\"]*([\w.]*)", text)[1]
    if key in FUSIONS:
      return (
        f"config.model.{key}: the config has another fusion; choose this one in the"
        f' config, with set_fusion(config.model, "{key}", ...)'
      )
    if key.isidentifier():
      nearest = re.search(r'Did you mean "(\w+)"', text)
      hint = f"; did you mean {nearest[1]!r}?" if nearest else ""
      return f"the config has no setting {key!r}{hint}"
  if "Traceback" in text:  # Of the config's own code, which absl formats.
    last = text.strip().splitlines()[-1]
    known = re.match(r"deepsets_jax\.foundation\.errors\.\w+: (.*)", last)
    return known[1] if known else text
  return text
