"""Losses: a weighted sum and its weight, to be divided once, over all devices."""

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
  """The loss of a kind of target: (logits, targets, weights) -> (sum, weight).

  Multi-label and binary: sigmoid cross-entropy, mean over the labels, in nats.
  Multi-class: softmax cross-entropy, in nats. Regression: the mean over the numbers
  of the absolute or squared error.

  Args:
    target: What is predicted.
    train_targets: Of the training part, whose label frequencies `balance` needs.
    regression: "absolute" or "squared".
    label_smoothing: Moves 0 and 1 towards the middle, and a class towards all.
    balance: Exponent of the weights of what is rare in `train_targets`. Multi-label: a
      positive of a label rarer than the mean label weighs (mean frequency / its
      frequency) ** balance. Binary and multi-class: so does an example of a class
      rarer than the mean class. All else weighs 1.

  Raises:
    ConfigError: An unknown regression loss, or a regression with a balance.
  """
  if regression not in ("absolute", "squared"):
    raise ConfigError(
      f"unknown regression loss {regression!r}; one of ['absolute', 'squared']"
    )
  if target.kind != "regression":
    per_example = _cross_entropy(target, train_targets, label_smoothing, balance)
  elif balance:
    raise ConfigError(
      f"config.loss.balance is {balance}, and a regression has no classes to balance;"
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
  size = max(target.size, 2)  # Of a binary target there are two classes, too.
  counts = np.bincount(np.asarray(train_targets, np.int64), minlength=size)
  classes = _rarity(counts, balance)
  if target.kind == "binary":
    return _sigmoid(smoothing, classes[:1], classes[1:])
  softmax = _softmax(smoothing, target.size)
  if not balance:
    return softmax
  return lambda logits, targets: softmax(logits, targets) * classes[targets]


def _rarity(counts: np.ndarray, balance: float) -> Array:
  """Weights of labels or classes that occur this often, 1 of the frequent: `[k]`."""
  # A label that nobody has counts as if one had it.
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
  """Logits `[k]` whose probabilities are the frequencies in some targets.

  Where a model should start: it need not first learn that most labels are rare. Zeros
  for a regression.
  """
  match target.kind:
    case "regression":
      return np.zeros(target.size, np.float32)
    case "multiclass":
      counts = np.bincount(targets, minlength=target.size)
      return np.log((counts + 1) / (counts + 1).sum()).astype(np.float32)
  ones = targets.reshape(len(targets), target.size).sum(0)
  # One example more of each kind: a label that is always there has a logit, too.
  return np.log((ones + 1) / (len(targets) - ones + 1)).astype(np.float32)


def probabilities(target: Target, logits: Float[np.ndarray, "b k"]) -> np.ndarray:
  """The probabilities of logits, on the host: sigmoids, or a softmax.

  Of a regression the numbers, in the units of the data.

  Thresholds are chosen and applied here and nowhere else, in float64: in float32 a
  sigmoid is exactly 1 from a logit of 17 on, in float64 from 37 on.

  Returns:
    float64, `[b]` of a binary target and else `[b, k]`.
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
