"""Whether importance is true: against planted truth, by removal, against each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import sklearn.metrics
from scipy import stats

from deepsets_jax.analysis.attribution.result import Importance
from deepsets_jax.data.tables.ablation import Bags, keep_elements
from deepsets_jax.data.tables.schema import Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.tasks.trained import Trained
from deepsets_jax.training import losses

FRACTIONS = tuple(np.linspace(0, 1, 11).tolist())
_RESAMPLES = 200


def scores_of(importance: Importance, bags: Bags) -> np.ndarray:
  """The score of every element, `[n]` in the order of `bags`.

  Of a method that tells modalities only, an element has the score of its modality.
  """
  if importance.elements is not None:
    return bags.join(importance.elements)
  columns = np.stack(list(importance.modalities.values()), axis=1)
  return columns[bags.example, bags.modality]


def auc_of_elements(importance: Importance, truth: Mapping[str, np.ndarray]) -> float:
  """How well the elements that decide are found: the mean of the examples' ROC AUC.

  Examples in which all elements decide, or none, cannot be judged and are left out; NaN
  if all are.

  Args:
    importance: Of a table.
    truth: By modality, whether each element decides, `[n]` bool.
  """
  bags = Bags(importance.table)
  scores, decides = scores_of(importance, bags), bags.join(truth)
  return _mean_auc(
    [scores[a:z] for a, z in zip(bags.offsets, bags.offsets[1:], strict=False)],
    [decides[a:z] for a, z in zip(bags.offsets, bags.offsets[1:], strict=False)],
  )


def auc_of_modalities(importance: Importance, truth: Mapping[str, np.ndarray]) -> float:
  """The same of modalities: one decides if any element of it does.

  Among the modalities that are there.
  """
  table, bags = importance.table, Bags(importance.table)
  names = list(table.schema.modalities)
  scores = np.stack([importance.modalities[name] for name in names], axis=1)
  present = np.stack([table.lengths(name) > 0 for name in names], axis=1)
  decides = np.zeros(scores.shape, bool)
  np.logical_or.at(decides, (bags.example, bags.modality), bags.join(truth))
  rows = range(len(table))
  return _mean_auc(
    [scores[row, present[row]] for row in rows],
    [decides[row, present[row]] for row in rows],
  )


def _mean_auc(scores: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> float:
  found = [
    sklearn.metrics.roc_auc_score(truth, score)
    for score, truth in zip(scores, truths, strict=True)
    if truth.any() and not truth.all()
  ]
  return float(np.mean(found)) if found else float("nan")


@dataclasses.dataclass(frozen=True)
class Curve:
  """A metric as elements are removed, or put in, the most important first.

  Attributes:
    metric: "f1_micro", "accuracy" or "mae".
    fractions: Of each example's elements that are removed, or in: `[q]`.
    values: Of the metric, `[q]`.
    lower, upper: The band that holds 95 % of resampled test sets, `[q]`.
    area: Under the curve, over fractions from 0 to 1.
    area_band: Its 95 % band.
    areas: Of each resampled test set, the same sets for all curves of a table.
  """

  metric: str
  fractions: np.ndarray
  values: np.ndarray
  lower: np.ndarray
  upper: np.ndarray
  area: float
  area_band: tuple[float, float]
  areas: np.ndarray


def deletion(
  trained: Trained,
  table: Table,
  scores: np.ndarray,
  fractions: Sequence[float] = FRACTIONS,
  seed: int = 0,
) -> Curve:
  """The metric as the most important elements of each example are taken away.

  The lower the area, the truer the scores (Petsiuk et al., "RISE", 2018). What is
  taken away is absent, not blanked.

  Args:
    trained: The model.
    table: Its targets are what the metric compares with.
    scores: Of the elements, in the order of `Bags(table)`; ties at random.
    fractions: To remove.
    seed: Of ties and resampling.
  """
  return _removal(trained, table, scores, fractions, seed, insertion=False)


def insertion(
  trained: Trained,
  table: Table,
  scores: np.ndarray,
  fractions: Sequence[float] = FRACTIONS,
  seed: int = 0,
) -> Curve:
  """The metric as empty sets get their most important elements; higher is truer."""
  return _removal(trained, table, scores, fractions, seed, insertion=True)


def _removal(
  trained: Trained,
  table: Table,
  scores: np.ndarray,
  fractions: Sequence[float],
  seed: int,
  *,
  insertion: bool,
) -> Curve:
  bags = Bags(table)
  rank = _rank(bags, scores, seed)
  tallies = []
  for fraction in fractions:
    taken = rank < np.rint(fraction * bags.lengths)[bags.example]
    kept = keep_elements(table, taken if insertion else ~taken)
    tallies.append(tally(trained, kept))
  return summarise(np.stack(tallies), table.schema.target, np.asarray(fractions), seed)


def _rank(bags: Bags, scores: np.ndarray, seed: int) -> np.ndarray:
  """Each element's place in its example, the highest score 0; ties at random."""
  luck = np.random.default_rng(seed).random(len(scores))
  order = np.lexsort((luck, -scores, bags.example))
  rank = np.empty(len(scores), np.int64)
  rank[order] = bags.position  # Sorted by example, places follow each other.
  return rank


