import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

from deepsets_jax.data.tables.schema import Target
from deepsets_jax.training import losses

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 3)).astype(np.float32)
# Two padding examples.
WEIGHTS = jnp.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.0], jnp.float32)
# Of the three labels 4, 1 and 1 of 4 examples have one: 2 on average.
TRAIN = {
  "multilabel": np.array([[1, 1, 0], [1, 0, 1], [1, 0, 0], [1, 0, 0]], np.float32),
  "binary": np.array([0, 1], np.float32),
  "multiclass": np.array([0, 1, 2, 2], np.int32),
  "regression": np.zeros((4, 3), np.float32),
}


def build(kind, size, **arguments):
  defaults = {"regression": "absolute", "label_smoothing": 0.0, "balance": 0.0}
  return losses.build_loss(Target(kind, size), TRAIN[kind], **defaults | arguments)


def test_multilabel_is_the_mean_log_loss_of_the_labels():
  targets = RNG.integers(0, 2, (6, 3)).astype(np.float32)
  total, weight = build("multilabel", 3)(jnp.array(LOGITS), jnp.array(targets), WEIGHTS)
  p = 1 / (1 + np.exp(-LOGITS[:4].ravel().astype(np.float64)))
  np.testing.assert_allclose(total / weight, sk.log_loss(targets[:4].ravel(), p), 1e-5)


def test_binary_is_the_log_loss():
  targets = np.array([0, 1, 1, 0, 1, 1], np.float32)
  loss = build("binary", 1)
  total, weight = loss(jnp.array(LOGITS[:, :1]), jnp.array(targets), WEIGHTS)
  p = 1 / (1 + np.exp(-LOGITS[:4, 0].astype(np.float64)))
  np.testing.assert_allclose(total / weight, sk.log_loss(targets[:4], p), 1e-5)


def test_multiclass_is_the_log_loss():
  targets = np.array([0, 1, 2, 0, 1, 2], np.int32)
  total, weight = build("multiclass", 3)(jnp.array(LOGITS), jnp.array(targets), WEIGHTS)
  p = np.exp(LOGITS[:4].astype(np.float64))
  p /= p.sum(1, keepdims=True)
  np.testing.assert_allclose(total / weight, sk.log_loss(targets[:4], p), 1e-5)


@pytest.mark.parametrize(
  ("name", "reference"),
  [("absolute", sk.mean_absolute_error), ("squared", sk.mean_squared_error)],
)
def test_regression_is_the_mean_error(name, reference):
  targets = RNG.normal(size=(6, 3)).astype(np.float32)
  loss = build("regression", 3, regression=name)
  total, weight = loss(jnp.array(LOGITS), jnp.array(targets), WEIGHTS)
  np.testing.assert_allclose(total / weight, reference(targets[:4], LOGITS[:4]), 1e-5)


def test_label_smoothing_moves_the_best_logit():
  loss = build("binary", 1, label_smoothing=0.2)
  # Of a target smoothed from 1 to 0.9, the best probability is 0.9.
  best, worse = jnp.log(jnp.array([[[9]], [[99]]], jnp.float32))
  one = jnp.ones(1, jnp.float32)
  assert loss(best, one, one)[0] < loss(worse, one, one)[0]


