"""The metrics of each kind of target, named and defined as in scikit-learn.

scikit-learn computes those of one number, class or answer per example. Those of many
labels are computed here for all labels at once, in a fifth of its time.
"""

from __future__ import annotations

import numpy as np
import sklearn.metrics
from jaxtyping import Bool, Float, Shaped

from deepsets_jax.data.tables.schema import Target
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.training import losses

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
  """The metric that a model is chosen by, if nobody says which.

  Of a regression of several numbers in units of their own it is one without units.
  """
  if target.kind == "regression" and target.scale and target.size > 1:
    return "r2"
  return _USUAL[target.kind]


def higher_is_better(name: str) -> bool:
  """Whether more of a metric (or of "loss") is better.

  Raises:
    ConfigError: There is no such metric.
  """
  legal = {"loss", *(name for group in _NAMES.values() for name in group)}
  if name not in legal:
    raise ConfigError(f"unknown metric {name!r}; one of {sorted(legal)}")
  return name not in _LOWER_IS_BETTER


def for_target(
  target: Target,
  logits: Float[np.ndarray, "b k"],
  targets: Shaped[np.ndarray, "b ..."],
  weights: Float[np.ndarray, "b"],
  threshold: float,
) -> dict[str, float]:
  """Every metric of the kind of target, weighted as by scikit-learn's `sample_weight`.

  Errors of a regression are in the units of the data, see `Target.in_units`; of several
  numbers they are means over all.

  Average precision and ROC AUC rank the logits, because rounded probabilities near 1
  are equal where logits differ. A label is predicted where `losses.probabilities` is
  above the threshold, and the class of the largest logit.

  Undefined values are those of scikit-learn, without its warnings: F1 is 0 if there is
  no positive and none is predicted, R2 of one example is NaN, and ROC AUC is NaN if all
  examples are of one class. In `f1_samples` an example without a label for which none
  is predicted counts 1, as with `zero_division=1`: no label is an answer, too. Two
  values differ from scikit-learn's. Average precision
  without a positive is NaN instead of 0, because every order is as good as any other.
  The macro means of average precision and ROC AUC leave out the labels without a value,
  instead of counting them as 0 or being NaN themselves: that a rare label has no
  positive in a split says nothing about the model. They are NaN if no label is left.

  Args:
    target: What is predicted.
    logits: Of the model; the numbers of a regression.
    targets: As in a batch: `[b, k]`, or `[b]` of classes and binary targets.
    weights: Not below 0; an example of weight 0 does not count.
    threshold: Probability above which a label is predicted; multi-label and binary.

  Raises:
    ConfigError: A shape does not fit, no example counts, a weight is negative, or an
      example that counts has a logit that is not finite or a target that is not one of
      its kind.
  """
  logits, targets, weights = _counted(target, logits, targets, weights)
  match target.kind:
    case "multilabel":
      predicted = losses.probabilities(target, logits) > threshold
      return _f1(predicted, targets, weights) | _ranked(logits, targets, weights)
    case "multiclass":
      return _classified(logits.argmax(axis=1), targets, weights)
    case "binary":
      return _binary(logits, targets, weights, threshold)
  return _errors(target.in_units(logits), target.in_units(targets), weights)


def choose_threshold(
  logits: Float[np.ndarray, "b k"], targets: Shaped[np.ndarray, "b k"]
) -> float:
  """The probability with the best micro F1, exactly; for validation data only.

  It lies midway between two probabilities that occur, so that it does not depend on
  rounding; below the lowest, midway to 0. 0.5 where nothing is positive.

  Raises:
    ConfigError: As in `for_target`.
  """
  target = Target("multilabel", np.shape(logits)[1])
  logits, targets, _ = _counted(target, logits, targets, np.ones(len(logits)))
  if not targets.any():
    return 0.5
  flat = losses.probabilities(target, logits).reshape(1, -1)
  flat, true, false = _from_the_top(flat, targets.reshape(1, -1), np.ones((1, 1)))
  best = int(np.argmax(true / (true + false + true[0, -1])))
  above = flat[0, best]
  if best + 1 < flat.size:
    below = flat[0, best + 1]
  else:
    below = 0.0 if above > 0 else above - 1
  # Midway between adjacent floats is one of them: never the upper, which counts.
  return float(min((above + below) / 2, np.nextafter(above, -np.inf)))


