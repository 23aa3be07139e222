"""Train configs over seeds, and compare their quality, size and cost.

  python -m experiments.compare --seeds=0,1,2 --metrics=f1_micro,f1_macro \
    --config=configs/debian_programs.py:set_pool \
    --config=placeholders=configs/debian_programs.py:concat_learned \
    --workdir=runs/compare/concat

A config may have a name before it and an argument after it. The seeds of the list
replace the seed of the config. Finished runs are not repeated, and interrupted ones are
resumed. The folder then holds compare.md, compare.json, compare.png and the runs,
`<name>/seed_<seed>`. A run whose loss is not finite is listed as failed: the comparison
uses the other runs, and the command ends with exit code 1.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import pathlib
import re
import shlex
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
from experiments.results import comparison, provenance
from experiments.results.comparison import Model, Outcomes


def load_model(text: str) -> Model:
  """Load the config of `[name=]path[:argument]`.

  The default name is that of the folder of its run, such as `debian_programs_concat`.

  Raises:
    ConfigError: No such file, or one without `get_config`.
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


def check_models(
  models: Sequence[Model], metric_names: Sequence[str], baseline: str
) -> None:
  """Check a comparison before any run starts.

  Args:
    models: The models to compare.
    metric_names: Metrics to compare them by.
    baseline: Name of one of the models.

  Raises:
    ConfigError: Two models have the same name or config, no model has the name of the
      baseline, or the data of a model does not have a metric.
  """
  if baseline not in [model.name for model in models]:
    raise ConfigError(
      f"--baseline={baseline}: no such model; one of {[model.name for model in models]}"
    )
  for first, second in itertools.combinations(models, 2):
    same = "name" if first.name == second.name else "config"
    if same == "name" or first.seeded(0).to_dict() == second.seeded(0).to_dict():
      raise ConfigError(
        f"--config={first.source} and --config={second.source} have the same {same};"
        " remove one of them, or name them: --config=NAME=PATH"
      )
  legal: dict[str, list[str]] = {}
  for model in models:
    data = json.dumps(model.config.data.to_dict(), sort_keys=True)
    if data not in legal:
      tables = registry.load_tables(model.config.data, model.config.seed)
      legal[data] = sorted((*metrics.names(tables["train"].schema.target), "loss"))
    for name in metric_names:
      if name not in legal[data]:
        raise ConfigError(
          f"--metrics: the data of {model.name} has no {name!r}; one of {legal[data]}"
        )


def train_models(
  models: Sequence[Model], seeds: Sequence[int], workdir: pathlib.Path
) -> dict[str, Outcomes]:
  """Train the runs that have not finished, and return those of every model by name."""
  outcomes = {model.name: Outcomes({}, {}) for model in models}
  for model in models:
    for seed in seeds:
      folder = workdir / model.name / f"seed_{seed}"
      try:
        outcomes[model.name].finished[seed] = fit.train_once(model.seeded(seed), folder)
      except loop.NonFiniteError as error:
        outcomes[model.name].failed[seed] = str(error)
        print(f"{model.name}, seed {seed}: {error}", file=sys.stderr)
  return outcomes


_PAGE = """# Comparison

{table}

Mean ± sample standard deviation on test over the seeds {seeds}. Differences are to
{baseline} with the same seed; p is that of a two-sided paired t-test over the {n}
seeds, not corrected for the number of models. With few seeds only large differences
show. FLOPs are those of training, forward and backward, without the update of the
parameters. {provenance}

![Quality against parameters and FLOPs](compare.png)

| model | config |
|---|---|
{configs}

```bash
{command}
```
"""


def _provenance(outcomes: Mapping[str, Outcomes]) -> str:
  """Return the commit, and the devices and versions of all finished runs."""
  environments = {
    provenance.environment(results)
    for one in outcomes.values()
    for results in one.finished.values()
  }
  return "; ".join([f"Commit {provenance.commit()}", *sorted(environments)]) + "."


def compare(
  models: Sequence[Model],
  seeds: Sequence[int],
  metric_names: Sequence[str],
  baseline: str,
  workdir: pathlib.Path,
) -> bool:
  """Train the models, write the three files and print the table.

  Returns:
    True if no run failed.

  Raises:
    ConfigError: See `check_models`.
  """
  check_models(models, metric_names, baseline)
  workdir.mkdir(parents=True, exist_ok=True)
  outcomes = train_models(models, seeds, workdir)
  rows = comparison.summary_rows(models, outcomes, metric_names, baseline)
  text = comparison.summary_table(rows, metric_names)
  page = _PAGE.format(
    table=text,
    seeds=", ".join(map(str, seeds)),
    n=len(seeds),
    baseline=baseline,
    provenance=_provenance(outcomes),
    configs="\n".join(f"| {model.name} | `{model.source}` |" for model in models),
    command=shlex.join(["python", "-m", "experiments.compare", *sys.argv[1:]]),
  )
  (workdir / "compare.md").write_text(page)
  facts = {"seeds": seeds, "metrics": metric_names, "baseline": baseline}
  write_json(workdir / "compare.json", facts | {"models": rows})
  figure = comparison.cost_figure(rows, metric_names, baseline)
  figures.save(figure, workdir / "compare.png")
  print(f"{text}\n\ncompare.md, compare.json and compare.png are in {workdir}")
  return not any(one.failed for one in outcomes.values())


def main(argv: list[str]) -> int:
  """Compare the configs of the command line, and return the exit code."""
  command.reject_arguments(argv)
  logging.set_verbosity(logging.WARNING)
  given = flags.FLAGS
  models = [load_model(text) for text in given.config]
  succeeded = compare(
    models,
    list(dict.fromkeys(int(seed) for seed in given.seeds)),
    given.metrics,
    given.baseline or models[0].name,
    pathlib.Path(given.workdir),
  )
  return 0 if succeeded else 1


def define_flags() -> None:
  """Define the flags; a function, so that importing the module defines none."""
  flags.DEFINE_multi_string(
    "config", None, "[name=]path[:argument]; repeat it for more.", required=True
  )
  flags.DEFINE_list(
    "seeds", ["0", "1", "2"], "Seeds; each config has one run per seed."
  )
  flags.DEFINE_list("metrics", ["f1_micro", "f1_macro"], "Metrics on the test split.")
  flags.DEFINE_string(
    "baseline", None, "Name of the config to compare with; default: the first."
  )
  flags.DEFINE_string("workdir", "runs/compare", "Folder of the results and runs.")


if __name__ == "__main__":
  define_flags()
  command.run(main)
