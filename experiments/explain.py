"""What decided in a finished run: importance by every method, as a page.

  python -m experiments.explain --workdir=runs/debian_programs
  python -m experiments.explain --workdir=runs/debian_programs \
    --methods=argmax,shapley --ids=vim,gifsicle

The folder then holds index.html, which opens without a network, explain.json and the
pictures.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

from absl import flags, logging

import deepsets_jax
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.training import run_folder
from experiments import command


def table(summary: Mapping[str, Any]) -> str:
  """Importance by modality and method, in columns."""
  shares = {name: facts["shares"] for name, facts in summary["methods"].items()}
  modalities = list(next(iter(shares.values())))
  width = max(map(len, ("modality", *modalities)))
  lines = [f"{'modality':{width}}  {'  '.join(shares)}"]
  for modality in modalities:
    cells = [f"{each[modality]:{len(name)}.3f}" for name, each in shares.items()]
    lines.append(f"{modality:{width}}  {'  '.join(cells)}")
  return "\n".join(lines)


def check_folder(folder: pathlib.Path) -> None:
  """Raises where nothing could be written; makes no folder.

  Raises:
    ValueError: Not writable; says why.
  """
  there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
  try:
    with tempfile.TemporaryFile(dir=there):
      pass
  except OSError as error:
    raise ConfigError(
      f"cannot write to {folder}: {error}; give another --output"
    ) from error


def main(argv: list[str]) -> None:
  """Explains the run that the command line names."""
  command.no_arguments(argv)
  logging.set_verbosity(logging.WARNING)
  given = flags.FLAGS
  workdir = pathlib.Path(given.workdir)
  run_folder.read_config(workdir)
  folder = pathlib.Path(given.output or workdir / "explain")
  check_folder(folder)
  explained = deepsets_jax.explain(
    workdir,
    split=given.split,
    methods=given.methods,
    ids=given.ids,
    examples=given.examples,
    label=given.label,
    permutations=given.permutations,
    seed=given.seed,
    report=lambda line: print(line, flush=True),
  )
  explained.write(folder)
  notes = [n for m in explained.summary["methods"].values() for n in m["notes"]]
  print("", table(explained.summary), *notes, sep="\n")
  print(f"\nindex.html and explain.json are in {folder}")


def define_flags() -> None:
  """The flags of the command line; here, so that the rest can be imported."""
  flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
  flags.DEFINE_string("split", "test", "Whose examples.")
  flags.DEFINE_list("methods", None, "By default all that the model has.")
  flags.DEFINE_list("ids", None, "Examples to show; by default six at random.")
  flags.DEFINE_integer("examples", 200, "Random ones, that the data set is told by.")
  flags.DEFINE_string("label", None, "What is explained; by default the prediction.")
  flags.DEFINE_integer("permutations", 8, "Random orders of element_shapley.")
  flags.DEFINE_string("output", None, "Folder; by default explain in that of the run.")
  flags.DEFINE_integer("seed", 0, "Of all that is random.")


if __name__ == "__main__":
  define_flags()
  command.run(main)
