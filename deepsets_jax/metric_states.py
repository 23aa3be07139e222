"""States of metrics over host arrays, each mergeable: `empty`, `from_batch`, `merge`.

How the examples were split over batches and devices cannot matter. A weight of 0 marks
a padding example, which does not count; any other counts once. `compute` gives what
scikit-learn gives, by its names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped


def real_examples(
  scores: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """The scores, as float64, and targets of the examples that count.

  Raises:
    ValueError: A score is not finite: it would rank, or count, as anything.
  """
  real = np.asarray(weights) > 0
  # In float32 a threshold between two scores may be rounded to one of them.
  scores = np.asarray(scores, np.float64)[real]
  if not np.isfinite(scores).all():
    place = np.unravel_index(int(np.argmin(np.isfinite(scores))), scores.shape)
    raise ValueError(
      f"score {scores[place]} of example {int(np.flatnonzero(real)[place[0]])}: the"
      " model has diverged; try a lower config.optim.learning_rate"
    )
  return scores, np.asarray(targets)[real]


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """The quotient; 0 where it is 0/0, as scikit-learn's `zero_division=0`."""
  return numerator / np.where(denominator > 0, denominator, 1)


@dataclasses.dataclass(frozen=True)
class Counts:
  """F1 of a multi-label task at a threshold, from counts per label.

  Attributes:
    hits, predicted, actual: Per label the number of true positives, of predictions
      and of positives: `[k]`.
    sample_f1: Sum of the F1 of each example.
    examples: Number of examples.
  """

  hits: np.ndarray
  predicted: np.ndarray
  actual: np.ndarray
  sample_f1: float
  examples: int

  @classmethod
  def empty(cls, size: int) -> Counts:
    """The state of no example; its F1 are 0."""
    zeros = np.zeros(size, np.int64)
    return cls(zeros, zeros, zeros, 0.0, 0)

  @classmethod
  def from_batch(
    cls,
    scores: Float[np.ndarray, "b k"],
    targets: Shaped[np.ndarray, "b k"],
    weights: Float[np.ndarray, "b"],
    threshold: float,
  ) -> Counts:
    """The state of a batch."""
    scores, targets = real_examples(scores, targets, weights)
    predicted, actual = scores > threshold, targets > 0
    hits = predicted & actual
    sample = ratio(2 * hits.sum(1), predicted.sum(1) + actual.sum(1))
    sums = (x.sum(0) for x in (hits, predicted, actual))
    return cls(*sums, float(sample.sum()), len(scores))

  def merge(self, other: Counts) -> Counts:
    """The state of both."""
    pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
    return Counts(*(a + b for a, b in pairs))

  def label_f1(self) -> Float[np.ndarray, "k"]:
    """F1 of each label; 0 for one that is neither predicted nor there."""
    return ratio(2 * self.hits, self.predicted + self.actual)

  def compute(self) -> dict[str, float]:
    """F1 micro, macro, weighted by support, and per example."""
    label_f1, support = self.label_f1(), self.actual
    total = self.predicted.sum() + self.actual.sum()
    return {
      "f1_micro": float(ratio(2 * self.hits.sum(), total)),
      "f1_macro": float(label_f1.mean()),
      "f1_weighted": float(ratio((label_f1 * support).sum(), support.sum())),
      "f1_samples": float(self.sample_f1 / max(self.examples, 1)),
    }


@dataclasses.dataclass(frozen=True)
class Ranking:
  """Average precision and area under the ROC curve; keeps every score.

  Macro means leave out labels for which the metric is undefined: without a positive,
  or, for ROC, without a negative. NaN where no label is left.
  """

  scores: np.ndarray
  targets: np.ndarray

  @classmethod
  def empty(cls, size: int) -> Ranking:
    """The state of no example; its metrics are NaN."""
    return cls(np.zeros((0, size)), np.zeros((0, size), bool))

  @classmethod
  def from_batch(
    cls,
    scores: Float[np.ndarray, "b k"],
    targets: Shaped[np.ndarray, "b k"],
    weights: Float[np.ndarray, "b"],
  ) -> Ranking:
    """The state of a batch."""
    scores, targets = real_examples(scores, targets, weights)
    return cls(scores, targets > 0)

  def merge(self, other: Ranking) -> Ranking:
    """The state of both."""
    return Ranking(
      np.concatenate([self.scores, other.scores]),
      np.concatenate([self.targets, other.targets]),
    )

  def compute(self) -> dict[str, float]:
    """Both metrics over all (example, label) pairs, and as a mean over labels."""
    pairs = self.scores.ravel(), self.targets.ravel()
    labels = list(zip(self.scores.T, self.targets.T, strict=True))
    return {
      "average_precision_micro": _average_precision(*pairs),
      "average_precision_macro": _mean([_average_precision(*x) for x in labels]),
      "roc_auc_micro": _roc_auc(*pairs),
      "roc_auc_macro": _mean([_roc_auc(*x) for x in labels]),
    }


def _mean(values: Sequence[float]) -> float:
  defined = [value for value in values if not np.isnan(value)]
  return float(np.mean(defined)) if defined else float("nan")


