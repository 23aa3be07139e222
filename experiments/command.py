"""Parsing of flags and reporting of errors, shared by all commands.

A mistake of the user (`UserError` or `OSError`) ends the command with one line,
`error: ...`, and exit code 1; `--debug` shows the traceback, too. Any other exception
is a defect, and its traceback is always shown.
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

flags.DEFINE_bool("debug", False, "Show the traceback of an error.")

# Earlier names of configs -> new names.
_RENAMED_CONFIGS = {
  "movielens_recall.py": "movielens_retrieval.py",
  "movielens_rank.py": "movielens_ranking.py",
}


def run(main: Callable[[list[str]], Any]) -> NoReturn:
  """Parse the flags of the command line, and run the main function of a command.

  Args:
    main: Takes the arguments that are not flags, with the program's name first.
  """
  app.run(functools.partial(guarded, main), flags_parser=_parse)


def guarded(main: Callable[..., Any], *arguments: Any) -> Any:
  """Call a function; a mistake of the user ends the command with one line."""
  try:
    return main(*arguments)
  except (UserError, OSError) as error:
    _fail(error)


def reject_arguments(argv: Sequence[str]) -> None:
  """Check that the command line has flags only.

  Raises:
    ConfigError: There is an argument that is not a flag.
  """
  if len(argv) > 1:
    raise ConfigError(f"unknown arguments {list(argv[1:])}; flags begin with --")


def _parse(argv: list[str]) -> list[str]:
  try:
    _check_config(argv)
    return flags.FLAGS(argv)
  # A config raises the errors of Python for an unknown name or a wrong type.
  except (flags.Error, UserError, AttributeError, KeyError, TypeError, ValueError) as e:
    return _fail(e, debug="--debug" in argv)


def _check_config(argv: Sequence[str]) -> None:
  """Check the names in the arguments, and make modules beside the config importable.

  Raises:
    ConfigError: The config does not exist, or a setting was renamed. The message has
      the new name.
  """
  for argument in argv[1:]:
    key, _, value = argument.removeprefix("-").removeprefix("-").partition("=")
    if key == "config":
      # experiments.compare takes [name=]path.
      path = pathlib.Path(value.partition(":")[0].rpartition("=")[2])
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
  """End the command with one line, or with a traceback if `--debug` is set."""
  if debug or (flags.FLAGS.is_parsed() and flags.FLAGS.debug):
    raise error
  raise SystemExit(f"error: {_explained(error)}") from error


def _explained(error: Exception) -> str:
  """Return the message of an error, without additions of Python and absl."""
  text = str(error)
  if isinstance(error, AttributeError | KeyError):  # An override of no setting.
    # The key is quoted once or twice, and a suggestion may follow.
    key = re.match(r"[\\'\"]*([\w.]*)", text)[1]
    if key in FUSIONS:
      return (
        f"config.model.{key}: the config has another fusion. Choose this one in the"
        f' config: set_fusion(config.model, "{key}", ...)'
      )
    if key.isidentifier():
      nearest = re.search(r'Did you mean "(\w+)"', text)
      hint = f"; did you mean {nearest[1]!r}?" if nearest else ""
      if key[0].isupper():  # The class of a fusion of one's own.
        hint = (
          '; set_fusion(config.model, "module:Class") gives the config its settings'
        )
      return f"the config has no setting {key!r}{hint}"
  if "Traceback" in text:  # An error in the code of the config, formatted by absl.
    last = text.strip().splitlines()[-1]
    known = re.match(r"deepsets_jax\.foundation\.errors\.\w+: (.*)", last)
    return known[1] if known else text
  return text
