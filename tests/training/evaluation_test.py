"""Thresholds and undefined metrics of a table, against plain loops."""

import numpy as np
import pytest

from deepsets_jax.data.tables.schema import Schema, Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.training import evaluation, losses, metrics

RNG = np.random.default_rng(0)


def table_of(target, targets):
  ids = np.arange(len(targets)).astype(np.str_)
  return Table(Schema({}, target), {}, np.asarray(targets, np.float32), ids)


def f1(predicted, targets):
  """F1 of two sequences of booleans."""
  hits = sum(1 for p, t in zip(predicted, targets, strict=True) if p and t)
  total = sum(1 for p in predicted if p) + sum(1 for t in targets if t)
  return 2 * hits / total if total else 0.0


def test_a_binary_threshold_has_the_best_f1_of_the_positives():
  target, targets = Target("binary", 1), (np.arange(40) % 8 == 0).astype(np.float32)
  logits = (RNG.normal(size=(40, 1)) + 2 * targets[:, None] - 4).astype(np.float32)
  threshold = evaluation.choose_threshold(table_of(target, targets), logits)
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
def test_an_undetermined_threshold_is_one_half(target, targets):
  logits = RNG.normal(size=(3, target.size)).astype(np.float32)
  assert evaluation.choose_threshold(table_of(target, targets), logits) == 0.5


def test_examples_without_a_label_raise_the_threshold():
  """Labels that are wrongly predicted for them count."""
  target = Target("multilabel", 2)
  logits = np.array([[2.0, -9.0], [1.0, -9.0]] + [[1.5, -9.0]] * 9, np.float32)
  targets = np.array([[1, 0], [1, 0]] + [[0, 0]] * 9, np.float32)
  chances = losses.probabilities(target, logits)

  def threshold(rows):
    return evaluation.choose_threshold(table_of(target, targets[rows]), logits[rows])

  assert threshold(slice(0, 2)) < chances[1, 0]
  assert chances[2, 0] < threshold(slice(None)) < chances[0, 0]


LABELS = Target("multilabel", 4)


@pytest.mark.parametrize(
  ("target", "targets", "want"),
  [
    (Target("binary", 1), [1, 1], {"roc_auc"}),
    (Target("binary", 1), [0, 0], {"roc_auc", "average_precision", "f1"}),
    (Target("binary", 1), [0, 1], set()),
    (Target("multiclass", 3), [2, 2], set()),
    (LABELS, [[1, 0, 0, 0]] * 2, {"roc_auc_macro"}),
    (LABELS, [[0, 0, 0, 0]] * 2, set(metrics.names(LABELS)) - {"f1_samples"}),
    (Target("regression", 2), [[1.0, 2.0]], {"r2"}),
  ],
)
def test_undefined_metrics_do_not_depend_on_the_predictions(target, targets, want):
  table = table_of(target, targets)
  assert set(evaluation.undefined(table)) == want
  for _ in range(3):
    logits = RNG.normal(size=(len(targets), target.size))
    got = metrics.for_target(target, logits, table.targets, np.ones(len(targets)), 0.5)
    assert {k for k, v in got.items() if np.isnan(v)} <= want
    assert all(np.isnan(got[name]) or got[name] == 0 for name in want)
