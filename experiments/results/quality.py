"""The sections on quality: models compared on their test data."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Sequence

from configs import debian_programs, debian_structures, digits_bags, digits_sum
from deepsets_jax import figures
from experiments import compare
from experiments.results import comparison, logistic_regression, runs, tables

_POOLS = ("sum", "mean", "max")
_SIZES = (10, 20, 50, 100)
# The other two of `configs/debian_structures.py` take longest.
_STRUCTURES = tuple(
  name
  for name in debian_structures.STRUCTURES
  if name not in ("set_pool_words", "bottleneck")
)
_WITH_SENTENCES = ("concat", "set_pool", "hierarchical")
# Metric of "contains a nine" -> head of its column.
_NINE = {"roc_auc": "a nine: ROC AUC", "accuracy": "accuracy"}


def debian_section() -> runs.Section:
  """Tabulate set pool, concatenations and logistic regression on debian_programs."""
  results = {
    label: runs.results_of(debian_programs, f"{model},{{}}")
    for label, model in (
      ("set pool", "set_pool"),
      ("concat, zeros", "concat"),
      ("concat, learned placeholders", "concat_learned"),
    )
  }
  results["logistic regression, description + depends"] = [
    logistic_regression.evaluate(seed) for seed in runs.SEEDS
  ]
  metrics = ("f1_micro", "f1_macro", "f1_samples", "average_precision_micro")
  rows = []
  for label, found in results.items():
    sizes = [one["parameters"] for one in found if "parameters" in one]
    parameters = f"{statistics.mean(sizes):,.0f}" if sizes else ""
    cells = [tables.metric_over_seeds(found, "test", name) for name in metrics]
    rows.append([label, parameters, *cells])
  head = ["model", "parameters", *metrics]
  return runs.Section(tables.markdown_table(head, rows), results["set pool"][0])


def digits_section() -> runs.Section:
  """Tabulate the relative error of the digit sum by pool and size of the set."""
  rows = []
  for pool in _POOLS:
    found = []
    for seed in runs.SEEDS:
      config = digits_sum.get_config(pool)
      config.seed = seed
      found.append(runs.Run(f"digits_sum_{pool}_{seed}", config).results())
    errors = [[100 * one[f"test_{n}"]["mape"] for one in found] for n in _SIZES]
    rows.append([pool, *(f"{tables.mean_and_sd(one, 2)} %" for one in errors)])
  head = ["pool", *(f"{n} images" for n in _SIZES)]
  return runs.Section(tables.markdown_table(head, rows), found[0])


def structures_section() -> runs.Section:
  """Compare the structures on debian_programs, and draw the picture."""
  return _comparison("structures", "", _STRUCTURES, pathlib.Path("docs/structures.png"))


def sentences_section() -> runs.Section:
  """Compare structures on the sentence vectors of a pretrained encoder."""
  return _comparison("structures_sentences", ",0,sentences", _WITH_SENTENCES)


def _comparison(
  folder: str,
  argument: str,
  names: Sequence[str],
  picture: pathlib.Path | None = None,
) -> runs.Section:
  models = []
  for name in names:
    config = debian_structures.get_config(name + argument)
    source = f"configs/debian_structures.py:{name}{argument}"
    models.append(comparison.Model(name, source, config))
  found = compare.train_models(models, runs.SEEDS, runs.RUNS / folder)
  metrics = ("f1_micro", "f1_macro")
  rows = comparison.summary_rows(models, found, metrics, names[0])
  if picture is not None:
    figures.save(comparison.cost_figure(rows, metrics, names[0]), picture)
  return runs.Section(
    comparison.summary_table(rows, metrics), found[names[0]].finished[runs.SEEDS[0]]
  )


def bags_section() -> runs.Section:
  """Tabulate the largest digit and "contains a nine", by pool."""
  rows = []
  for pool in (*digits_bags.POOLS, "mil", "mil_gated", "set_transformer"):
    largest, nine = (
      runs.results_of(digits_bags, f"{task},{pool},{{}}")
      for task in ("max", "contains_nine")
    )
    rows.append(
      [
        pool,
        *(tables.metric_over_seeds(largest, f"test_{n}", "mae", 2) for n in _SIZES),
        *(tables.metric_over_seeds(nine, "test", name) for name in _NINE),
      ]
    )
  head = ["pool", *(f"largest of {n}" for n in _SIZES), *_NINE.values()]
  return runs.Section(tables.markdown_table(head, rows), largest[0])
