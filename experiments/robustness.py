"""Measure the robustness of trained models to missing, wrong and repeated data.

  python -m experiments.robustness --workdir=runs/debian_programs
  python -m experiments.robustness --workdir=set_pool=runs/a \
    --workdir=set_pool=runs/b --workdir=concat=runs/c --output=runs/robustness

A folder may have a name before it; folders of one name are seeds of one model. The
command computes the metric of the runs' config on one split: without changes, with each
modality of each example missing or each element replaced at several rates, with every
element repeated, and with every subset of the modalities if there are at most 10. The
output folder (for a single run by default `robustness` in its folder) then has
robustness.md, robustness.json, robustness.png and subsets.png.
"""

from __future__ import annotations

import itertools
import pathlib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
from absl import flags, logging

from deepsets_jax import figures
from deepsets_jax.analysis import robustness
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.foundation.files import write_json
from deepsets_jax.tasks import trained
from deepsets_jax.training import run_folder
from experiments import command
from experiments.results.robustness_tables import (
  Measured,
  draw_curves,
  draw_subsets,
  markdown,
  rows,
)

# Settings that differ between seeds of a model; budgets are proposed from the split.
_OF_A_SEED = ("seed", "data.budgets", "data.shards")


class Run(NamedTuple):
  """A run to measure: the name of its model, its folder and its config."""

  name: str
  workdir: pathlib.Path
  config: ml_collections.ConfigDict


def read(text: str) -> Run:
  """Return the run of `[name=]folder`; the default name is that of the folder.

  Raises:
    ConfigError: The folder has no run.
  """
  name, folder = re.fullmatch(r"(?:([^=/]+)=)?(.*)", text, re.DOTALL).groups()
  workdir = pathlib.Path(folder)
  return Run(name or workdir.resolve().name, workdir, run_folder.read_config(workdir))


def check(runs: Sequence[Run]) -> None:
  """Check that the runs can be compared in one table.

  Raises:
    ConfigError: Two runs differ in data or metric, or two runs of one name have the
      same seed or differ in more than the seed. The message names the runs and the
      setting.
  """
  first = runs[0]
  for run in runs[1:]:
    reason = "compared models must share one data set"
    _same(first, run, _data(first), _data(run), reason)
  for one, other in itertools.combinations(runs, 2):
    if one.name != other.name:
      continue
    if one.config.seed == other.config.seed:
      raise ConfigError(
        f"{one.workdir} and {other.workdir} are both {one.name!r} with seed"
        f" {one.config.seed}. Give one of them another name: --workdir=NAME=FOLDER."
      )
    reason = f"runs of one name, {one.name!r}, must differ in the seed only"
    _same(one, other, _model(one), _model(other), reason)


def _same(
  one: Run, other: Run, settings: Mapping, others: Mapping, reason: str
) -> None:
  """Raise at the first setting in which two runs differ."""
  for key in settings | others:
    a, b = settings.get(key), others.get(key)
    if a != b:
      raise ConfigError(
        f"{other.workdir} has {key}={b!r}, but {one.workdir} has {a!r}; {reason}"
      )


def _data(run: Run) -> dict[str, Any]:
  """Return the settings of the data set, its split and the metric."""
  config = run.config
  own = config.data.get(config.data.name) or {}
  settings = {f"data.{config.data.name}.{key}": own[key] for key in own}
  fixed = {"data.name": config.data.name, "train.metric": config.train.metric}
  return fixed | settings


def _model(run: Run) -> dict[str, Any]:
  """Return {dotted name: value} of all settings except those of a seed."""
  settings = {}

  def visit(group: Mapping, prefix: str) -> None:
    for key, value in group.items():
      name = f"{prefix}{key}"
      if name in _OF_A_SEED:
        continue
      if isinstance(value, ml_collections.ConfigDict):
        visit(value, f"{name}.")
      else:
        settings[name] = value

  visit(run.config, "")
  return settings


