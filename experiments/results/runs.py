"""The runs behind RESULTS.md, and the type of its generated sections."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import ml_collections

from deepsets_jax.tasks import fit, trained
from deepsets_jax.tasks.trained import Trained
from deepsets_jax.training import run_folder

RUNS = pathlib.Path("runs/reproduce")
SEEDS = (0, 1, 2)


class Section(NamedTuple):
  """The generated part of a section of RESULTS.md.

  Attributes:
    text: Tables in Markdown.
    results: What `results.json` of one of the runs holds; its device and versions are
      named below the text.
    seeds: Of the runs.
  """

  text: str
  results: Mapping[str, Any]
  seeds: Sequence[int] = SEEDS


@dataclasses.dataclass(frozen=True)
class Run:
  """A run in a folder of `RUNS`; it is trained when it is first needed."""

  name: str
  config: ml_collections.ConfigDict

  @property
  def folder(self) -> pathlib.Path:
    """The folder of the run."""
    return RUNS / self.name

  def results(self) -> Mapping[str, Any]:
    """Return what `results.json` holds; train the run unless it has finished."""
    return fit.train_once(self.config, self.folder)

  def load(self) -> Trained:
    """Open the trained model; train the run unless it has finished."""
    self.results()
    return trained.load_trained(self.folder)


def seeded_runs(
  configs: ModuleType, argument: str, seeds: Sequence[int] = SEEDS
) -> list[Run]:
  """Return runs of one config that differ only in their seed.

  Args:
    configs: A module of `configs`.
    argument: The argument of its `get_config`, with "{}" in place of the seed.
    seeds: One run each.
  """
  arguments = [argument.format(seed) for seed in seeds]
  return [
    Run(
      run_folder.default_workdir(
        f"{configs.__name__.rpartition('.')[2]}.py:{one}"
      ).name,
      configs.get_config(one),
    )
    for one in arguments
  ]


def results_of(
  configs: ModuleType, argument: str, seeds: Sequence[int] = SEEDS
) -> list[Mapping[str, Any]]:
  """Return the results of `seeded_runs`."""
  return [run.results() for run in seeded_runs(configs, argument, seeds)]
