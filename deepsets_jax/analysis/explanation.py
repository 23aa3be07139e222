"""Explanation of a finished run: attribution by every method, and how faithful it is.

explained = deepsets_jax.explain("runs/debian_programs")
explained.write("runs/debian_programs/explain")
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from deepsets_jax.analysis import attribution, page
from deepsets_jax.analysis.attribution import faithfulness, outputs, result, shapley
from deepsets_jax.analysis.attribution.outputs import Output
from deepsets_jax.analysis.attribution.result import Attribution, Element
from deepsets_jax.data.datasets import names
from deepsets_jax.data.tables.ablation import Bags
from deepsets_jax.data.tables.table import Table
from deepsets_jax.figures import attribution as attribution_figures
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.foundation.files import to_json, write_json
from deepsets_jax.fusion.settings import group_of
from deepsets_jax.tasks import trained
from deepsets_jax.tasks.trained import Trained
from deepsets_jax.training import losses

# Number of examples to show if none are named.
_SHOWN = 6
# Number of elements to list of an example: highest and most negative scores.
_TOP, _BOTTOM = 12, 3
_RANDOM_ORDERS = 5
_CURVE_FIELDS = ("fractions", "values", "lower", "upper", "area", "area_band")
_TESTS = {"deletion": faithfulness.deletion, "insertion": faithfulness.insertion}


@dataclasses.dataclass(frozen=True)
class Explanation:
  """The attributions of a run as numbers and pictures.

  Attributes:
    attributions: By method, for the sampled examples followed by the other chosen ones.
    summary: Plain values, the content of `explain.json`.
    figures: Figures by name.
  """

  attributions: Mapping[str, Attribution]
  summary: Mapping[str, Any]
  figures: Mapping[str, Figure]

  def write(self, folder: str | pathlib.Path) -> None:
    """Write `index.html`, `explain.json` and a PNG per figure."""
    folder = pathlib.Path(folder)
    page.write_page(folder, self.summary, self.figures)
    write_json(folder / "explain.json", self.summary)

  def __repr__(self) -> str:
    return (
      f"Explanation(methods={list(self.attributions)}, figures={list(self.figures)})"
    )

  def _repr_html_(self) -> str:
    return page.fragment(self.summary, page.pictures(self.figures))


def explain(
  run: str | pathlib.Path | Trained,
  *,
  split: str = "test",
  methods: Sequence[str] | None = None,
  ids: Sequence[str] | None = None,
  examples: int = 200,
  label: str | int | None = None,
  permutations: int = 8,
  seed: int = 0,
  report: Callable[[str], None] = lambda line: None,
) -> Explanation:
  """Explain a run by a sample of a split and by single examples.

  Args:
    run: The folder of a run, or the result of `trained.load_trained`.
    split: The split to take examples from.
    methods: Keys of `attribution.METHODS`; by default all that the model supports.
    ids: Ids of the examples to show; by default six of the sample.
    examples: Size of the random sample for the statistics of the data set.
    label: The label, class or number to explain; by default the prediction.
    permutations: Number of random orders of element_shapley for examples with more than
      12 elements, and of shapley above 12 modalities.
    seed: Seed of all random choices.
    report: Called with a line of text after each step, which has its seconds.

  Raises:
    ConfigError: The run, split, method, id or label does not exist; the message names
      legal values.
  """
  watch = _Watch(report)
  with watch("load"):
    model = run if isinstance(run, Trained) else trained.load_trained(run)
    methods = attribution.possible(model) if methods is None else list(methods)
  _check(model, split, methods, examples, permutations)
  table = model.run.tables[split]
  rows, sampled, places = _rows(model, split, ids, examples, seed)
  asked = table.select(rows)
  logits, output = _output(model, asked, label)
  orders = {"permutations": permutations, "seed": seed}
  found = _attributions(methods, model, asked, output, orders, watch)
  path = None if isinstance(run, Trained) else str(run)
  summary = {"run": path, "config": _essentials(model), "split": split, "label": label}
  summary |= {"examples": sampled, "examples_of_split": len(table), **orders}
  summary |= _of_sample(model, found, sampled, seed, watch)
  summary["chosen"] = _of_chosen(model, asked, logits, output, found, places)
  summary = to_json(summary)
  with watch("pictures"):
    drawn = attribution_figures.draw(summary)
  return Explanation(found, summary | {"seconds": watch.seconds}, drawn)


class _Watch:
  """Measures and reports the seconds of each step."""

  def __init__(self, report: Callable[[str], None]):
    self._report = report
    self.seconds: dict[str, float] = {}

  @contextlib.contextmanager
  def __call__(self, step: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    self.seconds[step] = time.perf_counter() - begin
    self._report(f"{step}: {self.seconds[step]:.1f} s")


def _check(
  model: Trained,
  split: str,
  methods: Sequence[str],
  examples: int,
  permutations: int,
) -> None:
  if split not in model.run.tables:
    raise ConfigError(f"no split {split!r}; the data has {sorted(model.run.tables)}")
  attribution.check(methods, model)
  if not methods:
    raise ConfigError(f"methods is empty; choose from {attribution.possible(model)}")
  if examples < 1:
    raise ConfigError(f"examples is {examples}; give at least 1")
  if "element_shapley" in methods:
    shapley.check_permutations(permutations)


def _rows(
  model: Trained, split: str, ids: Sequence[str] | None, examples: int, seed: int
) -> tuple[np.ndarray, int, list[int]]:
  """The rows to explain, sample first; the sample's size; where the chosen rows are."""
  tables = model.run.tables
  for name in ids or ():
    others = [other for other, table in tables.items() if name in table.ids]
    if others and split not in others:
      raise ConfigError(
        f"example {name!r} is in the split {others[0]!r}, not in {split!r}"
      )
  count = len(tables[split])
  sample = np.random.default_rng(seed).permutation(count)[:examples].tolist()
  chosen = sample[:_SHOWN]
  if ids is not None:
    chosen = result.rows_of(tables[split], ids).tolist()
  rows = list(dict.fromkeys([*sample, *chosen]))
  return np.array(rows), len(sample), [rows.index(r) for r in dict.fromkeys(chosen)]


