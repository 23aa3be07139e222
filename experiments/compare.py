"""Runs configs over seeds and compares them: quality, size, cost, a paired test.

  python -m experiments.compare --seeds=0,1,2 --metrics=f1_micro,f1_macro \
    --config=configs/debian_programs.py:set_pool \
    --config=placeholders=configs/debian_programs.py:concat_learned \
    --workdir=runs/compare/concat

A config may have a name before it, and its argument behind it. The seed of a run is
that of the list, whatever its config says. A finished run is not repeated, one that
was interrupted goes on. In the folder are then compare.md, compare.json, compare.png
and the runs, `<name>/seed_<seed>`. A run whose loss was not finite is named; the
others count, and the command fails at its end.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence

from absl import flags, logging

from deepsets_jax import figures
from deepsets_jax.data.datasets import registry
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.foundation.files import write_json
from deepsets_jax.tasks import fit
from deepsets_jax.training import loop, metrics, run_folder
from experiments import command
from experiments.results.comparison import Model, Runs, draw, markdown, rows


def load(text: str) -> Model:
  """The model of `[name=]path[:argument]`; its name is by default as its run's folder.

  Raises:
    ValueError: No such file, or one without `get_config`.
  """
  name, path, argument = re.fullmatch(
    r"(?:([^=:/]+)=)?([^:]*)(?::(.*))?", text, re.DOTALL
  ).groups()
  if not pathlib.Path(path).is_file():
    raise ConfigError(f"--config={text}: there is no file {path!r}")
  spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "get_config"):
    raise ConfigError(f"--config={text}: {path} has no get_config()")
  config = module.get_config(*([] if argument is None else [argument]))
  source = path if argument is None else f"{path}:{argument}"
  return Model(name or run_folder.default_workdir(source).name, source, config.lock())


def check(models: Sequence[Model], names: Sequence[str], baseline: str) -> None:
  """Raises for what would only be found out after hours.

  Args:
    models: To compare.
    names: Of metrics.
    baseline: Name of one of the models.

  Raises:
    ValueError: Two models of one name or one config, a baseline that is no model, or a
      metric that a model's data does not have.
  """
  if baseline not in [model.name for model in models]:
    raise ConfigError(
      f"--baseline={baseline} is none of {[model.name for model in models]}"
    )
  for first, second in itertools.combinations(models, 2):
    same = "name" if first.name == second.name else "config"
    if same == "name" or first.seeded(0).to_dict() == second.seeded(0).to_dict():
      raise ConfigError(
        f"--config={first.source} and --config={second.source} have the same {same};"
        " leave one out, or give names: --config=NAME=PATH"
      )
  legal: dict[str, list[str]] = {}
  for model in models:
    data = json.dumps(model.config.data.to_dict(), sort_keys=True)
    if data not in legal:
      tables = registry.load_tables(model.config.data, model.config.seed)
      legal[data] = sorted((*metrics.names(tables["train"].schema.target), "loss"))
    for name in names:
      if name not in legal[data]:
        raise ConfigError(
          f"{model.name}: no metric {name!r}; its data has {legal[data]}"
        )


def run(models: Sequence[Model], seeds: Sequence[int], workdir: pathlib.Path) -> dict:
  """Runs what is not finished, and reads the rest: `Runs` by name of the model."""
  runs = {model.name: Runs({}, {}) for model in models}
  for model in models:
    for seed in seeds:
      folder = workdir / model.name / f"seed_{seed}"
      try:
        runs[model.name].finished[seed] = fit.train_once(model.seeded(seed), folder)
      except loop.NonFiniteError as error:
        runs[model.name].failed[seed] = str(error)
        print(f"{model.name}, seed {seed}: {error}", file=sys.stderr)
  return runs


_PAGE = """# Comparison

{table}

Mean ± sample standard deviation, on test, of the seeds {seeds}. A difference is that
from {baseline} with the same seed; its p is two-sided, of a paired t-test over the {n}
seeds. Few seeds show large differences only; p is not corrected for the number of
models. FLOPs are those of training, forward and backward, without the update of the
parameters. {provenance}

![Quality against parameters and FLOPs](compare.png)

| model | config |
|---|---|
{configs}

```bash
{command}
```
"""


def provenance(runs: Mapping[str, Runs]) -> str:
  """The sentence that says what the numbers were made with."""
  commit = subprocess.run(
    ["git", "describe", "--always", "--dirty"],
    cwd=pathlib.Path(__file__).parent,
    capture_output=True,
    text=True,
    check=False,
  ).stdout.strip()
  made = sorted(
    f"{x['device']['count']} {x['device']['kind']}, jax {x['versions']['jax']},"
    f" jaxlib {x['versions']['jaxlib']}"
    for one in runs.values()
    for x in one.finished.values()
  )
  return "; ".join([f"Commit {commit or 'unknown'}", *dict.fromkeys(made)]) + "."


def compare(
  models: Sequence[Model],
  seeds: Sequence[int],
  names: Sequence[str],
  baseline: str,
  workdir: pathlib.Path,
) -> bool:
  """Runs, writes the three files, prints the table; whether no run failed.

  Raises:
    ValueError: See `check`.
  """
  check(models, names, baseline)
  workdir.mkdir(parents=True, exist_ok=True)
  runs = run(models, seeds, workdir)
  table = rows(models, runs, names, baseline)
  text = markdown(table, names)
  page = _PAGE.format(
    table=text,
    seeds=", ".join(map(str, seeds)),
    n=len(seeds),
    baseline=baseline,
    provenance=provenance(runs),
    configs="\n".join(f"| {model.name} | `{model.source}` |" for model in models),
    command=shlex.join(["python", "-m", "experiments.compare", *sys.argv[1:]]),
  )
  (workdir / "compare.md").write_text(page)
  facts = {"seeds": seeds, "metrics": names, "baseline": baseline}
  write_json(workdir / "compare.json", facts | {"models": table})
  figures.save(draw(table, names, baseline), workdir / "compare.png")
  print(f"{text}\n\ncompare.md, compare.json and compare.png are in {workdir}")
  return not any(one.failed for one in runs.values())


def main(argv: list[str]) -> int:
  """Compares what the command line names."""
  command.no_arguments(argv)
  logging.set_verbosity(logging.WARNING)
  given = flags.FLAGS
  models = [load(text) for text in given.config]
  good = compare(
    models,
    list(dict.fromkeys(int(seed) for seed in given.seeds)),
    given.metrics,
    given.baseline or models[0].name,
    pathlib.Path(given.workdir),
  )
  return 0 if good else 1


def define_flags() -> None:
  """The flags of the command line; here, so that the rest can be imported."""
  flags.DEFINE_multi_string(
    "config", None, "[name=]path[:argument]; once for each config.", required=True
  )
  flags.DEFINE_list("seeds", ["0", "1", "2"], "Each a run of every config.")
  flags.DEFINE_list("metrics", ["f1_micro", "f1_macro"], "Of test.")
  flags.DEFINE_string(
    "baseline", None, "Name that the others are tested against; by default the first."
  )
  flags.DEFINE_string("workdir", "runs/compare", "Folder of all that is made.")


if __name__ == "__main__":
  define_flags()
  command.run(main)
