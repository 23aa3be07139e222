"""Losses: weighted sums over examples, with the sum of their weights.

The training step divides one by the other once, after adding them up over all devices.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import optax
import scipy.special
from jaxtyping import Array, Float, Shaped

from deepsets_jax.data.tables.schema import Target
from deepsets_jax.foundation.errors import ConfigError

Loss = Callable[[Array, Array, Array], tuple[Array, Array]]


def build_loss(
  target: Target,
  train_targets: np.ndarray,
  *,
  regression: str,
  label_smoothing: float,
  balance: float,
) -> Loss:
  """Build the loss of a kind of target: (logits, targets, weights) -> (sum, weight).

  Multi-label and binary: sigmoid cross-entropy in nats, averaged over the labels.
  Multi-class: softmax cross-entropy in nats. Regression: absolute or squared error,
  averaged over the numbers.

  Args:
    target: What the model predicts.
    train_targets: Targets of the training split; `balance` needs their frequencies.
    regression: Loss of a regression, "absolute" or "squared".
    label_smoothing: Share of the target that is spread evenly over all classes.
    balance: Exponent of the weight (mean frequency / frequency) ** balance. It weighs
      the positives of labels that are rarer than the mean label (multi-label), or the
      examples of classes that are rarer than the mean class (binary, multi-class).
      Everything else has weight 1.

  Raises:
    ConfigError: The regression loss is unknown, or a regression has a balance.
  """
  if regression not in ("absolute", "squared"):
    raise ConfigError(
      f"unknown regression loss {regression!r}; choose one of ['absolute', 'squared']"
    )
  if target.kind != "regression":
    per_example = _cross_entropy(target, train_targets, label_smoothing, balance)
  elif balance:
    raise ConfigError(
      f"config.loss.balance is {balance}, but a regression has no classes to balance;"
      " set it to 0"
    )
  else:
    error = jnp.abs if regression == "absolute" else jnp.square

    def per_example(logits, targets):
      return error(logits - targets).mean(-1)

  def loss(
    logits: Float[Array, "b k"], targets: Shaped[Array, "b ..."], weights: Array
  ) -> tuple[Float[Array, ""], Float[Array, ""]]:
    return jnp.sum(per_example(logits, targets) * weights), jnp.sum(weights)

  return loss


def _cross_entropy(
  target: Target, train_targets: np.ndarray, smoothing: float, balance: float
) -> Callable[[Array, Array], Array]:
  if target.kind == "multilabel":
    positives = _rarity(train_targets.sum(0), balance)
    return _sigmoid(smoothing, jnp.ones_like(positives), positives)
  size = max(target.size, 2)  # A binary target of size 1 has two classes.
  counts = np.bincount(np.asarray(train_targets, np.int64), minlength=size)
  classes = _rarity(counts, balance)
  if target.kind == "binary":
    return _sigmoid(smoothing, classes[:1], classes[1:])
  softmax = _softmax(smoothing, target.size)
  if not balance:
    return softmax
  return lambda logits, targets: softmax(logits, targets) * classes[targets]


def _rarity(counts: np.ndarray, balance: float) -> Array:
  """Weights `[k]` of labels or classes from their counts; 1 for frequent ones."""
  # A label without an example counts as one with a single example.
  ratio = counts.mean() / np.clip(counts, 1, max(counts.mean(), 1))
  return jnp.asarray(ratio**balance, jnp.float32)


def _sigmoid(
  smoothing: float, negatives: Array, positives: Array
) -> Callable[[Array, Array], Array]:
  def per_example(logits, targets):
    targets = targets.reshape(logits.shape).astype(jnp.float32)
    weights = negatives[None] + (positives - negatives)[None] * targets
    targets = targets * (1 - smoothing) + 0.5 * smoothing
    losses = optax.sigmoid_binary_cross_entropy(logits, targets)
    return (losses * weights).mean(-1)

  return per_example


def _softmax(smoothing: float, size: int) -> Callable[[Array, Array], Array]:
  def per_example(logits, targets):
    labels = jnp.eye(size, dtype=jnp.float32)[targets]
    labels = optax.smooth_labels(labels, smoothing)
    return optax.softmax_cross_entropy(logits, labels)

  return per_example


def prior_logits(target: Target, targets: np.ndarray) -> np.ndarray:
  """Logits `[k]` whose probabilities are the frequencies of the targets.

  They initialise the last bias of a model, so that training does not begin with
  learning that most labels are rare. Zeros for a regression.
  """
  match target.kind:
    case "regression":
      return np.zeros(target.size, np.float32)
    case "multiclass":
      counts = np.bincount(targets, minlength=target.size)
      return np.log((counts + 1) / (counts + 1).sum()).astype(np.float32)
  ones = targets.reshape(len(targets), target.size).sum(0)
  # One more example of each kind keeps the logit of a label finite that is always set.
  return np.log((ones + 1) / (len(targets) - ones + 1)).astype(np.float32)


def probabilities(target: Target, logits: Float[np.ndarray, "b k"]) -> np.ndarray:
  """Compute the probabilities of logits on the host, by sigmoid or softmax.

  All thresholds are chosen for, and applied to, these float64 values. In float32 a
  sigmoid is exactly 1 for logits of 17 and above, in float64 for those of 37 and above.

  Returns:
    float64, `[b]` for a binary target and `[b, k]` for others; for a regression the
    predicted numbers, in the units of the data.
  """
  logits = np.asarray(logits, np.float64)
  match target.kind:
    case "multilabel":
      return scipy.special.expit(logits)
    case "binary":
      return scipy.special.expit(logits[:, 0])
    case "multiclass":
      return scipy.special.softmax(logits, axis=1)
  return target.in_units(logits)
