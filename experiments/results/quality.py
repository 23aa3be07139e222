"""The parts on quality: models compared on their test data."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from configs import debian_programs, debian_structures, digits_bags, digits_sum
from deepsets_jax import figures
from experiments import compare
from experiments.results import comparison, logistic_regression, runs

_POOLS = ("sum", "mean", "max")
_SIZES = (10, 20, 50, 100)
# Compared; the others of `configs/debian_structures.py` take longest.
_STRUCTURES = tuple(
  name
  for name in debian_structures.STRUCTURES
  if name not in ("set_pool_words", "bottleneck")
)
_WITH_SENTENCES = ("concat", "set_pool", "hierarchical")


def debian_table() -> tuple[str, dict[str, Any]]:
  """Set pool, both concatenations and logistic regression on debian_programs."""
  rows = {}
  for label, argument in (
    ("set pool", "set_pool"),
    ("concat, zeros", "concat"),
    ("concat, learned placeholders", "concat_learned"),
  ):
    rows[label] = [
      runs.once(
        debian_programs.get_config(f"{argument},{seed}"),
        f"debian_programs_{argument}_{seed}",
      )
      for seed in runs.SEEDS
    ]
  facts = rows["set pool"][0]
  rows["logistic regression, description + depends"] = [
    logistic_regression.evaluate(seed) for seed in runs.SEEDS
  ]
  names = ("f1_micro", "f1_macro", "f1_samples", "average_precision_micro")
  lines = [
    f"| model | parameters | {' | '.join(names)} |",
    "|---|---|" + "---|" * len(names),
  ]
  for label, results in rows.items():
    cells = [runs.spread([r["test"][name] for r in results]) for name in names]
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
    found = []
    for seed in runs.SEEDS:
      config = digits_sum.get_config(pool)
      config.seed = seed
      found.append(runs.once(config, f"digits_sum_{pool}_{seed}"))
    cells = [
      f"{runs.spread([100 * r[f'test_{n}']['mape'] for r in found], 2)} %"
      for n in _SIZES
    ]
    lines.append(f"| {pool} | " + " | ".join(cells) + " |")
  return "\n".join(lines), found[0]


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
  found = compare.run(models, runs.SEEDS, runs.RUNS / folder)
  metrics = ("f1_micro", "f1_macro")
  rows = comparison.rows(models, found, metrics, names[0])
  if picture is not None:
    figures.save(comparison.draw(rows, metrics, names[0]), picture)
  return comparison.markdown(rows, metrics), found[names[0]].finished[runs.SEEDS[0]]


def bags_table() -> tuple[str, dict[str, Any]]:
  """The largest digit and "contains a nine", by pool."""
  heads = [f"largest of {n}" for n in _SIZES] + ["a nine: ROC AUC", "accuracy"]
  lines = [f"| pool | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
  for pool in (*digits_bags.POOLS, "mil", "mil_gated", "set_transformer"):
    largest, nine = (
      [
        runs.once(
          digits_bags.get_config(f"{task},{pool},{seed}"),
          f"digits_bags_{task}_{pool}_{seed}",
        )
        for seed in runs.SEEDS
      ]
      for task in ("max", "contains_nine")
    )
    cells = [
      runs.spread([r[f"test_{size}"]["mae"] for r in largest], 2) for size in _SIZES
    ]
    for name in ("roc_auc", "accuracy"):
      cells.append(runs.spread([r["test"][name] for r in nine]))
    lines.append(f"| {pool} | " + " | ".join(cells) + " |")
  return "\n".join(lines), largest[0]