def positives_from_the_top(
  scores: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Positives and examples down to each distinct score, highest first."""
  order = np.argsort(-scores, kind="stable")
  scores, targets = scores[order], targets[order]
  last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
  return np.cumsum(targets)[last], last + 1


def _average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
  if not targets.any():
    return float("nan")
  positives, examples = positives_from_the_top(scores, targets)
  gained = np.diff(positives, prepend=0) / positives[-1]
  return float((gained * positives / examples).sum())


def _roc_auc(scores: np.ndarray, targets: np.ndarray) -> float:
  if not targets.any() or targets.all():
    return float("nan")
  positives, examples = positives_from_the_top(scores, targets)
  true = np.concatenate([[0], positives]) / positives[-1]
  false = np.concatenate([[0], examples - positives])
  return float(np.trapezoid(true, false / false[-1]))


@dataclasses.dataclass(frozen=True)
class Confusion:
  """Accuracy and F1 of a multi-class task, from its confusion matrix.

  Attributes:
    matrix: `[k, k]`, number of examples by true and by predicted class.
  """

  matrix: np.ndarray

  @classmethod
  def empty(cls, size: int) -> Confusion:
    """The state of no example; its metrics are 0."""
    return cls(np.zeros((size, size), np.int64))

  @classmethod
  def from_batch(
    cls,
    scores: Float[np.ndarray, "b k"],
    targets: Shaped[np.ndarray, "b"],
    weights: Float[np.ndarray, "b"],
  ) -> Confusion:
    """The state of a batch; the class of the largest score is predicted."""
    scores, targets = real_examples(scores, targets, weights)
    matrix = np.zeros((scores.shape[1],) * 2, np.int64)
    np.add.at(matrix, (targets, scores.argmax(1)), 1)
    return cls(matrix)

  def merge(self, other: Confusion) -> Confusion:
    """The state of both."""
    return Confusion(self.matrix + other.matrix)

  def compute(self) -> dict[str, float]:
    """Accuracy, and F1 over the classes that occur or are predicted."""
    hits, actual = np.diag(self.matrix), self.matrix.sum(1)
    seen = actual + self.matrix.sum(0)
    f1 = ratio(2 * hits, seen)
    return {
      "accuracy": float(ratio(hits.sum(), actual.sum())),
      "f1_macro": float(ratio(f1.sum(), (seen > 0).sum())),
      "f1_weighted": float(ratio((f1 * actual).sum(), actual.sum())),
    }


@dataclasses.dataclass(frozen=True)
class Errors:
  """Errors of a regression, uniform over its numbers, from sums.

  Deviations of the targets are summed about the mean of each part and merged as in
  Chan, Golub and LeVeque (1979). `mape` divides as scikit-learn does, by no less than
  the smallest float step, so that a target of 0 makes it huge.
  """

  examples: int
  absolute: np.ndarray
  squared: np.ndarray
  relative: np.ndarray
  mean: np.ndarray
  deviations: np.ndarray

  @classmethod
  def empty(cls, size: int) -> Errors:
    """The state of no example; its metrics are NaN."""
    zeros = np.zeros(size)
    return cls(0, zeros, zeros, zeros, zeros, zeros)

  @classmethod
  def from_batch(
    cls,
    scores: Float[np.ndarray, "b k"],
    targets: Float[np.ndarray, "b k"],
    weights: Float[np.ndarray, "b"],
  ) -> Errors:
    """The state of a batch."""
    scores, targets = real_examples(scores, targets, weights)
    targets = targets.astype(np.float64)
    if not len(scores):
      return cls.empty(scores.shape[1])
    error = np.abs(scores - targets)
    relative = error / np.maximum(np.abs(targets), np.finfo(np.float64).eps)
    mean = targets.mean(0)
    sums = (x.sum(0) for x in (error, error**2, relative))
    return cls(len(scores), *sums, mean, ((targets - mean) ** 2).sum(0))

  def merge(self, other: Errors) -> Errors:
    """The state of both."""
    examples = self.examples + other.examples
    share = other.examples / max(examples, 1)
    delta = other.mean - self.mean
    return Errors(
      examples,
      self.absolute + other.absolute,
      self.squared + other.squared,
      self.relative + other.relative,
      self.mean + delta * share,
      self.deviations + other.deviations + delta**2 * self.examples * share,
    )

  def compute(self) -> dict[str, float]:
    """Mean absolute, root mean squared and mean relative error, and R2."""
    if not self.examples:
      return dict.fromkeys(("mae", "rmse", "mape", "r2"), float("nan"))
    n = self.examples
    # As in scikit-learn: of a constant target, 1 if it is met and 0 if not.
    varies = self.deviations > 0
    r2 = np.where(
      varies,
      1 - self.squared / np.where(varies, self.deviations, 1),
      (self.squared == 0).astype(float),
    )
    return {
      "mae": float((self.absolute / n).mean()),
      "rmse": float(np.sqrt(self.squared / n).mean()),
      "mape": float((self.relative / n).mean()),
      "r2": float(r2.mean()),
    }