def test_balance_weighs_the_positives_of_rare_labels():
  logits, one = jnp.zeros((1, 3), jnp.float32), jnp.ones(1, jnp.float32)
  plain, balanced = build("multilabel", 3), build("multilabel", 3, balance=0.5)
  for targets, ratio in (
    ([[0, 0, 0]], 1.0),
    ([[1, 0, 0]], 1.0),
    ([[0, 1, 0]], (2 + 2**0.5) / 3),
  ):
    targets = jnp.array(targets, jnp.float32)
    got = balanced(logits, targets, one)[0] / plain(logits, targets, one)[0]
    np.testing.assert_allclose(got, ratio, 1e-5)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
  ("kind", "counts"), [("binary", (9, 1)), ("multiclass", (5, 3, 1, 0))]
)
def test_balance_weighs_the_examples_of_rare_classes(kind, counts, balance):
  train = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
  size = 1 if kind == "binary" else len(counts)
  if kind == "binary":
    train = train.astype(np.float32)
  logits = RNG.normal(size=(6, size)).astype(np.float32)
  targets = np.array([0, 1, 1, 0, 1, len(counts) - 1]).astype(train.dtype)
  want = 0.0
  for row, label, counted in zip(logits, targets, np.array(WEIGHTS), strict=True):
    scores = [0.0, float(row[0])] if kind == "binary" else [float(x) for x in row]
    chance = np.exp(scores[int(label)]) / sum(np.exp(x) for x in scores)
    mean = sum(counts) / len(counts)
    rarity = max(mean / max(counts[int(label)], 1), 1.0)
    want += counted * rarity**balance * -np.log(chance)
  loss = losses.build_loss(
    Target(kind, size), train, regression="absolute", label_smoothing=0.0,
    balance=balance,
  )  # fmt: skip
  total, weight = loss(jnp.array(logits), jnp.array(targets), WEIGHTS)
  np.testing.assert_allclose(total, want, rtol=1e-5)
  assert weight == 4


def test_a_regression_cannot_be_balanced():
  with pytest.raises(ValueError, match="loss.balance is 0.5.*no classes.*set it to 0"):
    build("regression", 3, balance=0.5)


def test_prior_logits_have_the_frequencies_of_the_targets():
  for kind, size, want in (
    ("multilabel", 3, [5 / 6, 2 / 6, 2 / 6]),
    ("binary", 1, [1 / 2]),
    ("multiclass", 3, [2 / 7, 2 / 7, 3 / 7]),
  ):
    target = Target(kind, size)
    logits = losses.prior_logits(target, TRAIN[kind])
    assert logits.shape == (size,)
    got = losses.probabilities(target, logits[None])
    np.testing.assert_allclose(np.ravel(got), want, 1e-5)
  assert not losses.prior_logits(Target("regression", 3), TRAIN["regression"]).any()


def test_probabilities_are_those_of_float64_on_the_host():
  logits = np.array([[-800, 1, 20], [16, 30, 36]], np.float32)
  sigmoids = 1 / (1 + np.exp(-np.maximum(logits.astype(np.float64), -700)))
  got = losses.probabilities(Target("multilabel", 3), logits)
  assert got.dtype == np.float64 and len(np.unique(got)) == 6
  np.testing.assert_allclose(got, sigmoids, rtol=1e-15, atol=1e-300)
  binary = losses.probabilities(Target("binary", 1), logits[:, 2:])
  np.testing.assert_array_equal(binary, got[:, 2])
  powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
  np.testing.assert_allclose(
    losses.probabilities(Target("multiclass", 3), logits),
    powers / powers.sum(1, keepdims=True),
    rtol=1e-13,
  )
  numbers = losses.probabilities(Target("regression", 3), logits)
  np.testing.assert_array_equal(numbers, logits)
  scaled = Target("regression", 3, shift=(1.0, 2.0, 3.0), scale=(1.0, 0.5, 4.0))
  want = [[scaled.shift[k] + scaled.scale[k] * float(row[k]) for k in range(3)]
          for row in logits]  # fmt: skip
  np.testing.assert_array_equal(losses.probabilities(scaled, logits), want)


def test_a_batch_of_padding_adds_nothing():
  for kind, size, targets in (
    ("multilabel", 3, jnp.zeros((6, 3), jnp.float32)),
    ("multiclass", 3, jnp.zeros(6, jnp.int32)),
    ("regression", 3, jnp.zeros((6, 3), jnp.float32)),
  ):
    total, weight = build(kind, size)(jnp.array(LOGITS), targets, WEIGHTS * 0)
    assert total == 0 and weight == 0


def test_unknown_regression_loss_is_named():
  with pytest.raises(ValueError, match="unknown regression loss 'huber'.*'squared'"):
    build("regression", 1, regression="huber")
