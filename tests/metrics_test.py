"""Metrics against scikit-learn, and against themselves over other batches."""

import functools
import warnings

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import sklearn.metrics as sk

from deepsets_jax import metrics
from deepsets_jax.schema import Target

TARGETS = {
  "multilabel": Target("multilabel", 4),
  "multiclass": Target("multiclass", 4),
  "binary": Target("binary", 1),
  "regression": Target("regression", 4),
}
STATES = {
  "f1": (functools.partial(metrics.Counts.from_batch, threshold=0.5), "multilabel"),
  "ranking": (metrics.Ranking.from_batch, "multilabel"),
  "multiclass": (metrics.Confusion.from_batch, "multiclass"),
  "regression": (metrics.Errors.from_batch, "regression"),
}
EMPTY = {
  "f1": metrics.Counts.empty,
  "ranking": metrics.Ranking.empty,
  "multiclass": metrics.Confusion.empty,
  "regression": metrics.Errors.empty,
}
# Few examples leave labels empty or full; few distinct scores make ties.
EXAMPLES = st.integers(1, 30)
LEVELS = st.sampled_from([2, 5, 1000])
SEEDS = st.integers(0, 2**16)


def data(kind, examples, levels, seed):
  """Scores, of so many different values, and targets."""
  rng = np.random.default_rng(seed)
  shape = (examples,) if kind == "binary" else (examples, 4)
  scores = rng.integers(levels, size=shape) / levels
  match kind:
    case "multiclass":
      return scores, rng.integers(4, size=examples)
    case "regression":
      return scores, rng.normal(3, 1, shape)
  rate = np.array([0.0, 0.3, 0.6, 1.0]) if kind == "multilabel" else 0.5
  return scores, (rng.random(shape) < rate).astype(np.float32)


def reference(kind, scores, targets):
  """scikit-learn's values; macro means over the labels for which they are defined."""
  if kind == "regression":
    return {
      "mae": sk.mean_absolute_error(targets, scores),
      "rmse": sk.root_mean_squared_error(targets, scores),
      "mape": sk.mean_absolute_percentage_error(targets, scores),
      "r2": sk.r2_score(targets, scores),
    }
  predicted = scores.argmax(1) if kind == "multiclass" else scores > 0.5
  f1 = functools.partial(sk.f1_score, targets, predicted, zero_division=0)
  if kind == "multiclass":
    values = {f"f1_{a}": f1(average=a) for a in ("macro", "weighted")}
    return values | {"accuracy": sk.accuracy_score(targets, predicted)}
  if kind == "binary":
    return {
      "f1": f1(),
      "accuracy": sk.accuracy_score(targets, predicted),
      "average_precision": area(sk.average_precision_score, targets, scores),
      "roc_auc": area(sk.roc_auc_score, targets, scores),
    }
  values = {f"f1_{a}": f1(average=a) for a in ("micro", "macro", "weighted", "samples")}
  for name in ("average_precision", "roc_auc"):
    score = getattr(sk, f"{name}_score")
    values[f"{name}_micro"] = area(score, targets.ravel(), scores.ravel())
    labels = [area(score, *label) for label in zip(targets.T, scores.T, strict=True)]
    defined = [value for value in labels if not np.isnan(value)]
    values[f"{name}_macro"] = np.mean(defined) if defined else np.nan
  return values


def area(score, targets, scores):
  """scikit-learn's area, NaN where it is not defined: there it warns."""
  undefined = not targets.any() or (score is sk.roc_auc_score and targets.all())
  return np.nan if undefined else score(targets, scores)


