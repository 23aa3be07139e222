"""The metrics of each kind of target, named and defined as in scikit-learn."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped

from deepsets_jax.metric_states import (
  Confusion,
  Counts,
  Errors,
  Ranking,
  positives_from_the_top,
  ratio,
  real_examples,
)
from deepsets_jax.schema import Target

_NAMES = {
  "multilabel": (
    "f1_micro",
    "f1_macro",
    "f1_weighted",
    "f1_samples",
    "average_precision_micro",
    "average_precision_macro",
    "roc_auc_micro",
    "roc_auc_macro",
  ),
  "multiclass": ("accuracy", "f1_macro", "f1_weighted"),
  "binary": ("accuracy", "f1", "average_precision", "roc_auc"),
  "regression": ("mae", "rmse", "mape", "r2"),
}
_USUAL = {
  "multilabel": "f1_micro",
  "multiclass": "accuracy",
  "binary": "roc_auc",
  "regression": "mae",
}
_LOWER_IS_BETTER = ("loss", "mae", "rmse", "mape")


def names(target: Target) -> tuple[str, ...]:
  """The metrics of a kind of target."""
  return _NAMES[target.kind]


def usual(target: Target) -> str:
  """The metric that a model is chosen by, if nobody says which."""
  return _USUAL[target.kind]


def higher_is_better(name: str) -> bool:
  """Whether more of a metric (or of "loss") is better.

  Raises:
    ValueError: There is no such metric.
  """
  legal = {"loss", *(name for group in _NAMES.values() for name in group)}
  if name not in legal:
    raise ValueError(f"unknown metric {name!r}; one of {sorted(legal)}")
  return name not in _LOWER_IS_BETTER


def for_target(
  target: Target,
  scores: Float[np.ndarray, "b ..."],
  targets: Shaped[np.ndarray, "b ..."],
  weights: Float[np.ndarray, "b"],
  threshold: float,
) -> dict[str, float]:
  """Every metric of the kind of target.

  Args:
    target: What is predicted.
    scores: Probabilities (see `losses.probabilities`), or the numbers of a regression.
    targets: As in a batch.
    weights: 0 for an example that does not count.
    threshold: Probability above which a label is predicted; multi-label and binary.
  """
  match target.kind:
    case "multilabel":
      counts = Counts.from_batch(scores, targets, weights, threshold)
      return counts.compute() | Ranking.from_batch(scores, targets, weights).compute()
    case "multiclass":
      return Confusion.from_batch(scores, targets, weights).compute()
    case "binary":
      scores, targets = scores[:, None], targets[:, None]
      counts = Counts.from_batch(scores, targets, weights, threshold)
      ranking = Ranking.from_batch(scores, targets, weights).compute()
      wrong = (counts.predicted + counts.actual - 2 * counts.hits).sum()
      return {
        "accuracy": float(ratio(counts.examples - wrong, counts.examples)),
        "f1": counts.compute()["f1_micro"],
        "average_precision": ranking["average_precision_micro"],
        "roc_auc": ranking["roc_auc_micro"],
      }
  return Errors.from_batch(scores, targets, weights).compute()


def choose_threshold(
  scores: Float[np.ndarray, "b k"], targets: Shaped[np.ndarray, "b k"]
) -> float:
  """The threshold with the best micro F1, exactly; for validation data only.

  Midway between two scores that are there, so that it does not hang on rounding;
  below the lowest, midway to 0. 0.5 where nothing is positive.
  """
  scores, targets = real_examples(scores, targets, np.ones(len(scores)))
  flat, actual = scores.ravel(), targets.ravel() > 0
  if not actual.any():
    return 0.5
  hits, predicted = positives_from_the_top(flat, actual)
  best = int(np.argmax(2 * hits / (predicted + actual.sum())))
  distinct = np.unique(flat)[::-1]
  above = distinct[best]
  if best + 1 < len(distinct):
    below = distinct[best + 1]
  else:
    below = 0.0 if above > 0 else above - 1
  # Midway between adjacent floats is one of them: never the upper, which counts.
  return float(min((above + below) / 2, np.nextafter(above, -np.inf)))


def label_f1(
  scores: Float[np.ndarray, "b k"], targets: Shaped[np.ndarray, "b k"], threshold: float
) -> tuple[Float[np.ndarray, "k"], np.ndarray]:
  """F1 and number of positives of each label."""
  counts = Counts.from_batch(scores, targets, np.ones(len(scores)), threshold)
  return counts.label_f1(), counts.actual
