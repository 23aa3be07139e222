"""The parts on importance: is it true, and what does it cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from configs import debian_programs, debian_structures, digits_planted
from deepsets_jax.analysis import attribution
from deepsets_jax.analysis.attribution import faithfulness, outputs
from deepsets_jax.analysis.attribution.result import Attribution
from deepsets_jax.data.datasets import digits
from deepsets_jax.data.tables.ablation import Bags, keep_modalities
from deepsets_jax.data.tables.table import Table
from deepsets_jax.tasks.trained import Trained
from experiments.results import runs

# Of the methods to compare with, how many random orders.
_ORDERS = 5
# Examples of each test part whose elements are taken away.
_EXAMPLES = 200
# Measurements of a time.
_TIMES = 5
# Fusions of `configs/debian_structures.py`; of the last, which takes longest, one seed.
_REMOVAL = ("set_pool_max", "set_pool_mean", "concat", "mil", "hierarchical")
_REMOVAL_ONCE = ("single_stream",)
_TIMED = ("concat", "mil", "gated", "low_rank", "hierarchical")


def planted_part() -> tuple[str, dict[str, Any]]:
  """Every method against what was planted, and against random weights."""
  models = {
    name: [
      runs.loaded(
        digits_planted.get_config(f"{name},{seed}"), f"digits_planted_{name}_{seed}"
      )
      for seed in runs.SEEDS
    ]
    for name in digits_planted.MODELS
  }
  similar = {name: models[name] for name in ("max", "mil", "single_stream")}
  parts = [planted_tables(models), "Agreement:", sanity_table(similar)]
  return "\n\n".join(parts), runs.facts("digits_planted_max_0")


def removal_part() -> tuple[str, dict[str, Any]]:
  """Deletion and insertion on debian_programs, by fusion and method."""
  models = {"set_pool (7.7 M)": [_debian_set_pool(seed) for seed in runs.SEEDS]}
  for name in _REMOVAL:
    models[name] = [_structure(name, seed) for seed in runs.SEEDS]
  for name in _REMOVAL_ONCE:
    models[f"{name} (seed 0)"] = [_structure(name, 0)]
  table = removal_table(models, _EXAMPLES)
  return table, runs.facts("debian_programs_set_pool_0")


def shapley_part() -> tuple[str, dict[str, Any]]:
  """Time of exact Shapley values, by fusion."""
  set_pool = _debian_set_pool(0)
  table = set_pool.run.tables["test"]
  names = list(table.schema.modalities)
  keep = np.tile([name != "summary" for name in names], (len(table), 1))
  rows = [
    ["set_pool (7.7 M)", *_times(set_pool, table)],
    ["the same without summaries", *_times(set_pool, keep_modalities(table, keep))],
  ]
  for name in _TIMED:
    trained = _structure(name, 0)
    rows.append([name, *_times(trained, trained.run.tables["test"])])
  head = ["model", "modalities", "subsets evaluated", "time in evaluations"]
  return runs.table(head, rows), runs.facts("debian_programs_set_pool_0") | {
    "seeds": [0]
  }


def _debian_set_pool(seed: int) -> Trained:
  config = debian_programs.get_config(f"set_pool,{seed}")
  return runs.loaded(config, f"debian_programs_set_pool_{seed}")


def _structure(name: str, seed: int) -> Trained:
  config = debian_structures.get_config(f"{name},{seed}")
  return runs.loaded(config, f"structures/{name}/seed_{seed}")


def explained(trained: Trained, table: Table) -> dict[str, Attribution]:
  """Every method that a run has, of its predictions on a table."""
  output = outputs.predicted(
    table.schema.target, trained.logits(table), trained.threshold
  )
  return {
    method: attribution.compute(method, trained, table, output)
    for method in attribution.possible(trained)
  }


def planted_tables(models: Mapping[str, Sequence[Trained]]) -> str:
  """How well each method finds what was planted: of elements, and of modalities.

  Args:
    models: Runs of configs/digits_planted.py, one per seed.
  """
  of_elements = [m for m in attribution.METHODS if m != "shapley"]
  elements, modalities = [], []
  for name, seeds in models.items():
    found = [_auc(trained) for trained in seeds]
    accuracy = runs.spread([one["accuracy"] for one in found])
    elements.append([name, accuracy, *_cells(found, "elements", of_elements)])
    modalities.append(
      [name, accuracy, *_cells(found, "modalities", attribution.METHODS)]
    )
  random = [_auc(trained.untrained(100 + i)) for i, trained in enumerate(models["max"])]
  row = ["max, random weights", runs.spread([one["accuracy"] for one in random])]
  elements.append([*row, *_cells(random, "elements", of_elements)])
  modalities.append([*row, *_cells(random, "modalities", attribution.METHODS)])
  return "\n\n".join(
    [
      "Elements that make the label, ROC AUC:",
      runs.table(["model", "accuracy", *of_elements], elements),
      "Modalities that hold such an element, ROC AUC:",
      runs.table(["model", "accuracy", *attribution.METHODS], modalities),
    ]
  )


def _cells(found: Sequence[dict], kind: str, methods: Sequence[str]) -> list[str]:
  return [
    runs.spread([one[kind][m] for one in found]) if m in found[0][kind] else ""
    for m in methods
  ]


def _auc(trained: Trained) -> dict:
  """Accuracy on test, and the AUC of each method."""
  config, table = trained.run.config, trained.run.tables["test"]
  settings = config.data.digits
  truth = digits.planted(
    config.seed,
    train_examples=settings.train_examples,
    max_size=settings.max_size,
    misread_rate=settings.misread_rate,
  )[1]["test"]
  found = explained(trained, table)
  return {
    "accuracy": faithfulness.tally(trained, table)[:, 0].mean(),
    "elements": {
      method: faithfulness.auc_of_elements(one, truth)
      for method, one in found.items()
      if one.elements is not None
    },
    "modalities": {
      method: faithfulness.auc_of_modalities(one, truth)
      for method, one in found.items()
    },
  }


def sanity_table(models: Mapping[str, Sequence[Trained]]) -> str:
  """Agreement of a trained model's importance with another's, and with random weights'.

  Args:
    models: Runs whose data is the same whatever the seed, or one run; with several,
      the second explains the first one's test part, too.
  """
  methods = [m for m in attribution.METHODS if m != "shapley"]
  rows = []
  for name, seeds in models.items():
    table = seeds[0].run.tables["test"]
    own = explained(seeds[0], table)
    others = {"random weights": seeds[0].untrained(100)}
    if len(seeds) > 1:
      others = {"another training": seeds[1]} | others
    for other, trained in others.items():
      found = explained(trained, table)
      cells = [
        f"{faithfulness.agreement([own[m], found[m]])[0, 1]:.2f}" if m in own else ""
        for m in methods
      ]
      rows.append([f"{name}, {other}", *cells])
  return runs.table(["trained model with", *methods], rows)


def removal_table(models: Mapping[str, Sequence[Trained]], examples: int) -> str:
  """Areas under deletion and insertion curves, by model and method.

  A cell is "deletion / insertion"; lower and higher are truer.

  Args:
    models: Runs, one per seed.
    examples: Random ones of the test part, the same for all methods.
  """
  rows = []
  for name, seeds in models.items():
    areas = [_areas(trained, examples) for trained in seeds]
    cells = [
      _area_cell([one[method] for one in areas]) if method in areas[0] else ""
      for method in (*attribution.METHODS, "random")
    ]
    rows.append([name, *cells])
  return runs.table(["model", *attribution.METHODS, "random order"], rows)


def _area_cell(areas: Sequence[tuple[float, float]]) -> str:
  return " / ".join(runs.spread(one) for one in zip(*areas, strict=True))


def _areas(trained: Trained, examples: int) -> dict[str, tuple[float, float]]:
  """Deletion and insertion area of each method and of a random order."""
  table = sample(trained.run.tables["test"], examples)
  bags = Bags(table)
  scores = {
    method: [faithfulness.scores_of(one, bags)]
    for method, one in explained(trained, table).items()
  }
  rng = np.random.default_rng(0)
  scores["random"] = [rng.random(len(bags.modality)) for _ in range(_ORDERS)]
  curves = (faithfulness.deletion, faithfulness.insertion)
  return {
    method: tuple(
      statistics.mean(curve(trained, table, one).area for one in each)
      for curve in curves
    )
    for method, each in scores.items()
  }


def sample(table: Table, examples: int) -> Table:
  """Random rows of a table, in their order; all if there are no more."""
  rows = np.random.default_rng(0).permutation(len(table))[:examples]
  return table.select(np.sort(rows))


def _times(trained: Trained, table: Table) -> tuple[str, str, str]:
  """Modalities, subsets and time of exact Shapley values of a table.

  The time is in plain evaluations of the table: the median of ratios of five, both
  compiled before, in turns.
  """
  target, logits = table.schema.target, trained.logits(table)
  output = outputs.predicted(target, logits, trained.threshold)

  def values() -> None:
    attribution.compute("shapley", trained, table, output)

  values()
  ratios = [
    _seconds(values) / _seconds(lambda: trained.logits(table)) for _ in range(_TIMES)
  ]
  present = [table.lengths(name) > 0 for name in table.schema.modalities]
  subsets = 2 ** np.sum(present, axis=0)
  return (
    str(sum(one.any() for one in present)),
    f"{subsets.mean():.0f} an example",
    f"{statistics.median(ratios):.1f}",
  )


def _seconds(run: Callable[[], None]) -> float:
  begin = time.perf_counter()
  run()
  return time.perf_counter() - begin