@pytest.mark.parametrize("kind", TARGETS)
class TestEveryKindOfTarget:
  @hypothesis.given(examples=EXAMPLES, levels=LEVELS, seed=SEEDS)
  def test_agrees_with_scikit_learn(self, kind, examples, levels, seed):
    hypothesis.assume(kind != "regression" or examples > 1)  # There R2 is undefined.
    scores, targets = data(kind, examples, levels, seed)
    weights = np.ones(examples)
    got = metrics.for_target(TARGETS[kind], scores, targets, weights, 0.5)
    want = reference(kind, scores, targets)
    assert got.keys() == want.keys() == set(metrics.names(TARGETS[kind]))
    for name, value in want.items():
      np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-9, err_msg=name)

  def test_padding_examples_do_not_count(self, kind):
    scores, targets = data(kind, 20, 5, 0)
    weights = (np.arange(20) % 3 > 0).astype(np.float32)
    real = weights > 0
    got = metrics.for_target(TARGETS[kind], scores, targets, weights, 0.5)
    want = metrics.for_target(
      TARGETS[kind], scores[real], targets[real], weights[real], 0.5
    )
    everything = metrics.for_target(
      TARGETS[kind], scores, targets, np.ones_like(weights), 0.5
    )
    assert got == want != everything

  def test_values_are_plain_floats(self, kind):
    scores, targets = data(kind, 20, 5, 0)
    got = metrics.for_target(TARGETS[kind], scores, targets, np.ones(20), 0.5)
    assert {type(value) for value in got.values()} == {float}


@pytest.mark.parametrize("name", STATES)
class TestEveryState:
  @hypothesis.given(
    cuts=st.lists(st.integers(0, 24), max_size=5), levels=LEVELS, seed=SEEDS
  )
  def test_batches_padding_and_order_do_not_matter(self, name, cuts, levels, seed):
    from_batch, kind = STATES[name]
    scores, targets = data(kind, 24, levels, seed)
    rng = np.random.default_rng(seed)
    states = [EMPTY[name](4)]
    for rows in np.split(rng.permutation(24), sorted(cuts)):
      # Padding anywhere in the batch, of values that would count if they could.
      rows = np.append(rows, rng.integers(24, size=2))
      weights = np.append(np.ones(len(rows) - 2), [0, 0])
      order = rng.permutation(len(rows))
      states.append(
        from_batch(scores[rows][order], targets[rows][order], weights[order])
      )
    rng.shuffle(states)
    got = functools.reduce(lambda a, b: a.merge(b), states).compute()
    want = from_batch(scores, targets, np.ones(24)).compute()
    assert got.keys() == want.keys()
    for key, value in want.items():
      np.testing.assert_allclose(got[key], value, rtol=1e-9, err_msg=key)

  def test_of_no_examples_is_zero_for_counts_and_nan_for_the_rest(self, name):
    want = 0.0 if name in ("f1", "multiclass") else np.nan
    got = EMPTY[name](4).compute()
    np.testing.assert_equal(got, dict.fromkeys(got, want))

  def test_of_a_batch_of_padding_is_that_of_no_examples(self, name):
    from_batch, kind = STATES[name]
    state = from_batch(*data(kind, 3, 5, 0), np.zeros(3))
    np.testing.assert_equal(state.compute(), EMPTY[name](4).compute())


def test_macro_f1_is_over_the_classes_that_are_true_or_predicted():
  scores = np.eye(4)[[0, 1, 1]]
  targets = np.array([0, 1, 2])
  got = metrics.Confusion.from_batch(scores, targets, np.ones(3)).compute()
  assert got["f1_macro"] == pytest.approx((1 + 2 / 3 + 0) / 3)
  want = sk.f1_score(targets, scores.argmax(1), average="macro", zero_division=0)
  assert got["f1_macro"] == pytest.approx(want)


def test_macro_areas_leave_out_what_scikit_learn_warns_of():
  scores = np.array([[0.1, 0.2, 0.3], [0.4, 0.3, 0.1], [0.2, 0.9, 0.6]])
  targets = np.array([[0, 0, 1], [0, 1, 1], [0, 0, 1]])  # None, some, all.
  got = metrics.Ranking.from_batch(scores, targets, np.ones(3)).compute()
  assert got["average_precision_macro"] == pytest.approx((0.5 + 1) / 2)
  assert got["roc_auc_macro"] == pytest.approx(0.5)
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert sk.average_precision_score(targets[:, 0], scores[:, 0]) == 0
    assert np.isnan(sk.roc_auc_score(targets, scores, average="macro"))
  assert {"No positive class", "Only one class"} == {
    " ".join(str(w.message).split()[:3]) for w in caught
  }


