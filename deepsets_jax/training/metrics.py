"""The metrics of each kind of target, computed by scikit-learn.

The names and definitions are those of scikit-learn, except for the values that
`for_target` lists: averages over labels leave out the labels without a value.
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
_AREAS = {
  "average_precision": sklearn.metrics.average_precision_score,
  "roc_auc": sklearn.metrics.roc_auc_score,
}
_LOWER_IS_BETTER = ("loss", "mae", "rmse", "mape")


def names(target: Target) -> tuple[str, ...]:
  """Names of the metrics of a kind of target."""
  return _NAMES[target.kind]


def usual(target: Target) -> str:
  """Name of the metric that selects the best checkpoint by default.

  It is R2 for a regression of several numbers that each have their own unit, because
  their absolute errors cannot be averaged.
  """
  if target.kind == "regression" and target.scale and target.size > 1:
    return "r2"
  return _USUAL[target.kind]


def higher_is_better(name: str) -> bool:
  """Whether a larger value of a metric, or of "loss", is better.

  Raises:
    ConfigError: There is no metric of this name.
  """
  legal = {"loss", *(name for group in _NAMES.values() for name in group)}
  if name not in legal:
    raise ConfigError(f"unknown metric {name!r}; choose one of {sorted(legal)}")
  return name not in _LOWER_IS_BETTER


def for_target(
  target: Target,
  logits: Float[np.ndarray, "b k"],
  targets: Shaped[np.ndarray, "b ..."],
  weights: Float[np.ndarray, "b"],
  threshold: float,
) -> dict[str, float]:
  """Compute every metric of a kind of target.

  Average precision and ROC AUC rank the logits instead of the probabilities, because
  different logits may round to the same probability near 1. A label is predicted if its
  probability (`losses.probabilities`) is above the threshold; a class is predicted if
  its logit is the largest. The errors of a regression are in the units of the data (see
  `Target.in_units`) and are averaged over its numbers.

  Undefined values follow scikit-learn, without its warnings: F1 is 0 if nothing is
  positive and nothing is predicted, ROC AUC is NaN if all examples have one class, and
  R2 of a single example is NaN. Three conventions are chosen here:

  * Average precision without a positive is NaN (0 in scikit-learn), because every
    order of the examples is equally good.
  * The macro averages of average precision and ROC AUC leave out the labels without a
    value: a rare label that has no positive in a split says nothing about the model.
    They are NaN if no label has a value.
  * In `f1_samples` an example without labels counts 1 if none is predicted for it
    (`zero_division=1`): predicting no label is correct there.

  Args:
    target: What the model predicts.
    logits: Outputs of the model; for a regression, the predicted numbers.
    targets: As in a batch: `[b, k]`, or `[b]` for multi-class and binary targets.
    weights: scikit-learn's `sample_weight`, at least 0. Examples of weight 0 are left
      out.
    threshold: Probability above which a label is predicted (multi-label and binary).

  Raises:
    ConfigError: The shapes do not match, a weight is negative, no weight is above 0, or
      an example with a positive weight has a logit that is not finite or a target that
      its kind does not allow.
  """
  logits, targets, weights = _checked(target, logits, targets, weights)
  match target.kind:
    case "multilabel":
      predicted = losses.probabilities(target, logits) > threshold
      return _multilabel(logits, predicted, targets, weights)
    case "multiclass":
      return _multiclass(logits.argmax(axis=1), targets, weights)
    case "binary":
      predicted = losses.probabilities(target, logits) > threshold
      return _binary(logits[:, 0], predicted, targets, weights)
  return _regression(target.in_units(logits), target.in_units(targets), weights)


def choose_threshold(
  logits: Float[np.ndarray, "b k"], targets: Shaped[np.ndarray, "b k"]
) -> float:
  """Compute the probability threshold with the best micro F1; for validation data only.

  The threshold lies halfway between two probabilities that occur, so that it does not
  depend on rounding. If the best threshold is below all probabilities, it is half the
  lowest one. It is 0.5 if nothing is positive.

  Raises:
    ConfigError: See `for_target`.
  """
  target = Target("multilabel", np.shape(logits)[1])
  logits, targets, _ = _checked(target, logits, targets, np.ones(len(logits)))
  if not targets.any():
    return 0.5
  flat = losses.probabilities(target, logits).ravel()
  order = np.argsort(-flat)
  flat, hits = flat[order], np.cumsum(targets.ravel()[order])
  # Predicting the n highest probabilities has the F1 2 hits / (n + positives). Equal
  # probabilities are predicted together: only the last of them is a possible cut.
  f1 = hits / (np.arange(1, flat.size + 1) + hits[-1])
  is_cut = np.append(flat[1:] < flat[:-1], True)
  best = int(np.argmax(np.where(is_cut, f1, 0)))
  above = flat[best]
  if best + 1 < flat.size:
    below = flat[best + 1]
  else:
    below = 0.0 if above > 0 else above - 1
  # Halfway between adjacent floats is one of the two. It must not be the upper one,
  # which is to be predicted.
  return float(min((above + below) / 2, np.nextafter(above, -np.inf)))


def label_f1(
  logits: Float[np.ndarray, "b k"], targets: Shaped[np.ndarray, "b k"], threshold: float
) -> tuple[Float[np.ndarray, "k"], np.ndarray]:
  """Compute the F1 and the number of positives of each label.

  Raises:
    ConfigError: See `for_target`.
  """
  target = Target("multilabel", np.shape(logits)[1])
  logits, targets, weights = _checked(target, logits, targets, np.ones(len(logits)))
  predicted = losses.probabilities(target, logits) > threshold
  return _multilabel_f1(predicted, targets, weights, None), targets.sum(axis=0)


def _checked(
  target: Target, logits: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Check the arrays and keep the examples of positive weight.

  Returns:
    Logits and weights in float64; targets as bool (labels), int64 (classes) or float64
    (numbers).
  """
  logits, weights = np.asarray(logits, np.float64), np.asarray(weights, np.float64)
  targets, b = np.asarray(targets), len(logits)
  wide = target.kind in ("multilabel", "regression")
  expected = [(b, target.size), (b, target.size) if wide else (b,), (b,)]
  if [logits.shape, targets.shape, weights.shape] != expected:
    raise ConfigError(
      f"logits, targets and weights have the shapes {logits.shape}, {targets.shape} and"
      f" {weights.shape}; expected {expected} for a {target.kind} target"
    )
  _check("weight", weights, np.isfinite(weights) & (weights >= 0), "finite, at least 0")
  counts = weights > 0
  if not counts.any():
    raise ConfigError(
      f"no metric is defined: none of the {b} examples has a weight above 0;"
      " is the split empty?"
    )
  _check(
    "logit",
    logits,
    np.isfinite(logits) | ~counts[:, None],
    "finite. The model has diverged; try a lower config.optim.learning_rate",
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
    raise ConfigError(f"{where}: {name} is {values[row, *column]}; expected {expected}")


def _multilabel(
  logits: Float[np.ndarray, "b k"],
  predicted: Bool[np.ndarray, "b k"],
  targets: Bool[np.ndarray, "b k"],
  weights: Float[np.ndarray, "b"],
) -> dict[str, float]:
  found = {}
  for average in ("micro", "macro", "weighted", "samples"):
    f1 = _multilabel_f1(predicted, targets, weights, average)
    found[f"f1_{average}"] = float(f1)
  pairs = targets.ravel(), logits.ravel(), np.repeat(weights, targets.shape[1])
  for name in _AREAS:
    columns = zip(targets.T, logits.T, strict=True)
    labels = [_area(name, *column, weights) for column in columns]
    defined = [value for value in labels if not np.isnan(value)]
    found[f"{name}_micro"] = _area(name, *pairs)
    found[f"{name}_macro"] = float(np.mean(defined)) if defined else float("nan")
  return found


def _multilabel_f1(
  predicted: Bool[np.ndarray, "b k"],
  targets: Bool[np.ndarray, "b k"],
  weights: Float[np.ndarray, "b"],
  average: str | None,
) -> np.ndarray:
  # scikit-learn takes a single column for two classes. With a column before it, which
  # `labels` excludes again, it is one label.
  predicted, targets = (np.pad(x, ((0, 0), (1, 0))) for x in (predicted, targets))
  return sklearn.metrics.f1_score(
    targets,
    predicted,
    labels=np.arange(1, targets.shape[1]),
    average=average,
    sample_weight=weights,
    zero_division=1 if average == "samples" else 0,
  )


def _area(
  name: str, targets: Bool[np.ndarray, "n"], scores: np.ndarray, weights: np.ndarray
) -> float:
  """Average precision or ROC AUC, NaN if it is undefined."""
  if not targets.any() or (name == "roc_auc" and targets.all()):
    return float("nan")
  return float(_AREAS[name](targets, scores, sample_weight=weights))


def _binary(
  logits: Float[np.ndarray, "b"],
  predicted: Bool[np.ndarray, "b"],
  targets: Bool[np.ndarray, "b"],
  weights: Float[np.ndarray, "b"],
) -> dict[str, float]:
  arrays = dict(y_true=targets, y_pred=predicted, sample_weight=weights)
  return {
    "accuracy": float(sklearn.metrics.accuracy_score(**arrays)),
    "f1": float(sklearn.metrics.f1_score(**arrays, zero_division=0)),
  } | {name: _area(name, targets, logits, weights) for name in _AREAS}


def _multiclass(
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


def _regression(
  numbers: Float[np.ndarray, "b k"], targets: np.ndarray, weights: np.ndarray
) -> dict[str, float]:
  arrays = dict(y_true=targets, y_pred=numbers, sample_weight=weights)
  # Relative to the first target, so that the variance of a constant is exactly 0.
  shifted = arrays | dict(y_true=targets - targets[0], y_pred=numbers - targets[0])
  found = {
    "mae": sklearn.metrics.mean_absolute_error(**arrays),
    "rmse": sklearn.metrics.root_mean_squared_error(**arrays),
    "mape": sklearn.metrics.mean_absolute_percentage_error(**arrays),
    "r2": sklearn.metrics.r2_score(**shifted) if len(targets) > 1 else np.nan,
  }
  return {name: float(value) for name, value in found.items()}
