"""Makes RESULTS.md and the README's results: every run behind them, and the tables.

  python -m experiments.reproduce

Runs are in `runs/reproduce`; one that is finished is not repeated. About six
minutes on two cores.
"""

from __future__ import annotations

import pathlib
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from absl import app, logging

from configs import debian_programs, digits_sum
from deepsets_jax import train
from experiments import logistic_regression

_RUNS = pathlib.Path("runs/reproduce")
_SEEDS = (0, 1, 2)
_POOLS = ("sum", "mean", "max")
_SIZES = (10, 20, 50, 100)


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


def digits_table() -> str:
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
  return "\n".join(lines)


_PAGE = """# Results

Made by `python -m experiments.reproduce`. Of each run the config and all metrics are in
its folder, `runs/reproduce`.

{provenance}

## Debian programs: set pool against concatenation

`python -m experiments.main --config=configs/debian_programs.py:MODEL,SEED`, MODEL one
of `set_pool`, `concat`, `concat_learned`. 74 labels of 7,453 programs, test part; the
split (by source package), the initial parameters and the order depend on the seed. One
threshold for all labels, chosen on validation, as all hyper-parameters were.

{debian}

{note}

## Sum of digits: sets ten times as large as any in training

`python -m experiments.main --config=configs/digits_sum.py:POOL --config.seed=SEED`.
Trained on sets of 1 to 10 images, tested on sets of unseen images. Mean relative error
(`mape`) of the predicted sum.

{digits}

Only the sum pool extrapolates: a mean or a maximum does not know how many there were.
"""

_SUMMARY = """<!-- results -->
Micro and macro F1 on the test part of `debian_programs`:

{debian}

Relative error of a sum of digits, trained on sets of at most 10 images:

{digits}

{provenance}
<!-- /results -->"""


def provenance(facts: Mapping[str, Any]) -> str:
  """The sentence that says where numbers come from."""
  commit = subprocess.run(
    ["git", "describe", "--always", "--dirty"],
    capture_output=True,
    text=True,
    check=True,
  ).stdout.strip()
  device, versions = facts["device"], facts["versions"]
  return (
    f"Mean ± sample standard deviation of seeds {', '.join(map(str, _SEEDS))}; commit"
    f" {commit}, {device['count']} {device['kind']} device, jax {versions['jax']},"
    f" jaxlib {versions['jaxlib']}, Python {versions['python']}."
  )


def replace(path: pathlib.Path, text: str) -> None:
  """Writes to a temporary name and renames."""
  temporary = path.with_name(f".{path.name}.tmp")
  temporary.write_text(text)
  temporary.replace(path)


def main(argv: list[str]) -> None:
  """Runs what is missing, writes RESULTS.md and the results in README.md."""
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments {argv[1:]}")
  logging.set_verbosity(logging.WARNING)
  debian, facts = debian_table()
  parts = {
    "debian": debian,
    "digits": digits_table(),
    "provenance": provenance(facts),
    "note": pathlib.Path("docs/debian_programs.md").read_text().strip(),
  }
  replace(pathlib.Path("RESULTS.md"), _PAGE.format(**parts))
  readme = pathlib.Path("README.md")
  before, rest = readme.read_text().split("<!-- results -->")
  after = rest.split("<!-- /results -->")[1]
  replace(readme, before + _SUMMARY.format(**parts) + after)
  print("wrote RESULTS.md and the results in README.md")


if __name__ == "__main__":
  app.run(main)
