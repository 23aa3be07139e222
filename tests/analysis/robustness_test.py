"""Corruptions against plain loops; curves and subsets against hand-made numbers."""

import dataclasses
import functools

import numpy as np
import pytest

from configs import smoke
from deepsets_jax import ragged
from deepsets_jax.analysis import robustness
from deepsets_jax.analysis.robustness import RobustnessCurve
from deepsets_jax.data.tables.ablation import keep_modalities
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.tasks.supervised import run
from deepsets_jax.tasks.trained import Trained

EXAMPLES = 400


def tables():
  """A table of vectors, timed tokens with weights, and a modality nothing has."""
  rng = np.random.default_rng(0)
  lengths = rng.integers(1, 5, (2, EXAMPLES))
  vectors, tokens = lengths.sum(axis=1)
  return Table(
    schema=Schema(
      {
        "face": Modality("vectors", 2),
        "word": Modality("tokens", 1000, weighted=True, timed=True),
        "empty": Modality("tokens", 3),
      },
      Target("binary", 1),
    ),
    modalities={
      "face": ragged.from_lengths(
        rng.normal(size=(vectors, 2)).astype(np.float32), lengths[0]
      ),
      "word": ragged.from_lengths(
        rng.integers(500, size=tokens).astype(np.int32), lengths[1]
      ).replace(
        weights=rng.random(tokens).astype(np.float32),
        times=np.arange(tokens, dtype=np.float32),
      ),
      "empty": ragged.from_lengths(np.zeros(0, np.int32), np.zeros(EXAMPLES, int)),
    },
    targets=np.zeros(EXAMPLES, np.float32),
    ids=np.array([str(row) for row in range(EXAMPLES)]),
  )


TABLE = tables()


def lists(values, column):
  """Per example, its part of `values`, which are laid out as `column`."""
  return [
    values[begin:end].tolist()
    for begin, end in zip(column.offsets, column.offsets[1:], strict=False)
  ]


def corrupt(name, level, seed=0):
  change = robustness.CORRUPTIONS[name].change
  return change(TABLE, level, np.random.default_rng(seed))


def assert_same(one, other):
  for name, column in one.modalities.items():
    found = other.modalities[name]
    for field in ("values", "offsets", "weights", "times"):
      np.testing.assert_array_equal(getattr(column, field), getattr(found, field))


@pytest.mark.parametrize("name", robustness.CORRUPTIONS)
class TestEveryCorruption:
  def test_at_its_first_level_changes_nothing(self, name):
    assert_same(corrupt(name, robustness.CORRUPTIONS[name].levels[0]), TABLE)

  def test_is_determined_by_its_seed(self, name):
    level = robustness.CORRUPTIONS[name].levels[2]
    one, same, other = (corrupt(name, level, seed) for seed in (3, 3, 4))
    assert_same(one, same)
    if robustness.CORRUPTIONS[name].by_chance:
      with pytest.raises(AssertionError):
        assert_same(one, other)
    else:
      assert_same(one, other)

  def test_leaves_targets_and_ids_and_the_table_itself(self, name):
    found = corrupt(name, robustness.CORRUPTIONS[name].levels[-1])
    assert found.targets is TABLE.targets and found.ids is TABLE.ids
    assert found.schema == TABLE.schema
    assert_same(TABLE, tables())


