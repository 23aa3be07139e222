"""Metrics against scikit-learn, and what is undefined or refused."""

import functools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import sklearn.metrics as sk
from sklearn.exceptions import UndefinedMetricWarning

from deepsets_jax.analysis.attribution import outputs
from deepsets_jax.data.tables.schema import Target
from deepsets_jax.training import metrics

TARGETS = {
  "multilabel": Target("multilabel", 4),
  "multiclass": Target("multiclass", 4),
  "binary": Target("binary", 1),
  "regression": Target("regression", 4),
}
EVERY_KIND = pytest.mark.parametrize("kind", TARGETS)
# Few examples leave labels empty or full; few distinct logits make ties.
EXAMPLES = st.integers(2, 30)
LEVELS = st.sampled_from([2, 5, 1000])
SEEDS = st.integers(0, 2**16)


def data(kind, examples, levels, seed):
  """Logits with at most this many different values, and targets."""
  rng = np.random.default_rng(seed)
  size = TARGETS[kind].size
  logits = rng.integers(levels, size=(examples, size)) / levels * 8 - 4
  match kind:
    case "multiclass":
      return logits, rng.integers(4, size=examples)
    case "regression":
      return logits, rng.normal(3, 1, logits.shape)
    case "binary":
      return logits, (rng.random(examples) < 0.5).astype(np.float32)
  rate = np.array([0.0, 0.3, 0.6, 1.0])
  return logits, (rng.random(logits.shape) < rate).astype(np.float32)


def compute(kind, logits, targets, weights=None, threshold=0.5):
  """The metrics; every example counts once if no weights are given."""
  weights = np.ones(len(logits)) if weights is None else weights
  return metrics.for_target(TARGETS[kind], logits, targets, weights, threshold)


def reference(kind, logits, targets, weights):
  """scikit-learn's values; macro means over the labels for which they are defined."""
  weighted = {"sample_weight": weights}
  if kind == "regression":
    return {
      "mae": sk.mean_absolute_error(targets, logits, **weighted),
      "rmse": sk.root_mean_squared_error(targets, logits, **weighted),
      "mape": sk.mean_absolute_percentage_error(targets, logits, **weighted),
      "r2": sk.r2_score(targets, logits, **weighted),
    }
  if kind == "multiclass":
    given = (targets, logits.argmax(1))
    values = {
      f"f1_{a}": sk.f1_score(*given, average=a, zero_division=0, **weighted)
      for a in ("macro", "weighted")
    }
    return values | {"accuracy": sk.accuracy_score(*given, **weighted)}
  predicted = 1 / (1 + np.exp(-logits)) > 0.5
  if kind == "binary":
    return {
      "f1": sk.f1_score(targets, predicted[:, 0], zero_division=0, **weighted),
      "accuracy": sk.accuracy_score(targets, predicted[:, 0], **weighted),
      "average_precision": area("average_precision", targets, logits[:, 0], weights),
      "roc_auc": area("roc_auc", targets, logits[:, 0], weights),
    }
  values = {
    f"f1_{a}": sk.f1_score(targets, predicted, average=a, zero_division=0, **weighted)
    for a in ("micro", "macro", "weighted")
  }
  values["f1_samples"] = sk.f1_score(
    targets, predicted, average="samples", zero_division=1.0, **weighted
  )
  for name in ("average_precision", "roc_auc"):
    pairs = targets.ravel(), logits.ravel(), np.repeat(weights, targets.shape[1])
    values[f"{name}_micro"] = area(name, *pairs)
    labels = [area(name, *x, weights) for x in zip(targets.T, logits.T, strict=True)]
    defined = [value for value in labels if not np.isnan(value)]
    values[f"{name}_macro"] = np.mean(defined) if defined else np.nan
  return values


def area(name, targets, logits, weights):
  """scikit-learn's area, but NaN where it warns that the area is undefined."""
  if not targets.any() or (name == "roc_auc" and targets.all()):
    return np.nan
  return getattr(sk, f"{name}_score")(targets, logits, sample_weight=weights)


def assert_same(got, want, tolerance=1e-12):
  assert got.keys() == want.keys()
  for name, value in want.items():
    np.testing.assert_allclose(
      got[name], value, rtol=tolerance, atol=tolerance, err_msg=name
    )


