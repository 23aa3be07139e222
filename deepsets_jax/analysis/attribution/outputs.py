"""The explained output: one number per example, a weighted sum of its logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from deepsets_jax.data.tables.schema import Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.training import losses


@dataclasses.dataclass(frozen=True)
class Output:
  """One number per example, which the methods attribute to its elements.

  It is linear in the logits, or for multi-class targets in the log-probabilities, which
  do not change when a constant is added to all logits.

  Attributes:
    target: What the model predicts.
    weights: Weights of each example's logits, `[b, k]` float32.
  """

  target: Target
  weights: np.ndarray

  def select(self, rows: np.ndarray) -> Output:
    """The output for these rows, in this order."""
    return dataclasses.replace(self, weights=self.weights[rows])

  def as_targets(self, table: Table) -> Table:
    """The table with the weights as targets, so that batches carry them."""
    return dataclasses.replace(table, targets=self.weights)

  def of(self, logits: Float[np.ndarray, "b k"]) -> Float[np.ndarray, "b"]:
    """The output of each example, computed on the host."""
    return np.asarray(score(self.target.kind, jnp.asarray(logits), self.weights))

  def names(self) -> list[str]:
    """Name what is explained of each example: its labels of nonzero weight.

    Several labels are joined by commas, and "not" precedes a label of negative weight.
    The answers of a binary target without a name are "yes" and "no".
    """
    if self.target.kind == "binary" and not self.target.names:
      return ["yes" if row[0] > 0 else "no" for row in self.weights]
    names = self.target.names or range(self.target.size)
    return [
      ", ".join(
        f"not {name}" if weight < 0 else str(name)
        for name, weight in zip(names, row, strict=True)
        if weight
      )
      for row in self.weights
    ]


def score(
  kind: str, logits: Float[Array, "b k"], weights: Float[Array, "b k"]
) -> Float[Array, "b"]:
  """The output of each example; `kind` is the kind of the target."""
  if kind == "multiclass":
    logits = jax.nn.log_softmax(logits)
  return jnp.sum(logits * weights, axis=-1)


def predicted(target: Target, logits: np.ndarray, threshold: float) -> Output:
  """The score of the prediction, as the output to explain.

  Multi-label: the mean logit of the labels above the threshold; if there are none,
  minus the logit of the most probable label, which decides that there are none.
  Multi-class: the log-probability of the most probable class. Binary: the logit, with
  the sign that speaks for the predicted class. Regression: the sum of the predicted
  numbers in the units of the data, without the constant offset (the mean of the
  training data).
  """
  probabilities = losses.probabilities(target, logits)
  match target.kind:
    case "multilabel":
      chosen = (probabilities > threshold).astype(np.float32)
      nearest = np.eye(target.size, dtype=np.float32)[logits.argmax(axis=1)]
      count = chosen.sum(axis=1, keepdims=True)
      return Output(target, np.where(count, chosen / np.maximum(count, 1), -nearest))
    case "multiclass":
      chosen = logits.argmax(axis=1)
      return Output(target, np.eye(target.size, dtype=np.float32)[chosen])
    case "binary":
      sign = np.where(probabilities > threshold, 1, -1)
      return Output(target, sign[:, None].astype(np.float32))
  return Output(target, np.tile(_units(target), (len(logits), 1)))


def of_label(target: Target, label: str | int, num_examples: int) -> Output:
  """The score of one label, class or number, for all examples.

  Raises:
    ConfigError: There is no such label; the message lists some.
  """
  names: Sequence[str] = target.names
  if isinstance(label, str) and label in names:
    label = names.index(label)
  if not isinstance(label, int) or not 0 <= label < target.size:
    legal = list(names[:10]) or f"0 to {target.size - 1}"
    raise ConfigError(f"no label {label!r}; choose from {legal} ({target.size} in all)")
  weights = np.zeros((num_examples, target.size), np.float32)
  weights[:, label] = _units(target)[label]
  return Output(target, weights)


def _units(target: Target) -> np.ndarray:
  """The size of one unit of each logit in the units of the data: `[k]`."""
  return np.array(target.scale or [1] * target.size, np.float32)