class TestMissing:
  def test_at_rate_one_nothing_is_left(self):
    found = corrupt("missing", 1)
    assert len(found) == EXAMPLES
    assert all(len(column.values) == 0 for column in found.modalities.values())

  def test_takes_as_many_as_the_rate_says(self):
    found = corrupt("missing", 0.3)
    for name in ("face", "word"):  # All examples have some.
      # Four standard deviations of 400 draws.
      assert np.mean(found.lengths(name) == 0) == pytest.approx(0.3, abs=0.092)

  def test_takes_a_modality_of_an_example_as_a_whole_or_not_at_all(self):
    found = corrupt("missing", 0.5)
    for name in ("face", "word"):
      there = found.lengths(name) > 0
      want = np.where(there, TABLE.lengths(name), 0)
      np.testing.assert_array_equal(found.lengths(name), want)
      column, before = found.modalities[name], TABLE.modalities[name]
      for field in ("values", "weights", "times"):
        if getattr(before, field) is not None:
          parts = lists(getattr(before, field), before)
          kept = [part if t else [] for part, t in zip(parts, there, strict=True)]
          assert lists(getattr(column, field), column) == kept

  def test_modalities_go_independently(self):
    found = corrupt("missing", 0.5)
    gone = [found.lengths(name) == 0 for name in ("face", "word")]
    assert np.mean(gone[0] & gone[1]) == pytest.approx(0.25, abs=0.09)

  def test_what_is_missing_stays_missing_at_a_higher_rate(self):
    low, high = corrupt("missing", 0.3), corrupt("missing", 0.6)
    for name in ("face", "word"):
      assert (high.lengths(name)[low.lengths(name) == 0] == 0).all()


class TestNoise:
  def test_keeps_lengths_weights_and_times(self):
    found = corrupt("noise", 0.7)
    for name, column in TABLE.modalities.items():
      other = found.modalities[name]
      for field in ("offsets", "weights", "times"):
        np.testing.assert_array_equal(getattr(other, field), getattr(column, field))

  def test_an_element_is_its_own_or_one_of_the_same_modality(self):
    found = corrupt("noise", 1)
    real = {tuple(row) for row in TABLE.modalities["face"].values.tolist()}
    assert {tuple(row) for row in found.modalities["face"].values.tolist()} <= real
    words = TABLE.modalities["word"].values
    assert np.isin(found.modalities["word"].values, words).all()

  def test_changes_as_many_as_the_rate_says(self):
    for name in ("face", "word"):
      before = TABLE.modalities[name].values
      # Vectors are all distinct, tokens are not: an equal one may be drawn.
      different = np.array(
        [np.mean(a == b) for a, b in zip(before, before, strict=True)]
      )
      assert (different == 1).all()
    before = TABLE.modalities["face"].values
    after = corrupt("noise", 0.4).modalities["face"].values
    changed = np.mean((before != after).any(axis=1))
    assert changed == pytest.approx(0.4, abs=4 * np.sqrt(0.24 / len(before)))

  def test_what_is_wrong_stays_as_wrong_at_a_higher_rate(self):
    low, high = corrupt("noise", 0.3), corrupt("noise", 0.6)
    for name in ("face", "word"):
      before = TABLE.modalities[name].values.reshape(
        len(TABLE.modalities[name].values), -1
      )
      a, b = (x.modalities[name].values.reshape(before.shape) for x in (low, high))
      wrong = (a != before).any(axis=1)
      assert wrong.any()
      np.testing.assert_array_equal(a[wrong], b[wrong])


def config(pools=("max",), fusion="set_pool"):
  found = smoke.get_config(fusion)
  found.data.digits.train_examples = 64
  found.data.batch_size = 64
  found.model.features = 8
  found.model.dense.hidden = ()
  found.model.head.hidden = ()
  found.model.set_pool.pools = pools
  return found


@functools.cache
def untrained(pools=("max",)):
  """A model as it is before training, and 50 of its test examples."""
  built = run.build_run(config(pools).lock())
  model = Trained(built, built.init().eval_params, 0.5)
  return model, built.tables["test"].select(np.arange(50))


class TestRepeated:
  def test_says_every_element_so_many_times(self):
    found = corrupt("repeated", 3)
    for name, column in TABLE.modalities.items():
      other = found.modalities[name]
      for field in ("values", "weights", "times"):
        if getattr(column, field) is not None:
          want = [
            [element for element in elements for _ in range(3)]
            for elements in lists(getattr(column, field), column)
          ]
          assert lists(getattr(other, field), other) == want
        else:
          assert getattr(other, field) is None

  @pytest.mark.parametrize(
    ("pool", "same"), [("max", True), ("mean", True), ("sum", False)]
  )
  def test_a_max_and_a_mean_do_not_notice_and_a_sum_does(self, pool, same):
    model, table = untrained((pool,))
    # More than the run's slots have room for.
    more = robustness.repeated(table, 16, np.random.default_rng(0))
    before, after = model.logits(table), model.logits(more)
    assert np.allclose(before, after, atol=1e-5) == same