def tally(trained: Trained, table: Table) -> np.ndarray:
  """What each example adds to the metric's sums: `[b, c]`.

  Multi-label: hits, predicted, actual. Else: the number of correct predictions, or the
  absolute error, and 1.
  """
  target = table.schema.target
  logits = trained.logits(table)
  scores = losses.probabilities(target, logits)
  targets = np.asarray(table.targets)
  match target.kind:
    case "multilabel":
      predicted, actual = scores > trained.threshold, targets > 0
      parts = (predicted & actual, predicted, actual)
      return np.stack([part.sum(axis=1) for part in parts], axis=1).astype(float)
    case "multiclass":
      value = logits.argmax(axis=1) == targets
    case "binary":
      value = (scores > trained.threshold) == (targets > 0)
    case _:
      value = np.abs(scores - target.in_units(targets)).mean(axis=1)
  return np.stack([value.astype(float), np.ones(len(table))], axis=1)


def summarise(
  tallies: np.ndarray, target: Target, fractions: np.ndarray, seed: int
) -> Curve:
  """The curve of tallies `[q, b, c]`, with bands of resampled examples."""
  multilabel = target.kind == "multilabel"

  def metric(sums: np.ndarray) -> np.ndarray:
    if multilabel:
      hits, predicted, actual = np.moveaxis(sums, -1, 0)
      return 2 * hits / np.maximum(predicted + actual, 1)
    return sums[..., 0] / sums[..., 1]

  b = tallies.shape[1]
  rng = np.random.default_rng(seed)
  drawn = rng.multinomial(b, np.full(b, 1 / b), _RESAMPLES).astype(float)
  resampled = metric(np.einsum("rb,qbc->rqc", drawn, tallies))
  values = metric(tallies.sum(axis=1))
  areas = np.trapezoid(resampled, fractions, axis=1)
  name = {"multilabel": "f1_micro", "regression": "mae"}.get(target.kind, "accuracy")
  return Curve(
    name,
    fractions,
    values,
    *np.quantile(resampled, [0.025, 0.975], axis=0),
    area=float(np.trapezoid(values, fractions)),
    area_band=tuple(np.quantile(areas, [0.025, 0.975]).tolist()),
    areas=areas,
  )


def agreement(importances: Sequence[Importance]) -> np.ndarray:
  """Mean rank correlation (Spearman) of elements' scores, between each two: `[i, i]`.

  Within examples of three elements and more, where neither gives all elements the same
  score; NaN where there is no such example. All are of one table.
  """
  bags = Bags(importances[0].table)
  ranks = [_centred_ranks(bags, scores_of(one, bags)) for one in importances]
  squares = [bags.total(rank**2) for rank in ranks]
  result = np.ones((len(ranks), len(ranks)))
  for i, j in np.ndindex(result.shape):
    some = (squares[i] > 0) & (squares[j] > 0) & (bags.lengths >= 3)
    products = bags.total(ranks[i] * ranks[j])[some]
    correlations = products / np.sqrt(squares[i] * squares[j])[some]
    result[i, j] = correlations.mean() if some.any() else np.nan
  return result


def _centred_ranks(bags: Bags, scores: np.ndarray) -> np.ndarray:
  """Ranks within each example, ties averaged, less their mean: `[n]`."""
  ranks = np.zeros(len(scores))
  for begin, end in zip(bags.offsets, bags.offsets[1:], strict=False):
    ranks[begin:end] = stats.rankdata(scores[begin:end]) - (end - begin + 1) / 2
  return ranks