@EVERY_KIND
class TestEveryKindOfTarget:
  @hypothesis.given(
    examples=EXAMPLES, levels=LEVELS, seed=SEEDS, weighted=st.booleans()
  )
  def test_agrees_with_scikit_learn(self, kind, examples, levels, seed, weighted):
    logits, targets = data(kind, examples, levels, seed)
    weights = np.ones(examples)
    if weighted:
      weights = np.random.default_rng(seed).uniform(0.1, 3, examples)
    got = compute(kind, logits, targets, weights)
    assert got.keys() == set(metrics.names(TARGETS[kind]))
    assert_same(got, reference(kind, logits, targets, weights))

  @hypothesis.given(
    counts=st.lists(st.integers(0, 3), min_size=8, max_size=20), levels=LEVELS
  )
  def test_a_weight_is_a_number_of_examples(self, kind, counts, levels):
    hypothesis.assume(np.count_nonzero(counts) > 1)  # R2 of one example is undefined.
    logits, targets = data(kind, len(counts), levels, len(counts))
    got = compute(kind, logits, targets, np.array(counts, np.float32))
    rows = np.repeat(np.arange(len(counts)), counts)
    assert_same(got, compute(kind, logits[rows], targets[rows]))
    thirds = compute(kind, logits, targets, np.array(counts) / 3)
    assert_same(thirds, got)

  def test_examples_of_weight_zero_do_not_count(self, kind):
    logits, targets = data(kind, 20, 5, 0)
    weights = (np.arange(20) % 3 > 0).astype(np.float32)
    real = weights > 0
    got = compute(kind, logits, targets, weights)
    want = compute(kind, logits[real], targets[real])
    assert got == want != compute(kind, logits, targets)

  def test_values_are_plain_floats(self, kind):
    got = compute(kind, *data(kind, 20, 5, 0))
    assert {type(value) for value in got.values()} == {float}

  def test_whether_higher_is_better_is_known_for_every_metric(self, kind):
    lower = {"loss", "mae", "rmse", "mape"}
    for name in ("loss", *metrics.names(TARGETS[kind])):
      assert metrics.higher_is_better(name) == (name not in lower)


class TestLogitsOfCertainModels:
  """A sigmoid is 1 for logits from 17 in float32, and from 37 in float64."""

  LOGITS = np.array([[16.0], [17], [25], [35], [40], [60]])
  TRUTH = np.array([0.0, 0, 0, 1, 1, 1])

  def test_are_ranked_even_if_their_probabilities_are_equal(self):
    got = compute("binary", self.LOGITS, self.TRUTH)
    assert got["roc_auc"] == got["average_precision"] == 1
    logits, targets = np.tile(self.LOGITS, 4), np.tile(self.TRUTH[:, None], 4)
    got = compute("multilabel", -logits, 1 - targets)
    for name in ("average_precision", "roc_auc"):
      assert got[f"{name}_micro"] == got[f"{name}_macro"] == 1

  def test_predict_the_class_of_the_largest(self):
    logits = np.zeros((2, 4))
    logits[0, :2], logits[1, 2:] = (-800, 900), (900, 900.01)
    got = compute("multiclass", logits, np.array([1, 3]))
    assert got["accuracy"] == 1

  def test_are_separated_by_the_chosen_threshold(self):
    logits = np.array([[20.0, 18, 18.5, 25]], np.float32)
    targets = np.array([[1, 0, 0, 1]])
    threshold = metrics.choose_threshold(logits, targets)
    assert 1 - 1e-7 < threshold < 1
    got = compute("multilabel", logits, targets, threshold=threshold)
    assert got["f1_micro"] == 1
    chosen = outputs.predicted(TARGETS["multilabel"], logits, threshold).weights > 0
    np.testing.assert_array_equal(chosen, targets > 0)