def _output(
  model: Trained, table: Table, label: str | int | None
) -> tuple[np.ndarray, Output]:
  """The logits and the output to explain."""
  target = table.schema.target
  if label is None:
    logits = model.logits(table)
    return logits, outputs.predicted(target, logits, model.threshold)
  if isinstance(label, str) and label not in target.names and label.isdecimal():
    label = int(label)  # The target has no names.
  output = outputs.of_label(target, label, len(table))
  return model.logits(table), output


def _attributions(
  methods: Sequence[str],
  model: Trained,
  table: Table,
  output: Output,
  orders: Mapping[str, int],
  watch: _Watch,
) -> dict[str, Attribution]:
  found = {}
  for method in methods:
    settings = orders if "shapley" in method else {}
    with watch(method):
      found[method] = attribution.compute(method, model, table, output, **settings)
  return found


def _of_sample(
  model: Trained,
  found: Mapping[str, Attribution],
  sampled: int,
  seed: int,
  watch: _Watch,
) -> dict[str, Any]:
  """Statistics of the data set from the first `sampled` examples, as plain values."""
  sample = {name: one.first(sampled) for name, one in found.items()}
  table = next(iter(sample.values())).table
  bags = Bags(table)
  columns = names.columns(model.run.config.data)
  methods: dict[str, dict[str, Any]] = {
    name: {
      "tells_elements": one.elements is not None,
      "shares": one.shares(),
      "columns": {
        modality: dict(zip(columns[modality], shares, strict=True))
        for modality, shares in one.column_shares().items()
        if modality in columns
      },
      "notes": one.notes(),
    }
    for name, one in sample.items()
  }
  random: dict[str, Any] = {"orders": _RANDOM_ORDERS}
  for test, measure in _TESTS.items():
    with watch(test):
      for name, one in sample.items():
        scores = faithfulness.scores_of(one, bags)
        curve = measure(model, table, scores, seed=seed)
        methods[name][test] = {field: getattr(curve, field) for field in _CURVE_FIELDS}
      same = np.zeros(len(bags.modality))  # All scores tie, so the order is random.
      orders = range(seed + 1, seed + 1 + _RANDOM_ORDERS)
      curves = [measure(model, table, same, seed=order) for order in orders]
    random[test] = {
      "fractions": curves[0].fractions,
      "values": np.mean([curve.values for curve in curves], axis=0),
      "area": np.mean([curve.area for curve in curves]),
    }
  return {
    "metric": curves[0].metric,
    "methods": methods,
    "random": random,
    "agreement": faithfulness.agreement(list(sample.values())),
  }


def _of_chosen(
  model: Trained,
  table: Table,
  logits: np.ndarray,
  output: Output,
  found: Mapping[str, Attribution],
  rows: Sequence[int],
) -> list[dict[str, Any]]:
  """The chosen examples, as plain values."""
  target, config = table.schema.target, model.run.config
  words = names.element_names(config.data, config.seed)
  chances, explained = losses.probabilities(target, logits), output.names()
  values = output.of(logits)
  examples = []
  for row in rows:
    examples.append(
      {
        "id": str(table.ids[row]),
        "num_elements": {k: table.lengths(k)[row] for k in table.modalities},
        "true": names.truth(target, table.targets[row]),
        "predicted": names.prediction(target, chances[row], model.threshold),
        "explained": explained[row],
        "value": values[row],
        "modalities": {
          name: {k: v[row] for k, v in one.modalities.items()}
          for name, one in found.items()
        },
        "elements": {
          name: _ends([_element(one, row, e, words) for e in one.ranked(row)])
          for name, one in found.items()
          if one.elements is not None
        },
        "pictures": names.pictures(config.data, table, row),
      }
    )
  return examples


def _element(
  one: Attribution, row: int, element: Element, words: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
  """An element of an example, as plain values."""
  name, position, value, score = element
  column = one.table.modalities[name]
  slot = column.offsets[row] + position
  error = None if one.error is None else one.error[name][slot]
  weight = None if column.weights is None else float(column.weights[slot])
  text = names.text(name, position, value, words, weight)
  where = {"modality": name, "position": position, "text": text}
  return where | {"score": score, "error": error}


def _ends(ranked: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
  """The elements with the highest scores, and those with the most negative ones."""
  rest = ranked[_TOP:]
  return {
    "top": ranked[:_TOP],
    "bottom": [element for element in rest[-_BOTTOM:] if element["score"] < 0],
  }


def _essentials(model: Trained) -> dict[str, Any]:
  """The settings in which runs usually differ."""
  config = model.run.config
  data, fusion = config.data.name, config.model.fusion
  return {
    "data": {"name": data, **config.data.get(data, {})},
    "fusion": {"name": fusion, **config.model.get(group_of(fusion), {})},
    "features": config.model.features,
    "seed": config.seed,
    "threshold": model.threshold,
  }