class TestCurve:
  def test_the_area_is_a_mean_over_levels(self):
    curve = RobustnessCurve("accuracy", np.array([0, 0.5, 1]), np.array([1, 0.6, 0]))
    assert curve.area == pytest.approx((0.8 + 0.3) / 2)
    stretched = RobustnessCurve("accuracy", np.array([1, 2, 4]), np.array([1, 0.4, 0]))
    assert stretched.area == pytest.approx((0.7 * 1 + 0.2 * 2) / 3)

  def test_a_loss_is_the_difference_from_the_first_level(self):
    curve = RobustnessCurve("accuracy", np.array([0, 0.5, 1]), np.array([1, 0.6, 0]))
    assert curve.loss_at(0) == 0
    assert curve.loss_at(0.5) == pytest.approx(0.4)
    assert curve.loss_at(0.75) == pytest.approx(0.7)  # Halfway from .4 to 1.

  @pytest.mark.parametrize("metric", ["mae", "loss"])
  def test_a_loss_is_positive_where_more_is_worse(self, metric):
    curve = RobustnessCurve(metric, np.array([0.0, 1.0]), np.array([2.0, 5.0]))
    assert curve.loss_at(1) == 3 and curve.area == 3.5

  @pytest.mark.parametrize("level", [-0.1, 1.1])
  def test_a_level_beyond_the_curve_is_refused(self, level):
    curve = RobustnessCurve("accuracy", np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match=f"level {level} is not on the curve"):
      curve.loss_at(level)

  @pytest.mark.parametrize("levels", [[0.5], [0, 1, 0.5], [0, 0]])
  def test_levels_that_make_no_curve_are_refused(self, levels):
    with pytest.raises(ValueError, match="two or more, ascending"):
      RobustnessCurve("accuracy", np.array(levels), np.zeros(len(levels)))

  def test_is_the_mean_of_its_draws(self):
    model, table = untrained()
    found = robustness.curve(
      model, table, robustness.missing, (0, 0.5), draws=2, seed=7
    )
    draws = [
      robustness.measure(
        model, robustness.missing(table, 0.5, np.random.default_rng((7, draw)))
      )
      for draw in (0, 1)
    ]
    assert found.metric == "accuracy" and found.levels.tolist() == [0, 0.5]
    assert found.values[0] == robustness.measure(model, table)
    assert found.values[1] == pytest.approx(np.mean(draws))

  def test_no_draws_are_refused(self):
    with pytest.raises(ValueError, match="draws is 0"):
      robustness.curve(*untrained(), robustness.missing, (0, 1), draws=0)


def test_a_measure_is_the_metric_of_the_run():
  model, table = untrained()
  right = model.logits(table).argmax(axis=1) == table.targets
  assert robustness.measure(model, table) == pytest.approx(right.mean())


class TestEverySubset:
  def test_agrees_with_single_evaluations(self):
    model, table = untrained()
    names = list(table.schema.modalities)
    found = robustness.every_subset(model, table)
    assert len(found) == 16 and len(set(found.values())) > 1
    for subset in [(), ("image",), ("image", "caption"), tuple(names)]:
      keep = np.array([[name in subset for name in names]] * len(table))
      want = robustness.measure(model, keep_modalities(table, keep))
      assert found[subset] == want

  def test_more_than_ten_modalities_are_refused(self):
    model, table = untrained()
    many = {f"m{i}": Modality("tokens", 3) for i in range(11)}
    wide = dataclasses.replace(table, schema=Schema(many, table.schema.target))
    with pytest.raises(ValueError, match=r"11 modalities have 2\*\*11 subsets"):
      robustness.every_subset(model, wide)
