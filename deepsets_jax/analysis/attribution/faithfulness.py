"""Faithfulness of attributions: planted truth, removal curves, agreement of methods."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import sklearn.metrics
from scipy import stats

from deepsets_jax.analysis.attribution.result import Attribution
from deepsets_jax.data.tables.ablation import Bags, keep_elements
from deepsets_jax.data.tables.schema import Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.tasks.trained import Trained
from deepsets_jax.training import losses

FRACTIONS = tuple(np.linspace(0, 1, 11).tolist())
_RESAMPLES = 200


def scores_of(attribution: Attribution, bags: Bags) -> np.ndarray:
  """The score of every element, `[n]` in the order of `bags`.

  If the method scores modalities only, an element gets the score of its modality.
  """
  if attribution.elements is not None:
    return bags.join(attribution.elements)
  columns = np.stack(list(attribution.modalities.values()), axis=1)
  return columns[bags.example, bags.modality]


def auc_of_elements(attribution: Attribution, truth: Mapping[str, np.ndarray]) -> float:
  """How well the scores find the deciding elements: the mean ROC AUC over examples.

  Examples in which all elements decide, or none, have no AUC and are left out; NaN if
  none is left.

  Args:
    attribution: The scores.
    truth: Whether each element decides, by modality: `[n]` bool.
  """
  bags = Bags(attribution.table)
  scores, decides = scores_of(attribution, bags), bags.join(truth)
  cuts = bags.offsets[1:-1]
  return _mean_auc(np.split(scores, cuts), np.split(decides, cuts))


def auc_of_modalities(
  attribution: Attribution, truth: Mapping[str, np.ndarray]
) -> float:
  """How well the scores find the deciding modalities, among the present ones.

  A modality decides if any of its elements does. Otherwise as `auc_of_elements`.
  """
  table, bags = attribution.table, Bags(attribution.table)
  names = list(table.schema.modalities)
  scores = np.stack([attribution.modalities[name] for name in names], axis=1)
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
class RemovalCurve:
  """A metric as elements are removed or inserted, highest scores first.

  Attributes:
    metric: "f1_micro", "accuracy" or "mae".
    fractions: Fractions of each example's elements that are removed or inserted: `[q]`.
    values: The metric at each fraction, `[q]`.
    lower: Lower end of the 95 % bootstrap interval, over examples: `[q]`.
    upper: Upper end of this interval, `[q]`.
    area: Area under the curve, over fractions from 0 to 1.
    area_band: 95 % bootstrap interval of the area.
    areas: Area for each bootstrap sample; all curves of a table use the same samples.
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
) -> RemovalCurve:
  """The metric as the highest-scoring elements of each example are removed.

  The lower the area, the more faithful the scores (Petsiuk et al., "RISE", 2018).
  Removed elements are absent, not blanked.

  Args:
    trained: The model.
    table: Examples with the true targets.
    scores: Score of each element, in the order of `Bags(table)`; ties break at random.
    fractions: Fractions to remove.
    seed: Seed of ties and of the bootstrap.
  """
  return _removal(trained, table, scores, fractions, seed, insertion=False)


def insertion(
  trained: Trained,
  table: Table,
  scores: np.ndarray,
  fractions: Sequence[float] = FRACTIONS,
  seed: int = 0,
) -> RemovalCurve:
  """The metric as the highest-scoring elements are inserted into empty sets.

  The higher the area, the more faithful the scores. Arguments as in `deletion`.
  """
  return _removal(trained, table, scores, fractions, seed, insertion=True)


def _removal(
  trained: Trained,
  table: Table,
  scores: np.ndarray,
  fractions: Sequence[float],
  seed: int,
  *,
  insertion: bool,
) -> RemovalCurve:
  bags = Bags(table)
  rank = _rank(bags, scores, seed)
  tallies = []
  for fraction in fractions:
    taken = rank < np.rint(fraction * bags.lengths)[bags.example]
    kept = keep_elements(table, taken if insertion else ~taken)
    tallies.append(tally(trained, kept))
  return summarise(np.stack(tallies), table.schema.target, np.asarray(fractions), seed)


def _rank(bags: Bags, scores: np.ndarray, seed: int) -> np.ndarray:
  """The rank of each element in its example, highest score first; ties at random."""
  luck = np.random.default_rng(seed).random(len(scores))
  order = np.lexsort((luck, -scores, bags.example))
  rank = np.empty(len(scores), np.int64)
  rank[order] = bags.position  # Sorted by example, so positions are ranks.
  return rank


def tally(trained: Trained, table: Table) -> np.ndarray:
  """The terms that each example adds to the sums of the metric: `[b, c]`.

  Multi-label: hits, predicted, actual. Otherwise: the number of correct predictions or
  the absolute error, and 1.
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
) -> RemovalCurve:
  """The curve for tallies `[q, b, c]`, with bootstrap intervals over examples."""
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
  return RemovalCurve(
    name,
    fractions,
    values,
    *np.quantile(resampled, [0.025, 0.975], axis=0),
    area=float(np.trapezoid(values, fractions)),
    area_band=tuple(np.quantile(areas, [0.025, 0.975]).tolist()),
    areas=areas,
  )


def agreement(attributions: Sequence[Attribution]) -> np.ndarray:
  """The mean rank correlation (Spearman) of elements' scores for each pair: `[i, i]`.

  It is computed within examples of at least three elements in which neither method
  gives all elements the same score; NaN if there is no such example.

  Args:
    attributions: Attributions of one table.
  """
  bags = Bags(attributions[0].table)
  ranks = [_centred_ranks(bags, scores_of(one, bags)) for one in attributions]
  squares = [bags.total(rank**2) for rank in ranks]
  result = np.ones((len(ranks), len(ranks)))
  for i, j in np.ndindex(result.shape):
    some = (squares[i] > 0) & (squares[j] > 0) & (bags.lengths >= 3)
    products = bags.total(ranks[i] * ranks[j])[some]
    correlations = products / np.sqrt(squares[i] * squares[j])[some]
    result[i, j] = correlations.mean() if some.any() else np.nan
  return result


def _centred_ranks(bags: Bags, scores: np.ndarray) -> np.ndarray:
  """Ranks within each example minus their mean, ties averaged: `[n]`."""
  of_examples = np.split(scores, bags.offsets[1:-1])
  return np.concatenate([stats.rankdata(x) - (len(x) + 1) / 2 for x in of_examples])