def measure(run: Run, split: str, draws: int, seed: int) -> Measured:
  """Measure one run.

  Args:
    run: The run.
    split: Split of its data.
    draws: Number of random corruptions at each level.
    seed: Seed of the draws.

  Raises:
    ConfigError: The data has no such split, or the run has no checkpoint.
  """
  model = trained.load_trained(run.workdir)
  if split not in model.run.tables:
    raise ConfigError(
      f"{run.workdir}: the data has no split {split!r}; it has"
      f" {sorted(model.run.tables)}"
    )
  table = model.run.tables[split]
  curves = {
    name: robustness.curve(
      model,
      table,
      kind.change,
      kind.levels,
      draws=draws if kind.by_chance else 1,
      seed=seed,
    )
    for name, kind in robustness.CORRUPTIONS.items()
  }
  few = len(table.schema.modalities) <= robustness.MOST_SUBSETS
  return Measured(
    str(run.workdir),
    run.config.seed,
    robustness.measure(model, table),
    curves,
    robustness.every_subset(model, table) if few else {},
  )


_PAGE = """# Robustness

{tables}

{metric} on {split}; {spread}. A loss is the difference from the unchanged split;
positive means worse. Missing: each modality of each example is absent with this
probability, possibly all of them. Noise: each element is replaced by another one of the
split with this probability. Both are means of {draws} draws, seed {seed}. The area is
that under the curve over rates from 0 to 1. Repeated: every element occurs this number
of times.

![The metric against the rate of missing, wrong or repeated data](robustness.png)
{subsets}
| model | run | seed |
|---|---|---|
{runs}

```bash
{command}
```
"""
_SUBSETS = (
  "\n![The metric with each modality alone, and the loss without it](subsets.png)\n"
)


def compare(
  runs: Sequence[Run], output: pathlib.Path, *, split: str, draws: int, seed: int
) -> None:
  """Measure all runs, print the tables and write the files.

  Raises:
    ConfigError: See `check` and `measure`.
  """
  check(runs)
  models: dict[str, list[Measured]] = {}
  for number, run in enumerate(runs, 1):
    print(f"{number}/{len(runs)}: {run.name}, {run.workdir}", file=sys.stderr)
    models.setdefault(run.name, []).append(measure(run, split, draws, seed))
  metric, table = runs[0].config.train.metric, rows(models)
  tables, with_subsets = markdown(table, metric), bool(table[0]["subsets"])
  several = any(len(measured) > 1 for measured in models.values())
  page = _PAGE.format(
    tables=tables,
    metric=metric,
    split=split,
    spread="mean ± sample standard deviation over seeds" if several else "single runs",
    draws=draws,
    seed=seed,
    subsets=_SUBSETS if with_subsets else "",
    runs="\n".join(f"| {x.name} | `{x.workdir}` | {x.config.seed} |" for x in runs),
    command=shlex.join(["python", "-m", "experiments.robustness", *sys.argv[1:]]),
  )
  output.mkdir(parents=True, exist_ok=True)
  facts = {"metric": metric, "split": split, "draws": draws, "seed": seed}
  write_json(output / "robustness.json", facts | {"models": table})
  (output / "robustness.md").write_text(page)
  figures.save(draw_curves(table, metric), output / "robustness.png")
  if with_subsets:
    figures.save(draw_subsets(table, metric), output / "subsets.png")
  print(f"{tables}\n\nrobustness.md, robustness.json and pictures are in {output}")


def main(argv: list[str]) -> None:
  """Measure the runs that the command line names."""
  command.reject_arguments(argv)
  logging.set_verbosity(logging.WARNING)
  given = flags.FLAGS
  runs = [read(text) for text in given.workdir]
  if given.output is None and len(runs) > 1:
    raise ConfigError(f"--output is required with {len(runs)} runs")
  output = given.output or runs[0].workdir / "robustness"
  compare(
    runs,
    pathlib.Path(output),
    split=given.split,
    draws=given.draws,
    seed=given.seed,
  )


def define_flags() -> None:
  """Define the flags; a function, so that importing the module defines none."""
  flags.DEFINE_multi_string(
    "workdir", None, "[name=]folder of a run; repeat it for more.", required=True
  )
  flags.DEFINE_string(
    "output",
    None,
    "Output folder; default for a single run: `robustness` in its folder.",
  )
  flags.DEFINE_string("split", "test", "Split to measure on.")
  flags.DEFINE_integer(
    "draws", 3, "Number of random corruptions at each level.", lower_bound=1
  )
  flags.DEFINE_integer("seed", 0, "Seed of the draws.", lower_bound=0)


if __name__ == "__main__":
  define_flags()
  command.run(main)