class TestOneLabel:
  """scikit-learn takes one column of labels for two classes; the metrics do not."""

  @hypothesis.given(examples=EXAMPLES, levels=LEVELS, seed=SEEDS)
  def test_has_the_metrics_of_a_binary_target(self, examples, levels, seed):
    logits, targets = data("binary", examples, levels, seed)
    weights = np.random.default_rng(seed).uniform(0.1, 3, examples)
    got = metrics.for_target(
      Target("multilabel", 1), logits, targets[:, None], weights, 0.5
    )
    want = compute("binary", logits, targets, weights)
    for name in ("f1", "average_precision", "roc_auc"):
      for average in ("micro", "macro"):
        np.testing.assert_allclose(got[f"{name}_{average}"], want[name], atol=1e-12)
    hits = (logits[:, 0] > 0) == (targets > 0)
    assert got["f1_samples"] == pytest.approx(np.average(hits, weights=weights))


def test_errors_of_a_regression_are_in_the_units_of_the_data():
  target = Target("regression", 2, shift=(1900.0, -3.0), scale=(50.0, 0.25))
  rng = np.random.default_rng(0)
  logits, targets = rng.normal(size=(2, 9, 2)).astype(np.float32)
  weights = rng.uniform(0.1, 3, 9)
  errors, truths, heights = [], [], []
  for row in range(9):
    for shift, scale, logit, number in zip(
      target.shift, target.scale, logits[row], targets[row], strict=True
    ):
      truth = shift + scale * float(number)
      errors.append(abs(shift + scale * float(logit) - truth))
      truths.append(abs(truth))
      heights.append(weights[row])
  got = metrics.for_target(target, logits, targets, weights, 0.5)
  want = np.average(errors, weights=heights)
  assert got["mae"] == pytest.approx(want)
  relative = [error / truth for error, truth in zip(errors, truths, strict=True)]
  assert got["mape"] == pytest.approx(np.average(relative, weights=heights))
  # As in scikit-learn it is the mean over the numbers, each with its own root.
  squares = np.array(errors).reshape(9, 2) ** 2
  roots = np.sqrt(np.average(squares, axis=0, weights=weights))
  assert got["rmse"] == pytest.approx(roots.mean())
  plain = metrics.for_target(Target("regression", 2), logits, targets, weights, 0.5)
  assert got["r2"] == pytest.approx(plain["r2"])
  assert metrics.usual(target) == "r2" and metrics.usual(Target("regression", 2)) == (
    "mae"
  )