@pytest.mark.parametrize(("scores", "r2"), [([[2.0], [2.0]], 1), ([[2.0], [3.0]], 0)])
def test_r2_of_constant_targets_is_whether_they_are_met(scores, r2):
  targets = np.full((2, 1), 2.0)
  state = metrics.Errors.from_batch(np.array(scores), targets, np.ones(2))
  assert state.compute()["r2"] == r2 == sk.r2_score(targets, scores)


def test_r2_does_not_lose_digits_far_from_zero():
  rng = np.random.default_rng(0)
  targets = 1e6 + rng.normal(size=(40, 2))
  scores = targets + 0.1 * rng.normal(size=(40, 2))
  parts = [
    metrics.Errors.from_batch(s, t, np.ones(len(s)))
    for s, t in zip(np.split(scores, 8), np.split(targets, 8), strict=True)
  ]
  got = functools.reduce(lambda a, b: a.merge(b), parts).compute()["r2"]
  assert got == pytest.approx(sk.r2_score(targets, scores), abs=1e-9)


def test_label_f1_is_per_label_and_counts_the_positives():
  scores, targets = data("multilabel", 30, 5, 0)
  f1, support = metrics.label_f1(scores, targets, 0.5)
  want = sk.f1_score(targets, scores > 0.5, average=None, zero_division=0)
  np.testing.assert_allclose(f1, want, atol=1e-12)
  np.testing.assert_array_equal(support, targets.sum(0))


class TestChooseThreshold:
  @hypothesis.given(examples=EXAMPLES, levels=LEVELS, seed=SEEDS)
  def test_no_other_threshold_is_better(self, examples, levels, seed):
    scores, targets = data("multilabel", examples, levels, seed)

    def f1(threshold):
      return sk.f1_score(targets, scores > threshold, average="micro", zero_division=0)

    best = f1(metrics.choose_threshold(scores, targets))
    others = np.unique(np.concatenate([[-1.0, 1.1], scores.ravel()]))
    assert best >= max(f1(t) for t in others) - 1e-12

  def test_lies_half_way_between_two_scores(self):
    scores, targets = np.array([[0.2, 0.6], [0.8, 0.9]]), np.array([[0, 0], [1, 1]])
    assert metrics.choose_threshold(scores, targets) == pytest.approx(0.7)

  def test_below_the_lowest_score_when_all_is_positive(self):
    scores = np.array([[0.4, 0.6]])
    assert metrics.choose_threshold(scores, np.ones((1, 2))) == pytest.approx(0.2)

  @pytest.mark.parametrize("low", [0.3, np.nextafter(np.float32(0.3), np.float32(1))])
  def test_tells_neighbouring_float32_apart(self, low):
    low = np.float32(low)
    scores = np.array([[np.nextafter(low, np.float32(1))], [low]])
    targets, weights = np.array([[1], [0]]), np.ones(2)
    threshold = metrics.choose_threshold(scores, targets)
    state = metrics.Counts.from_batch(scores, targets, weights, threshold)
    assert state.compute()["f1_micro"] == 1

  def test_is_a_half_where_nothing_is_positive(self):
    assert metrics.choose_threshold(np.array([[0.2, 0.9]]), np.zeros((1, 2))) == 0.5


@pytest.mark.parametrize("kind", TARGETS)
def test_a_score_that_is_not_finite_is_an_error_except_in_padding(kind):
  scores, targets = data(kind, 5, 5, 0)
  scores[3] = np.nan
  weights = np.ones(5)
  with pytest.raises(ValueError, match="score nan of example 3"):
    metrics.for_target(TARGETS[kind], scores, targets, weights, 0.5)
  weights[3] = 0
  metrics.for_target(TARGETS[kind], scores, targets, weights, 0.5)


@pytest.mark.parametrize("kind", TARGETS)
def test_whether_higher_is_better_is_known_for_every_metric(kind):
  lower = {"loss", "mae", "rmse", "mape"}
  for name in ("loss", *metrics.names(TARGETS[kind])):
    assert metrics.higher_is_better(name) == (name not in lower)


def test_an_unknown_metric_is_an_error_that_lists_the_known():
  with pytest.raises(ValueError, match=r"'f1micro'; one of .*'f1_micro'.*'rmse'"):
    metrics.higher_is_better("f1micro")
