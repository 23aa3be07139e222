"""Makes RESULTS.md and the README's results: every run behind them, and the tables.

  python -m experiments.reproduce
  python -m experiments.reproduce --parts=structures,bags

Runs are in `runs/reproduce`; one that is finished is not repeated. All parts take about
an hour and a half on two cores, most of it in "structures"; "sentences" first needs the
file of `experiments.encode_sentences`, see `configs/debian_structures.py`.
"""

from __future__ import annotations

import functools
import pathlib
import re
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import app, flags, logging

from configs import debian_programs, debian_structures, digits_bags, digits_sum
from deepsets_jax import figures, train
from experiments import compare, comparison, logistic_regression

_RUNS = pathlib.Path("runs/reproduce")
_SEEDS = (0, 1, 2)
_POOLS = ("sum", "mean", "max")
_SIZES = (10, 20, 50, 100)
# Compared; the others of `configs/debian_structures.py` take longest.
_STRUCTURES = tuple(
  name
  for name in debian_structures.STRUCTURES
  if name not in ("set_pool_words", "bottleneck")
)
_WITH_SENTENCES = ("concat", "set_pool", "hierarchical")


def spread(values: Sequence[float], digits: int = 3) -> str:
  """Mean ± sample standard deviation."""
  mean, deviation = statistics.mean(values), statistics.stdev(values)
  return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def debian_table() -> tuple[str, dict[str, Any]]:
  """Set pool, both concatenations and logistic regression on debian_programs."""
  rows = {}
  for label, argument in (
    ("set pool", "set_pool"),
    ("concat, zeros", "concat"),
    ("concat, learned placeholders", "concat_learned"),
  ):
    rows[label] = [
      train.train_once(
        debian_programs.get_config(f"{argument},{seed}"),
        _RUNS / f"debian_programs_{argument}_{seed}",
      )
      for seed in _SEEDS
    ]
  facts = rows["set pool"][0]
  rows["logistic regression, description + depends"] = [
    logistic_regression.evaluate(seed) for seed in _SEEDS
  ]
  names = ("f1_micro", "f1_macro", "f1_samples", "average_precision_micro")
  lines = [
    f"| model | parameters | {' | '.join(names)} |",
    "|---|---|" + "---|" * len(names),
  ]
  for label, results in rows.items():
    cells = [spread([r["test"][name] for r in results]) for name in names]
    sizes = [r["parameters"] for r in results if "parameters" in r]
    parameters = f"{statistics.mean(sizes):,.0f}" if sizes else ""
    lines.append(f"| {label} | {parameters} | {' | '.join(cells)} |")
  return "\n".join(lines), facts


def digits_table() -> tuple[str, dict[str, Any]]:
  """Relative error of the digit sum by pool and size of the set."""
  lines = [
    "| pool | " + " | ".join(f"{n} images" for n in _SIZES) + " |",
    "|---|" + "---|" * len(_SIZES),
  ]
  for pool in _POOLS:
    runs = []
    for seed in _SEEDS:
      config = digits_sum.get_config(pool)
      config.seed = seed
      runs.append(train.train_once(config, _RUNS / f"digits_sum_{pool}_{seed}"))
    cells = [
      f"{spread([100 * r[f'test_{n}']['mape'] for r in runs], 2)} %" for n in _SIZES
    ]
    lines.append(f"| {pool} | " + " | ".join(cells) + " |")
  return "\n".join(lines), runs[0]


def structures_table() -> tuple[str, dict[str, Any]]:
  """Structures on debian_programs, the text in the form of each; draws the picture."""
  return _compare("", _STRUCTURES, pathlib.Path("docs/structures.png"))


def sentences_table() -> tuple[str, dict[str, Any]]:
  """The same with the text as sentences of a pretrained encoder."""
  return _compare(",0,sentences", _WITH_SENTENCES)