class TestUndefined:
  def test_areas_without_a_positive_are_nan(self):
    logits, _ = data("binary", 5, 1000, 0)
    got = compute("binary", logits, np.zeros(5))
    assert np.isnan(got["average_precision"]) and np.isnan(got["roc_auc"])
    logits, _ = data("multilabel", 5, 1000, 0)
    got = compute("multilabel", logits, np.zeros((5, 4)))
    areas = [value for name, value in got.items() if not name.startswith("f1")]
    assert len(areas) == 4 and np.isnan(areas).all()

  def test_roc_auc_without_a_negative_is_nan_and_average_precision_one(self):
    logits, _ = data("binary", 5, 1000, 0)
    got = compute("binary", logits, np.ones(5))
    assert np.isnan(got["roc_auc"]) and got["average_precision"] == 1
    with pytest.warns(UndefinedMetricWarning, match="Only one class"):
      assert np.isnan(sk.roc_auc_score(np.ones(5), logits[:, 0]))

  def test_macro_areas_leave_out_labels_without_an_area(self):
    logits = np.array([[1.0, 2, 3, 0], [4, 3, 1, 0], [2, 9, 6, 1]])
    targets = np.array([[0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 1]])
    got = compute("multilabel", logits, targets)
    assert got["average_precision_macro"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert got["roc_auc_macro"] == pytest.approx((1 / 2 + 1) / 2)
    with pytest.warns(UserWarning, match="No positive class"):
      assert sk.average_precision_score(targets[:, 0], logits[:, 0]) == 0
    with pytest.warns(UndefinedMetricWarning, match="Only one class"):
      assert np.isnan(sk.roc_auc_score(targets, logits, average="macro"))

  def test_f1_of_nothing_predicted_and_nothing_positive_is_zero(self):
    got = compute("multilabel", np.full((3, 4), -1.0), np.zeros((3, 4)))
    # But every example is right.
    assert got.pop("f1_samples") == 1
    assert {v for k, v in got.items() if k.startswith("f1")} == {0}
    assert compute("binary", np.full((3, 1), -1.0), np.zeros(3))["f1"] == 0

  def test_macro_f1_of_classes_is_over_those_that_are_true_or_predicted(self):
    got = compute("multiclass", np.eye(4)[[0, 1, 1]], np.array([0, 1, 2]))
    assert got["f1_macro"] == pytest.approx((1 + 2 / 3 + 0) / 3)

  def test_r2_of_one_example_is_nan(self):
    logits, targets = data("regression", 2, 5, 0)
    for got in (
      compute("regression", logits[:1], targets[:1]),
      compute("regression", logits, targets, np.array([2, 0])),
    ):
      assert np.isnan(got["r2"])
      assert got["mae"] == pytest.approx(np.abs(logits[0] - targets[0]).mean())
    with pytest.warns(UndefinedMetricWarning, match="less than two samples"):
      assert np.isnan(sk.r2_score(targets[:1], logits[:1]))

  @hypothesis.given(seed=SEEDS, constant=st.sampled_from([0.1, 2.0, 1e6 / 3]))
  def test_r2_of_constant_targets_is_one_if_they_are_met_and_zero_otherwise(
    self, seed, constant
  ):
    weights = np.random.default_rng(seed).uniform(0.1, 3, 5)
    targets = np.full((5, 4), constant)
    assert compute("regression", targets, targets, weights)["r2"] == 1
    missed = targets + np.arange(5)[:, None]
    assert compute("regression", missed, targets, weights)["r2"] == 0

  def test_r2_is_precise_far_from_zero(self):
    rng = np.random.default_rng(0)
    targets = 1e6 + rng.normal(size=(40, 4))
    logits = targets + 0.1 * rng.normal(size=(40, 4))
    got = compute("regression", logits, targets)["r2"]
    assert got == pytest.approx(sk.r2_score(targets, logits), abs=1e-12)


class TestRefusals:
  @EVERY_KIND
  @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
  def test_a_logit_that_is_not_finite(self, kind, bad):
    logits, targets = data(kind, 5, 5, 0)
    logits[3, -1] = bad
    column = TARGETS[kind].size - 1
    with pytest.raises(ValueError, match=f"column {column}: logit is {bad};"):
      compute(kind, logits, targets)
    compute(kind, logits, targets, np.array([1, 1, 1, 0, 1]))

  @pytest.mark.parametrize(
    ("kind", "bad", "words"),
    [
      ("multilabel", -1, "example 2, column 1: target is -1.0; expected 0 or 1"),
      ("multilabel", 0.5, "example 2, column 1: target is 0.5; expected 0 or 1"),
      ("multilabel", np.nan, "example 2, column 1: target is nan"),
      ("binary", -1, "example 2: target is -1.0; expected 0 or 1"),
      ("binary", np.nan, "example 2: target is nan"),
      ("multiclass", -1, "example 2: target is -1.0; expected a class from 0 to 3"),
      ("multiclass", 4, "example 2: target is 4.0; expected a class from 0 to 3"),
      ("multiclass", 1.5, "example 2: target is 1.5; expected a class"),
      ("multiclass", np.nan, "example 2: target is nan"),
      ("regression", np.nan, "example 2, column 1: target is nan; expected finite"),
      ("regression", np.inf, "example 2, column 1: target is inf; expected finite"),
    ],
  )
  def test_a_target_that_its_kind_does_not_allow(self, kind, bad, words):
    logits, targets = data(kind, 5, 5, 0)
    targets = targets.astype(np.float64)
    targets[(2, 1) if targets.ndim == 2 else 2] = bad
    with pytest.raises(ValueError, match=words):
      compute(kind, logits, targets)
    compute(kind, logits, targets, np.array([1, 1, 0, 1, 1]))
    if kind == "multilabel":
      for function in (
        metrics.choose_threshold,
        functools.partial(metrics.label_f1, threshold=0.5),
      ):
        with pytest.raises(ValueError, match=words):
          function(logits, targets)

  @EVERY_KIND
  def test_no_example_of_positive_weight(self, kind):
    logits, targets = data(kind, 3, 5, 0)
    with pytest.raises(ValueError, match="none of the 3 examples has a weight"):
      compute(kind, logits, targets, np.zeros(3))
    with pytest.raises(ValueError, match="none of the 0 examples.*split empty"):
      compute(kind, logits[:0], targets[:0])

  @pytest.mark.parametrize("bad", [-1, np.nan, np.inf])
  def test_a_weight_that_is_negative_or_not_finite(self, bad):
    logits, targets = data("binary", 3, 5, 0)
    with pytest.raises(ValueError, match="example 1: weight is .*expected finite, at"):
      compute("binary", logits, targets, np.array([1, bad, 1]))

  def test_shapes_that_do_not_fit(self):
    logits, targets = data("multilabel", 3, 5, 0)
    with pytest.raises(ValueError, match=r"\(3, 4\), \(3, 4\) and \(2,\).*multilabel"):
      compute("multilabel", logits, targets, np.ones(2))
    with pytest.raises(ValueError, match=r"\(3, 4\), \(3, 4\) and \(3,\).*binary"):
      compute("binary", logits, targets)

  def test_an_unknown_metric_lists_the_known(self):
    with pytest.raises(
      ValueError, match=r"'f1micro'; choose one of .*'f1_micro'.*'rmse'"
    ):
      metrics.higher_is_better("f1micro")


def test_label_f1_is_per_label_and_counts_the_positives():
  logits, targets = data("multilabel", 30, 5, 0)
  f1, support = metrics.label_f1(logits, targets, 0.5)
  want = sk.f1_score(targets, logits > 0, average=None, zero_division=0)
  np.testing.assert_allclose(f1, want, atol=1e-12)
  np.testing.assert_array_equal(support, targets.sum(0))


def of_chances(chances):
  """Logits of probabilities."""
  chances = np.asarray(chances, np.float64)
  return np.log(chances) - np.log1p(-chances)


class TestChooseThreshold:
  @hypothesis.given(examples=EXAMPLES, levels=LEVELS, seed=SEEDS)
  def test_no_other_threshold_is_better(self, examples, levels, seed):
    logits, targets = data("multilabel", examples, levels, seed)
    chances = 1 / (1 + np.exp(-logits))

    def f1(threshold):
      return sk.f1_score(targets, chances > threshold, average="micro", zero_division=0)

    threshold = metrics.choose_threshold(logits, targets)
    others = np.unique(np.concatenate([[-1.0, 1.1], chances.ravel()]))
    assert f1(threshold) >= max(f1(t) for t in others) - 1e-12
    got = compute("multilabel", logits, targets, threshold=threshold)
    assert got["f1_micro"] == pytest.approx(f1(threshold), abs=1e-12)

  def test_lies_half_way_between_two_probabilities(self):
    logits = of_chances([[0.2, 0.6], [0.8, 0.9]])
    targets = np.array([[0, 0], [1, 1]])
    assert metrics.choose_threshold(logits, targets) == pytest.approx(0.7)

  def test_lies_below_the_lowest_if_all_is_positive(self):
    logits = of_chances([[0.4, 0.6]])
    threshold = metrics.choose_threshold(logits, np.ones((1, 2)))
    assert threshold == pytest.approx(0.2)
    # The probability is exactly 0, and still above the threshold.
    assert metrics.choose_threshold(np.full((1, 2), -1e4), np.ones((1, 2))) < 0

  @pytest.mark.parametrize("low", [0.3, np.nextafter(np.float32(0.3), np.float32(1))])
  def test_separates_neighbouring_float32_logits(self, low):
    low = np.float32(low)
    logits = np.array([[np.nextafter(low, np.float32(1))], [low]])
    targets = np.array([[1], [0]])
    threshold = metrics.choose_threshold(logits, targets)
    got = metrics.for_target(
      Target("multilabel", 1), logits, targets, np.ones(2), threshold
    )
    assert got["f1_micro"] == 1

  def test_is_a_half_if_nothing_is_positive(self):
    assert metrics.choose_threshold(np.array([[0.2, 0.9]]), np.zeros((1, 2))) == 0.5
