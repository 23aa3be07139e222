"""Thresholds that are chosen on a table, beside plain loops."""

import numpy as np
import pytest

from deepsets_jax import evaluate, losses
from deepsets_jax.data.table import Table
from deepsets_jax.schema import Schema, Target

RNG = np.random.default_rng(0)


def table_of(target, targets):
  ids = np.arange(len(targets)).astype(np.str_)
  return Table(Schema({}, target), {}, np.asarray(targets, np.float32), ids)


def f1(predicted, targets):
  """Of two sequences of booleans."""
  hits = sum(1 for p, t in zip(predicted, targets, strict=True) if p and t)
  total = sum(1 for p in predicted if p) + sum(1 for t in targets if t)
  return 2 * hits / total if total else 0.0


def test_a_binary_threshold_has_the_best_f1_of_the_positives():
  target, targets = Target("binary", 1), (np.arange(40) % 8 == 0).astype(np.float32)
  logits = (RNG.normal(size=(40, 1)) + 2 * targets[:, None] - 4).astype(np.float32)
  threshold = evaluate.choose_threshold(table_of(target, targets), logits)
  chances = losses.probabilities(target, logits)
  best = max(f1(chances >= t, targets > 0) for t in chances)
  assert 0 < threshold < 0.5
  assert f1(chances > threshold, targets > 0) == pytest.approx(best)
  assert best > f1(chances > 0.5, targets > 0)


@pytest.mark.parametrize(
  ("target", "targets"),
  [
    (Target("binary", 1), np.ones(3)),
    (Target("binary", 1), np.zeros(3)),
    (Target("multilabel", 1), np.zeros((3, 1))),
    (Target("multiclass", 3), np.arange(3)),
    (Target("regression", 1), np.ones((3, 1))),
  ],
)
def test_a_threshold_that_nothing_decides_is_one_half(target, targets):
  logits = RNG.normal(size=(3, target.size)).astype(np.float32)
  assert evaluate.choose_threshold(table_of(target, targets), logits) == 0.5


def test_examples_without_a_label_raise_the_threshold():
  """Labels that are wrongly predicted for them count."""
  target = Target("multilabel", 2)
  logits = np.array([[2.0, -9.0], [1.0, -9.0]] + [[1.5, -9.0]] * 9, np.float32)
  targets = np.array([[1, 0], [1, 0]] + [[0, 0]] * 9, np.float32)
  chances = losses.probabilities(target, logits)

  def threshold(rows):
    return evaluate.choose_threshold(table_of(target, targets[rows]), logits[rows])

  assert threshold(slice(0, 2)) < chances[1, 0]
  assert chances[2, 0] < threshold(slice(None)) < chances[0, 0]
