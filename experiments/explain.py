"""Explain a finished run: feature attribution by every method, as a page.

  python -m experiments.explain --workdir=runs/debian_programs
  python -m experiments.explain --workdir=runs/debian_programs \
    --methods=argmax,shapley --ids=vim,gifsicle

It writes index.html (which needs no network), explain.json and the pictures to the
folder `explain` of the run, or to --output.
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
  """Return the mean share of each modality by method, as aligned columns of text."""
  shares = {name: facts["shares"] for name, facts in summary["methods"].items()}
  modalities = list(next(iter(shares.values())))
  width = max(map(len, ("modality", *modalities)))
  lines = [f"{'modality':{width}}  {'  '.join(shares)}"]
  for modality in modalities:
    cells = [f"{each[modality]:{len(name)}.3f}" for name, each in shares.items()]
    lines.append(f"{modality:{width}}  {'  '.join(cells)}")
  return "\n".join(lines)


def check_folder(folder: pathlib.Path) -> None:
  """Check that a folder is writable, without creating it.

  Raises:
    ConfigError: The folder is not writable; the message says why.
  """
  there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
  try:
    with tempfile.TemporaryFile(dir=there):
      pass
  except OSError as error:
    raise ConfigError(
      f"cannot write to {folder}: {error}. Give another --output."
    ) from error


def main(argv: list[str]) -> None:
  """Explain the run that the command line names."""
  command.reject_arguments(argv)
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
  """Define the flags; a function, so that other modules can import this one."""
  flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
  flags.DEFINE_string("split", "test", "Split of the examples.")
  flags.DEFINE_list("methods", None, "Methods; default: all that the model supports.")
  flags.DEFINE_list("ids", None, "Ids of examples to show; default: six at random.")
  flags.DEFINE_integer("examples", 200, "Number of examples in the sample.")
  flags.DEFINE_string("label", None, "Label to explain; default: the prediction.")
  flags.DEFINE_integer("permutations", 8, "Number of random orders of element_shapley.")
  flags.DEFINE_string("output", None, "Output folder; default: `explain` in the run.")
  flags.DEFINE_integer("seed", 0, "Seed of all random choices.")


if __name__ == "__main__":
  define_flags()
  command.run(main)
