"""The sections on feature attribution: its faithfulness and its cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from configs import debian_programs, debian_structures, digits_planted
from deepsets_jax.analysis import attribution
from deepsets_jax.analysis.attribution import faithfulness, outputs
from deepsets_jax.analysis.attribution.result import Attribution
from deepsets_jax.data.datasets import digits
from deepsets_jax.data.tables.ablation import Bags, keep_modalities
from deepsets_jax.data.tables.table import Table
from deepsets_jax.tasks.trained import Trained
from experiments.results import runs, tables

# Random orders that the methods are compared with.
_ORDERS = 5
# Examples of each test part whose elements are removed.
_EXAMPLES = 200
# Repetitions of a time measurement.
_REPEATS = 5
# Fusions of `configs/debian_structures.py`; the slowest is measured on one seed only.
_REMOVAL = ("set_pool_max", "set_pool_mean", "concat", "mil", "hierarchical")
_REMOVAL_ONE_SEED = ("single_stream",)
_TIMED = ("concat", "mil", "gated", "low_rank", "hierarchical")
_ELEMENT_METHODS = [m for m in attribution.METHODS if m != "shapley"]
_PLANTED_METHODS = {"elements": _ELEMENT_METHODS, "modalities": attribution.METHODS}


def planted_section() -> runs.Section:
  """Compare every method with the planted elements, and with random weights."""
  models = {
    name: [run.load() for run in runs.seeded_runs(digits_planted, f"{name},{{}}")]
    for name in digits_planted.MODELS
  }
  similar = {name: models[name] for name in ("max", "mil", "single_stream")}
  blocks = [
    planted_tables(models),
    "Agreement of scores, mean rank correlation:",
    agreement_table(similar),
  ]
  results = runs.seeded_runs(digits_planted, "max,{}")[0].results()
  return runs.Section("\n\n".join(blocks), results)


def removal_section() -> runs.Section:
  """Tabulate deletion and insertion on debian_programs, by fusion and method."""
  set_pools = _debian_set_pools()
  models = {"set_pool (7.7 M)": [run.load() for run in set_pools]}
  for name in _REMOVAL:
    models[name] = [_structure(name, seed) for seed in runs.SEEDS]
  for name in _REMOVAL_ONE_SEED:
    models[f"{name} (seed 0)"] = [_structure(name, 0)]
  return runs.Section(removal_table(models, _EXAMPLES), set_pools[0].results())


def shapley_section() -> runs.Section:
  """Tabulate the time of exact Shapley values, by fusion."""
  run = _debian_set_pools()[0]
  set_pool = run.load()
  table = set_pool.run.tables["test"]
  names = list(table.schema.modalities)
  keep = np.tile([name != "summary" for name in names], (len(table), 1))
  rows = [
    ["set_pool (7.7 M)", *_shapley_cost(set_pool, table)],
    [
      "the same without summaries",
      *_shapley_cost(set_pool, keep_modalities(table, keep)),
    ],
  ]
  for name in _TIMED:
    trained = _structure(name, 0)
    rows.append([name, *_shapley_cost(trained, trained.run.tables["test"])])
  head = ["model", "modalities", "subsets evaluated", "time in evaluations"]
  return runs.Section(tables.markdown_table(head, rows), run.results(), seeds=(0,))


def _debian_set_pools() -> list[runs.Run]:
  return runs.seeded_runs(debian_programs, "set_pool,{}")


def _structure(name: str, seed: int) -> Trained:
  config = debian_structures.get_config(f"{name},{seed}")
  return runs.Run(f"structures/{name}/seed_{seed}", config).load()


def attributions(trained: Trained, table: Table) -> dict[str, Attribution]:
  """Attribute the predictions on a table by every method that the model supports."""
  output = outputs.predicted(
    table.schema.target, trained.logits(table), trained.threshold
  )
  return {
    method: attribution.compute(method, trained, table, output)
    for method in attribution.possible(trained)
  }


def planted_tables(models: Mapping[str, Sequence[Trained]]) -> str:
  """Tabulate how well each method finds the planted elements and modalities.

  Args:
    models: Runs of configs/digits_planted.py, one per seed; "max" also with random
      weights.
  """
  found = {
    name: [_planted_auc(trained) for trained in seeds] for name, seeds in models.items()
  }
  found["max, random weights"] = [
    _planted_auc(trained.untrained(100 + i)) for i, trained in enumerate(models["max"])
  ]
  blocks = []
  for kind, methods in _PLANTED_METHODS.items():
    rows = [
      [
        name,
        tables.mean_and_sd([one["accuracy"] for one in seeds]),
        *(
          tables.metric_over_seeds(seeds, kind, m) if m in seeds[0][kind] else ""
          for m in methods
        ),
      ]
      for name, seeds in found.items()
    ]
    blocks.append(tables.markdown_table(["model", "accuracy", *methods], rows))
  return (
    f"ROC AUC for the elements that determine the label:\n\n{blocks[0]}\n\n"
    f"ROC AUC for the modalities that contain such an element:\n\n{blocks[1]}"
  )


def _planted_auc(trained: Trained) -> dict:
  """Accuracy on test, and the ROC AUC of each method for elements and modalities."""
  config, table = trained.run.config, trained.run.tables["test"]
  settings = config.data.digits
  truth = digits.planted(
    config.seed,
    train_examples=settings.train_examples,
    max_size=settings.max_size,
    misread_rate=settings.misread_rate,
  )[1]["test"]
  found = attributions(trained, table)
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


def agreement_table(models: Mapping[str, Sequence[Trained]]) -> str:
  """Tabulate the agreement of scores with another training and with random weights.

  Args:
    models: Runs of each model, all on the same data. The first two are compared on the
      test part of the first; a single run is compared with random weights only.
  """
  rows = []
  for name, seeds in models.items():
    table = seeds[0].run.tables["test"]
    own = attributions(seeds[0], table)
    others = {"random weights": seeds[0].untrained(100)}
    if len(seeds) > 1:
      others = {"another training": seeds[1]} | others
    for other, trained in others.items():
      found = attributions(trained, table)
      cells = [
        f"{faithfulness.agreement([own[m], found[m]])[0, 1]:.2f}" if m in own else ""
        for m in _ELEMENT_METHODS
      ]
      rows.append([f"{name}, {other}", *cells])
  return tables.markdown_table(["trained model with", *_ELEMENT_METHODS], rows)


def removal_table(models: Mapping[str, Sequence[Trained]], examples: int) -> str:
  """Tabulate areas under deletion and insertion curves, by model and method.

  A cell is "deletion / insertion"; a faithful method has a low deletion area and a high
  insertion area.

  Args:
    models: Runs of each model, one per seed.
    examples: Number of random test examples, the same for all methods.
  """
  rows = []
  for name, seeds in models.items():
    areas = [_areas(trained, examples) for trained in seeds]
    cells = [
      _area_cell([one[method] for one in areas]) if method in areas[0] else ""
      for method in (*attribution.METHODS, "random")
    ]
    rows.append([name, *cells])
  return tables.markdown_table(["model", *attribution.METHODS, "random order"], rows)


def _area_cell(areas: Sequence[tuple[float, float]]) -> str:
  return " / ".join(tables.mean_and_sd(one) for one in zip(*areas, strict=True))


def _areas(trained: Trained, examples: int) -> dict[str, tuple[float, float]]:
  """Deletion and insertion area of each method, and of "random" orders."""
  table = sample(trained.run.tables["test"], examples)
  bags = Bags(table)
  scores = {
    method: [faithfulness.scores_of(one, bags)]
    for method, one in attributions(trained, table).items()
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
  """Select random rows of a table, in their order; at most all of them."""
  rows = np.random.default_rng(0).permutation(len(table))[:examples]
  return table.select(np.sort(rows))


def _shapley_cost(trained: Trained, table: Table) -> tuple[str, str, str]:
  """Modalities, subsets and time of exact Shapley values of a table.

  The unit of time is one plain evaluation of the table. The time is the median of five
  ratios, measured in turns after both functions are compiled.
  """
  target, logits = table.schema.target, trained.logits(table)
  output = outputs.predicted(target, logits, trained.threshold)

  def values() -> None:
    attribution.compute("shapley", trained, table, output)

  values()
  ratios = [
    _seconds(values) / _seconds(lambda: trained.logits(table)) for _ in range(_REPEATS)
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