def label_f1(
  logits: Float[np.ndarray, "b k"], targets: Shaped[np.ndarray, "b k"], threshold: float
) -> tuple[Float[np.ndarray, "k"], np.ndarray]:
  """F1 and number of positives of each label.

  Raises:
    ConfigError: As in `for_target`.
  """
  target = Target("multilabel", np.shape(logits)[1])
  logits, targets, weights = _counted(target, logits, targets, np.ones(len(logits)))
  hits, total = _hits(losses.probabilities(target, logits) > threshold, targets)
  return _ratio(weights @ hits, weights @ total), targets.sum(axis=0)


def _counted(
  target: Target, logits: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The examples that count, checked: float64, and bool targets of labels."""
  logits, weights = np.asarray(logits, np.float64), np.asarray(weights, np.float64)
  targets, b = np.asarray(targets), len(logits)
  wide = target.kind in ("multilabel", "regression")
  expected = [(b, target.size), (b, target.size) if wide else (b,), (b,)]
  if [logits.shape, targets.shape, weights.shape] != expected:
    raise ConfigError(
      f"logits, targets and weights of shapes {logits.shape}, {targets.shape} and"
      f" {weights.shape}: expected {expected} of a {target.kind} target"
    )
  _check("weight", weights, np.isfinite(weights) & (weights >= 0), "finite, from 0 on")
  counts = weights > 0
  if not counts.any():
    raise ConfigError(
      f"no metric of {b} examples, none of a weight above 0: is the split empty?"
    )
  _check(
    "logit",
    logits,
    np.isfinite(logits) | ~counts[:, None],
    "finite: the model has diverged; try a lower config.optim.learning_rate",
  )
  match target.kind:
    case "regression":
      legal, words = np.isfinite(targets), "finite"
    case "multiclass":
      legal = (targets >= 0) & (targets < target.size) & (targets == np.floor(targets))
      words = f"a class from 0 to {target.size - 1}"
    case _:
      legal, words = (targets == 0) | (targets == 1), "0 or 1"
  _check("target", targets, (legal.T | ~counts).T, words)
  types = {"regression": np.float64, "multiclass": np.int64}
  targets = targets[counts].astype(types.get(target.kind, bool))
  return logits[counts], targets, weights[counts]


def _check(name: str, values: np.ndarray, good: np.ndarray, expected: str) -> None:
  if not good.all():
    row, *column = np.unravel_index(int(np.argmin(good)), good.shape)
    where = f"example {row}" + "".join(f", column {number}" for number in column)
    raise ConfigError(
      f"{where}: {name} {values[row, *column]}, and expected is {expected}"
    )


def _binary(
  logits: Float[np.ndarray, "b 1"],
  targets: np.ndarray,
  weights: np.ndarray,
  threshold: float,
) -> dict[str, float]:
  predicted = losses.probabilities(Target("binary", 1), logits) > threshold
  arrays = dict(y_true=targets, y_pred=predicted, sample_weight=weights)
  precision, area = _areas(logits.T, targets[None], weights[None])
  return {
    "accuracy": float(sklearn.metrics.accuracy_score(**arrays)),
    "f1": float(sklearn.metrics.f1_score(**arrays, zero_division=0)),
    "average_precision": float(precision[0]),
    "roc_auc": float(area[0]),
  }


def _f1(
  predicted: Bool[np.ndarray, "b k"], targets: np.ndarray, weights: np.ndarray
) -> dict[str, float]:
  """F1 over all pairs of example and label, and as means over labels and examples."""
  hits, total = _hits(predicted, targets)
  labels = _ratio(weights @ hits, weights @ total)
  support = weights @ targets
  nothing = total.sum(axis=1) == 0
  samples = np.where(nothing, 1, _ratio(hits.sum(axis=1), total.sum(axis=1)))
  found = {
    "micro": _ratio((weights @ hits).sum(), (weights @ total).sum()),
    "macro": labels.mean(),
    "weighted": _ratio(labels @ support, support.sum()),
    "samples": weights @ samples / weights.sum(),
  }
  return {f"f1_{average}": float(value) for average, value in found.items()}


def _hits(
  predicted: Bool[np.ndarray, "b k"], targets: Bool[np.ndarray, "b k"]
) -> tuple[Float[np.ndarray, "b k"], Float[np.ndarray, "b k"]]:
  """Numerator and denominator of each pair's part in F1."""
  return 2.0 * (predicted & targets), predicted.astype(np.float64) + targets


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """The quotient; 0 where it is 0 / 0, as with scikit-learn's `zero_division=0`."""
  return numerator / np.where(denominator > 0, denominator, 1)


def _ranked(
  logits: Float[np.ndarray, "b k"], targets: np.ndarray, weights: np.ndarray
) -> dict[str, float]:
  """Both areas over all pairs of example and label, and as means over labels."""
  every = np.broadcast_to(weights[:, None], logits.shape)
  micro = _areas(*(x.reshape(1, -1) for x in (logits, targets, every)))
  labels = _areas(logits.T, targets.T, weights[None])
  found = {}
  for name, one, each in zip(
    ("average_precision", "roc_auc"), micro, labels, strict=True
  ):
    found[f"{name}_micro"] = float(one[0])
    defined = each[~np.isnan(each)]
    found[f"{name}_macro"] = float(defined.mean()) if len(defined) else float("nan")
  return found


def _areas(
  scores: Float[np.ndarray, "l n"],
  targets: Bool[np.ndarray, "l n"],
  weights: Float[np.ndarray, "#l n"],
) -> tuple[Float[np.ndarray, "l"], Float[np.ndarray, "l"]]:
  """Average precision and ROC AUC of each row; NaN where not defined."""
  _, true, false = _from_the_top(scores, targets, weights)
  some = true + false > 0
  precision = true / np.where(some, true + false, 1)
  more_true, more_false = (np.diff(x, axis=1, prepend=0) for x in (true, false))
  # Between two thresholds the ROC curve is a straight line.
  area = ((true - more_true / 2) * more_false).sum(axis=1)
  positive, negative = true[:, -1], false[:, -1]
  with np.errstate(invalid="ignore"):  # 0 / 0, which is what is not defined.
    average = (more_true * precision).sum(axis=1) / positive
    return average, area / (positive * negative)


def _from_the_top(
  scores: Float[np.ndarray, "l n"],
  targets: Bool[np.ndarray, "l n"],
  weights: Float[np.ndarray, "#l n"],
) -> tuple[Float[np.ndarray, "l n"], ...]:
  """Scores, highest first, and the weight of positives and of negatives down to each.

  Among equal scores the weight is counted at the last; at those before it stands the
  weight above them.
  """
  order = np.argsort(-scores, axis=1)
  signed = np.where(targets, weights, -weights)
  scores, signed = (np.take_along_axis(x, order, axis=1) for x in (scores, signed))
  last = np.append(scores[:, 1:] < scores[:, :-1], np.ones((len(scores), 1), bool), 1)
  sums = []
  for kind in (signed, -signed):
    total = np.cumsum(np.maximum(kind, 0), axis=1)
    sums.append(np.maximum.accumulate(np.where(last, total, 0), axis=1))
  return scores, *sums


def _classified(
  predicted: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> dict[str, float]:
  """Accuracy, and F1 over the classes that occur or are predicted."""
  arrays = dict(y_true=targets, y_pred=predicted, sample_weight=weights)
  found = {"accuracy": sklearn.metrics.accuracy_score(**arrays)}
  for average in ("macro", "weighted"):
    found[f"f1_{average}"] = sklearn.metrics.f1_score(
      **arrays, average=average, zero_division=0
    )
  return {name: float(value) for name, value in found.items()}


def _errors(
  numbers: Float[np.ndarray, "b k"], targets: np.ndarray, weights: np.ndarray
) -> dict[str, float]:
  """Errors of a regression, uniform over its numbers."""
  arrays = dict(y_true=targets, y_pred=numbers, sample_weight=weights)
  # From the first target on, so that the variance of a constant is exactly 0.
  shifted = arrays | dict(y_true=targets - targets[0], y_pred=numbers - targets[0])
  found = {
    "mae": sklearn.metrics.mean_absolute_error(**arrays),
    "rmse": sklearn.metrics.root_mean_squared_error(**arrays),
    "mape": sklearn.metrics.mean_absolute_percentage_error(**arrays),
    "r2": sklearn.metrics.r2_score(**shifted) if len(targets) > 1 else np.nan,
  }
  return {name: float(value) for name, value in found.items()}
