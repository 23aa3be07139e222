"""Measures what trained models lose when data is missing, wrong, or more.

  python -m experiments.robustness --workdir=runs/debian_programs
  python -m experiments.robustness --workdir=set_pool=runs/a \
    --workdir=set_pool=runs/b --workdir=concat=runs/c --output=runs/robustness

A folder may have a name before it; folders of one name are seeds of one model. The
metric is that of the runs' config, on one split: as it is, with each modality of each
example missing or each element wrong at a rate, with every element repeated, and with
every subset of the modalities where there are at most 10. The output folder (that of a
single run is by default `robustness` in the run's) then holds robustness.md,
robustness.json, robustness.png and subsets.png.
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

# What the same model on other seeds may differ in: slots are proposed from the split.
_OF_A_SEED = ("seed", "data.budgets", "data.shards")


class Run(NamedTuple):
  """A run that is asked for: the name of its model, its folder and its config."""

  name: str
  workdir: pathlib.Path
  config: ml_collections.ConfigDict


def read(text: str) -> Run:
  """The run of `[name=]folder`; its name is by default its folder's.

  Raises:
    ValueError: No run there.
  """
  name, folder = re.fullmatch(r"(?:([^=/]+)=)?(.*)", text, re.DOTALL).groups()
  workdir = pathlib.Path(folder)
  return Run(name or workdir.resolve().name, workdir, run_folder.read_config(workdir))


def check(runs: Sequence[Run]) -> None:
  """Raises where the numbers of runs could not stand in one table.

  Raises:
    ValueError: Two runs have other data or another metric; two of one name have one
      seed, or differ in more than it. Names the runs and the setting.
  """
  first = runs[0]
  for run in runs[1:]:
    _same(first, run, _data(first), _data(run), "models are compared on one data set")
  for one, other in itertools.combinations(runs, 2):
    if one.name != other.name:
      continue
    if one.config.seed == other.config.seed:
      raise ConfigError(
        f"{one.workdir} and {other.workdir} are both {one.name!r} with seed"
        f" {one.config.seed}; give one of them another name: --workdir=NAME=FOLDER"
      )
    reason = f"runs of one name, {one.name!r}, are seeds of one model"
    _same(one, other, _model(one), _model(other), reason)


def _same(
  one: Run, other: Run, settings: Mapping, others: Mapping, reason: str
) -> None:
  """Raises at the first setting in which two runs differ."""
  for key in settings | others:
    a, b = settings.get(key), others.get(key)
    if a != b:
      raise ConfigError(
        f"{other.workdir} has {key}={b!r}, and {one.workdir} has {a!r}; {reason}"
      )


def _data(run: Run) -> dict[str, Any]:
  """The settings that make the data set, up to the split, and the metric."""
  config = run.config
  own = config.data.get(config.data.name) or {}
  settings = {f"data.{config.data.name}.{key}": own[key] for key in own}
  fixed = {"data.name": config.data.name, "train.metric": config.train.metric}
  return fixed | settings


def _model(run: Run) -> dict[str, Any]:
  """All settings but those of a seed, by their dotted names."""
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
  """All that is measured of a run.

  Args:
    run: The run.
    split: Of its data.
    draws: Of a corruption by chance, at each level.
    seed: Of these.

  Raises:
    ValueError: Its data has no such split, or it has no checkpoint.
  """
  model = trained.load_trained(run.workdir)
  if split not in model.run.tables:
    raise ConfigError(
      f"{run.workdir}: its data has no split {split!r}; it has"
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

{metric} on {split}; {spread}. A loss is the difference from the split as it is,
positive where it is worse. Missing: each modality of each example is absent with this
chance, all of them too. Noise: each element is another one of the split with this
chance. Both are means of {draws} draws, seed {seed}. The area is that under the curve
over rates from 0 to 1. Repeated: every element so many times.

![The metric against how much is missing, wrong or repeated](robustness.png)
{subsets}
| model | run | seed |
|---|---|---|
{runs}

```bash
{command}
```
"""
_SUBSETS = "\n![Each modality alone, and what its absence costs](subsets.png)\n"


def compare(
  runs: Sequence[Run], output: pathlib.Path, *, split: str, draws: int, seed: int
) -> None:
  """Measures all runs, prints the tables and writes the files.

  Raises:
    ValueError: See `check` and `measure`.
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
  print(f"{tables}\n\nrobustness.md, its numbers and pictures are in {output}")


def main(argv: list[str]) -> None:
  """Measures what the command line names."""
  command.no_arguments(argv)
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
  """The flags of the command line; here, so that the rest can be imported."""
  flags.DEFINE_multi_string(
    "workdir", None, "[name=]folder of a run; once for each run.", required=True
  )
  flags.DEFINE_string(
    "output", None, "Folder of what is made; of a single run by default within its own."
  )
  flags.DEFINE_string("split", "test", "Of the data.")
  flags.DEFINE_integer("draws", 3, "Of what is random, at each level.", lower_bound=1)
  flags.DEFINE_integer("seed", 0, "Of the draws.", lower_bound=0)


if __name__ == "__main__":
  define_flags()
  command.run(main)