def _compare(
  argument: str, names: Sequence[str], picture: pathlib.Path | None = None
) -> tuple[str, dict[str, Any]]:
  models = []
  for name in names:
    config = debian_structures.get_config(name + argument)
    source = f"configs/debian_structures.py:{name}{argument}"
    models.append(comparison.Model(name, source, config))
  folder = "structures_sentences" if argument else "structures"
  runs = compare.run(models, _SEEDS, _RUNS / folder)
  metrics = ("f1_micro", "f1_macro")
  rows = comparison.rows(models, runs, metrics, names[0])
  if picture is not None:
    figures.save(comparison.draw(rows, metrics, names[0]), picture)
  return comparison.markdown(rows, metrics), runs[names[0]].finished[_SEEDS[0]]


def bags_table() -> tuple[str, dict[str, Any]]:
  """The largest digit and "contains a nine", by pool."""
  heads = [f"largest of {n}" for n in _SIZES] + ["a nine: ROC AUC", "accuracy"]
  lines = [f"| pool | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
  for pool in (*digits_bags.POOLS, "mil", "mil_gated", "set_transformer"):
    largest, nine = (
      [
        train.train_once(
          digits_bags.get_config(f"{task},{pool},{seed}"),
          _RUNS / f"digits_bags_{task}_{pool}_{seed}",
        )
        for seed in _SEEDS
      ]
      for task in ("max", "contains_nine")
    )
    cells = [spread([r[f"test_{size}"]["mae"] for r in largest], 2) for size in _SIZES]
    for name in ("roc_auc", "accuracy"):
      cells.append(spread([r["test"][name] for r in nine]))
    lines.append(f"| {pool} | " + " | ".join(cells) + " |")
  return "\n".join(lines), largest[0]


def provenance(facts: Mapping[str, Any]) -> str:
  """The sentence that says where numbers come from."""
  device, versions = facts["device"], facts["versions"]
  return (
    f"Mean ± sample standard deviation of seeds {', '.join(map(str, _SEEDS))}; written at"
    f" commit {_commit()}, {device['count']} {device['kind']} device, jax {versions['jax']},"
    f" jaxlib {versions['jaxlib']}, Python {versions['python']}."
  )


@functools.cache
def _commit() -> str:
  """The commit, asked before anything is written."""
  return subprocess.run(
    ["git", "describe", "--always", "--dirty"],
    capture_output=True,
    text=True,
    check=True,
  ).stdout.strip()


# By name, in the order of RESULTS.md. What to read from a table is in docs/<name>.md,
# the one thing that no run writes; its first part comes before the table.
_PARTS: Mapping[str, Callable[[], tuple[str, dict[str, Any]]]] = {
  "debian_programs": debian_table,
  "structures": structures_table,
  "sentences": sentences_table,
  "bags": bags_table,
  "digits_sum": digits_table,
}
_CHOSEN = flags.DEFINE_list("parts", list(_PARTS), f"Of {', '.join(_PARTS)}.")


def section(name: str) -> tuple[str, str]:
  """A part of RESULTS.md, and what of it stands in the README."""
  table, facts = _PARTS[name]()
  table = f"{table}\n\n{provenance(facts)}"
  before, after = pathlib.Path(f"docs/{name}.md").read_text().split("\n---\n")
  return f"{before.strip()}\n\n{table}\n\n{after.strip()}", table


def put(path: pathlib.Path, name: str, text: str) -> None:
  """Puts a text between the two marks of a part, where the file has them."""
  page = path.read_text()
  begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
  pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
  replace(path, pattern.sub(lambda _: f"{begin}{text.strip()}\n{end}", page))


def replace(path: pathlib.Path, text: str) -> None:
  """Writes to a temporary name and renames."""
  temporary = path.with_name(f".{path.name}.tmp")
  temporary.write_text(text)
  temporary.replace(path)


def main(argv: list[str]) -> None:
  """Runs what is missing, writes the parts into RESULTS.md and README.md."""
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments {argv[1:]}")
  unknown = sorted(set(_CHOSEN.value) - set(_PARTS))
  if unknown:
    raise app.UsageError(f"unknown part {unknown[0]!r}; one of {list(_PARTS)}")
  logging.set_verbosity(logging.WARNING)
  for name in _CHOSEN.value:
    text, table = section(name)
    put(pathlib.Path("RESULTS.md"), name, text)
    put(pathlib.Path("README.md"), name, table)
    print(f"wrote {name}")


if __name__ == "__main__":
  app.run(main)
