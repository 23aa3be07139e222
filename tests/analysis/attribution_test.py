import dataclasses
import functools
import itertools
import math

import numpy as np
import pytest

from configs import smoke
from deepsets_jax.analysis import attribution, robustness
from deepsets_jax.analysis.attribution import coalitions, outputs, result, shapley
from deepsets_jax.data.tables.ablation import Bags, keep_elements, keep_modalities
from deepsets_jax.tasks.supervised import run as runs
from deepsets_jax.tasks.trained import Trained
from deepsets_jax.training import losses
from tests.analysis.models_trained import MODELS, few, untrained, weighted

# They take long to compile.
ATTENDING = ("set_transformer", "single_stream")
EVERY_MODEL = pytest.mark.parametrize(
  "name",
  [pytest.param(n, marks=pytest.mark.slow) if n in ATTENDING else n for n in MODELS],
)


# It scales elements to length 1: its output does not change when they are scaled.
SCALE_INVARIANT = "every pool"


@functools.cache
def setting(name):
  """A model, a table, and what is explained of it."""
  trained = untrained(name)
  table = few(trained)
  output = outputs.predicted(table.schema.target, trained.logits(table), 0.5)
  return trained, table, output


@functools.cache
def computed(method, name):
  """The attribution of the setting of a model, shared by all tests."""
  return attribution.compute(method, *setting(name))


def worth_of(trained, table, output, keep):
  """The output with only these elements, by itself."""
  return output.of(trained.logits(keep_elements(table, keep)))


def by_orders(worth, players):
  """Shapley values by their definition: the mean gain over all orders."""
  values = dict.fromkeys(players, 0.0)
  for order in itertools.permutations(players):
    for place, player in enumerate(order):
      gain = worth(order[: place + 1]) - worth(order[:place])
      values[player] += gain / math.factorial(len(players))
  return values


@EVERY_MODEL
class TestShapley:
  def test_of_modalities_are_the_mean_gain_over_all_orders(self, name):
    trained, table, output = setting(name)
    names = list(table.schema.modalities)
    known = {}
    for size in range(len(names) + 1):
      for subset in itertools.combinations(range(len(names)), size):
        keep = np.zeros((len(table), len(names)), bool)
        keep[:, subset] = True
        known[subset] = output.of(trained.logits(keep_modalities(table, keep)))
    want = by_orders(lambda s: known[tuple(sorted(s))], range(len(names)))
    found = computed("shapley", name)
    for index, modality in enumerate(names):
      np.testing.assert_allclose(
        found.modalities[modality], want[index], rtol=1e-4, atol=1e-5
      )

  def test_add_up_to_all_minus_nothing(self, name):
    trained, table, output = setting(name)
    bags = Bags(table)
    every, none = (
      worth_of(trained, table, output, np.full(len(bags.modality), x))
      for x in (True, False)
    )
    for method in ("shapley", "element_shapley"):
      found = computed(method, name)
      total = sum(found.modalities.values())
      np.testing.assert_allclose(total, every - none, atol=1e-4)

  def test_of_elements_are_the_mean_gain_over_all_orders(self, name):
    trained, table, output = setting(name)
    bags = Bags(table)
    row = int(np.flatnonzero(bags.lengths == 3)[0])

    def worth(players):
      keep = np.isin(bags.position, players) & (bags.example == row)
      return worth_of(trained, table, output, keep)[row]

    want = by_orders(worth, range(3))
    found = computed("element_shapley", name)
    got = bags.join(found.elements)[bags.example == row]
    np.testing.assert_allclose(got, [want[i] for i in range(3)], rtol=1e-4, atol=1e-5)
    assert found.error is None  # Sets of at most five elements are exact.


def test_merged_states_give_what_single_evaluations_give(monkeypatch):
  trained, table, output = setting("every pool")
  merged = coalitions.output_of_subsets(trained, table, output)
  monkeypatch.setattr(type(trained.run.model.fusion), "merges", False)
  single = coalitions.output_of_subsets(trained, table, output)
  np.testing.assert_allclose(merged, single, rtol=1e-4, atol=1e-5)
  assert np.ptp(single[0]) > 0


@pytest.mark.parametrize("size", [1, 1000])
def test_how_many_run_together_does_not_matter(monkeypatch, size):
  trained, table, output = setting("concat")
  together = computed("element_shapley", "concat")
  monkeypatch.setattr(coalitions, "_CHUNK", size)
  rows = np.array([0, 3])
  some = table.select(rows)
  apart = attribution.compute("element_shapley", trained, some, output.select(rows))
  bags, fewer = Bags(table), Bags(some)
  want = bags.join(together.elements)[np.isin(bags.example, rows)]
  np.testing.assert_allclose(fewer.join(apart.elements), want, atol=1e-5)


class TestSampledShapley:
  def test_is_near_the_exact_and_adds_up(self, monkeypatch):
    trained, table, output = setting("max")
    exact = computed("element_shapley", "max")
    monkeypatch.setattr(shapley, "MOST_EXACT", 2)
    sampled = shapley.of_elements(trained, table, output, permutations=64)
    bags = Bags(table)
    many = (bags.lengths > 2)[bags.example]
    error = bags.join(sampled.error)
    assert (error[many] > 0).any() and not error[~many].any()
    gap = np.abs(bags.join(sampled.elements) - bags.join(exact.elements))
    # A few of some dozens may lie outside of two standard errors.
    assert np.mean(gap[many] <= 2 * error[many] + 1e-5) > 0.85
    for total in (sum(x.modalities.values()) for x in (sampled, exact)):
      np.testing.assert_allclose(total, sum(exact.modalities.values()), atol=1e-4)

  def test_of_too_many_modalities_needs_permutations(self, monkeypatch):
    trained, table, output = setting("concat")
    exact = computed("shapley", "concat")
    monkeypatch.setattr(shapley, "MOST_EXACT", 1)
    with pytest.raises(
      ValueError, match="4 modalities have 2[*][*]4 subsets.*Set perm"
    ):
      attribution.compute("shapley", trained, table, output)
    with pytest.raises(ValueError, match="permutations is 3.*an even number of"):
      attribution.compute("shapley", trained, table, output, permutations=3)
    sampled = shapley.of_modalities(trained, table, output, permutations=48)
    for modality, values in exact.modalities.items():
      error = sampled.error[modality]
      gap = np.abs(sampled.modalities[modality] - values)
      assert np.all(gap <= 5 * error + 1e-5)


@EVERY_MODEL
def test_leave_one_out_is_the_loss_of_output(name):
  trained, table, output = setting(name)
  found = computed("leave_one_out", name)
  bags = Bags(table)
  everything = np.ones(len(bags.modality), bool)
  full = worth_of(trained, table, output, everything)
  elements = bags.join(found.elements)
  for slot in (0, 5, len(elements) - 1):
    keep = everything.copy()
    keep[slot] = False
    row = bags.example[slot]
    want = full[row] - worth_of(trained, table, output, keep)[row]
    np.testing.assert_allclose(elements[slot], want, rtol=1e-4, atol=1e-5)
  for index, modality in enumerate(table.schema.modalities):
    want = full - worth_of(trained, table, output, bags.modality != index)
    np.testing.assert_allclose(found.modalities[modality], want, 1e-4, 1e-5)


@EVERY_MODEL
class TestGradients:
  def test_are_those_of_the_elements_weights(self, name):
    trained, table, output = setting(name)
    bags = Bags(table)
    found = computed("gradient_x_input", name)
    elements, step = bags.join(found.elements), 1e-2
    for slot in (0, 7, len(elements) - 1):
      ends = []
      for sign in (1, -1):
        weights = np.ones(len(elements))
        weights[slot] += sign * step
        shifted = weighted(table, bags.split(weights))
        ends.append(output.of(trained.logits(shifted))[bags.example[slot]])
      slope = (ends[0] - ends[1]) / (2 * step)
      np.testing.assert_allclose(elements[slot], slope, rtol=0.05, atol=2e-3)

  def test_integrated_along_the_path_add_up_to_its_ends(self, name):
    trained, table, output = setting(name)
    bags = Bags(table)
    found = computed("integrated_gradients", name)
    full, zero = (
      output.of(
        trained.logits(weighted(table, bags.split(np.full(len(bags.modality), x))))
      )
      for x in (1.0, 0.0)
    )
    # With lengths scaled to 1, or by norms, the path jumps at its start, zero vectors.
    loose = {"every pool": 0.5, "set_transformer": 0.1, "single_stream": 0.1}
    loose = loose.get(name, 2e-2)
    total = sum(found.modalities.values())
    np.testing.assert_allclose(total, full - zero, atol=loose)
    np.testing.assert_allclose(found.gap, full - zero - total, atol=1e-5)


@pytest.mark.parametrize("name", ["max", "mean", "concat", "mil"])
@pytest.mark.parametrize("method", ["gradient_x_input", "integrated_gradients"])
def test_gradients_of_an_ordinary_model_are_not_treated_as_zero(name, method):
  table = setting(name)[1]
  found = computed(method, name)
  scores = np.abs(np.stack(list(found.modalities.values()), axis=1))
  some = Bags(table).lengths > 0
  want = (scores[some] / scores[some].sum(axis=1, keepdims=True)).mean(axis=0)
  np.testing.assert_allclose(list(found.shares().values()), want, rtol=1e-12)
  assert sum(want) == pytest.approx(1)
  assert not [note for note in found.notes() if "numerically zero" in note]


class TestGradientsOfAModelThatIgnoresScale:
  @pytest.mark.parametrize("method", ["gradient_x_input", "integrated_gradients"])
  def test_are_rounding_and_have_no_shares(self, method):
    found = computed(method, SCALE_INVARIANT)
    scores = np.abs(np.stack(list(found.modalities.values()), axis=1))
    assert 0 < scores.max() < 1e-5
    assert found.shares() == dict.fromkeys(found.modalities, 0.0)
    (note,) = [note for note in found.notes() if "all scores" in note]
    assert note.startswith(f"{method}: all scores are numerically zero; the output")
    assert "normalize=True" in note

  def test_the_gap_is_all_that_the_output_changes(self):
    trained, table, output = setting(SCALE_INVARIANT)
    found = computed("integrated_gradients", SCALE_INVARIANT)
    zeros = {k: np.zeros(len(v.values)) for k, v in table.modalities.items()}
    ends = [trained.logits(each) for each in (table, weighted(table, zeros))]
    change = output.of(ends[0]) - output.of(ends[1])
    assert np.abs(change[:-1]).min() > 1e-3  # The last has no elements.
    np.testing.assert_allclose(found.gap, change, atol=1e-5)
    size = f"{np.abs(change).mean():.3g}"
    (note,) = [note for note in found.notes() if "add up to" in note]
    assert f"mean size is {size}, but miss it by {size}," in note

  def test_other_methods_have_shares_and_no_gap(self):
    found = computed("shapley", SCALE_INVARIANT)
    assert sum(found.shares().values()) == pytest.approx(1)
    assert found.gap is None and found.notes() == []


def test_of_a_linear_model_integrated_gradients_leave_no_gap():
  config = smoke.get_config("set_pool")
  config.data.digits.update(task="contains_nine", train_examples=64, max_size=5)
  config.data.update(batch_size=64, shards=8, budgets={"image": None})
  config.train.metric = "loss"
  config.model.features = 8
  config.model.head.hidden = ()
  config.model.set_pool.pools = ("sum",)
  run = runs.build_run(config)
  trained = Trained(run, run.init(1).eval_params, 0.5)
  table = few(trained)
  found = attribution.compute("integrated_gradients", trained, table)
  scores = sum(found.modalities.values())
  assert np.abs(scores).mean() > 0.05
  np.testing.assert_allclose(found.gap, 0, atol=1e-5)
  assert found.notes() == []
  other = attribution.compute("gradient_x_input", trained, table)
  np.testing.assert_allclose(sum(other.modalities.values()), scores, atol=1e-5)


@pytest.mark.parametrize(
  ("method", "name"),
  [
    ("argmax", "max"),
    ("attention", "mil"),
    *(pytest.param("attention", n, marks=pytest.mark.slow) for n in ATTENDING),
  ],
)
def test_max_shares_and_attention_add_up_to_one(method, name):
  table = setting(name)[1]
  found = computed(method, name)
  some = Bags(table).lengths > 0
  np.testing.assert_allclose(sum(found.modalities.values()), some, atol=1e-5)
  assert min(x.min() for x in found.elements.values()) >= 0


def test_argmax_counts_the_features_won():
  trained, table, _ = setting("max")
  found = computed("argmax", "max")
  encoders = trained.run.model.bind({"params": trained.params}).encoders
  bags = Bags(table)
  vectors = np.zeros((len(bags.modality), trained.run.config.model.features))
  for index, (name, ragged) in enumerate(table.modalities.items()):
    vectors[bags.modality == index] = encoders[name](ragged, train=False).values
  want = np.zeros(len(vectors))
  for row in range(len(table) - 1):
    own = vectors[bags.example == row]
    won = own == own.max(axis=0)
    want[bags.example == row] = (won / won.sum(axis=0)).mean(axis=1)
  np.testing.assert_allclose(bags.join(found.elements), want, atol=1e-6)


@pytest.mark.parametrize("method", attribution.METHODS)
def test_batch_mates_do_not_matter(method):
  name = "mil" if method == "attention" else "max"
  trained, table, output = setting(name)
  rows = np.array([7, 2, 11])
  found = computed(method, name)
  alone = attribution.compute(method, trained, table.select(rows), output.select(rows))
  for modality, scores in found.modalities.items():
    np.testing.assert_allclose(alone.modalities[modality], scores[rows], atol=1e-5)


@pytest.mark.parametrize("method", attribution.METHODS)
def test_absent_modalities_score_zero(method):
  table = setting("mil" if method == "attention" else "max")[1]
  found = computed(method, "mil" if method == "attention" else "max")
  for modality, scores in found.modalities.items():
    absent = table.lengths(modality) == 0
    assert absent.any() and not scores[absent].any()


class TestResult:
  def test_elements_are_ranked_with_their_place_and_value(self):
    table = setting("max")[1]
    found = computed("leave_one_out", "max")
    ranked = found.ranked(0)
    scores = [element.score for element in ranked]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) > 1
    for element in ranked:
      column = table.modalities[element.modality]
      slot = column.offsets[0] + element.position
      np.testing.assert_array_equal(element.value, column.values[slot])
      assert element.score == pytest.approx(found.elements[element.modality][slot])

  def test_shares_are_means_over_examples_that_count(self):
    table = few(untrained("max"))
    names = list(table.schema.modalities)
    zeros = np.zeros(len(table))
    scores = dict.fromkeys(names, zeros)
    first = zeros.copy()
    first[:2] = 3, -1
    second = zeros.copy()
    second[1] = 3
    scores |= {names[0]: first, names[1]: second}
    shares = result.Attribution("m", table, scores).shares()
    assert shares == dict(zip(names, [0.625, 0.375, 0, 0], strict=True))
    with pytest.raises(ValueError, match="m scores modalities, not elements"):
      result.Attribution("m", table, scores).ranked(0)

  def test_examples_of_rounding_alone_are_left_out_of_shares(self):
    table = few(untrained("max"))
    names = list(table.schema.modalities)
    zeros = np.zeros(len(table))
    first, second = zeros.copy(), zeros.copy()
    first[:3], second[:3] = (3e-8, 3, 0), (1e-8, -1, 1)
    scores = dict.fromkeys(names, zeros) | {names[0]: first, names[1]: second}
    found = result.Attribution("m", table, scores, rounding=np.full(len(table), 4.1e-8))
    want = dict(zip(names, [0.375, 0.625, 0, 0], strict=True))
    assert found.shares() == pytest.approx(want)
    assert found.notes() == [
      "m: the scores of 1 of 12 examples are numerically zero; shares leave these"
      " examples out."
    ]
    exact = dataclasses.replace(found, rounding=None)
    assert exact.shares()[names[0]] == pytest.approx((0.75 + 0.75 + 0) / 3)
    assert exact.notes() == []
    nothing = result.Attribution("m", table, dict.fromkeys(names, zeros))
    assert nothing.notes() == ["m: all scores are zero."]
    assert set(nothing.shares().values()) == {0.0}

  @pytest.mark.parametrize(("gap", "noted"), [(0.04, False), (-0.06, True)])
  def test_a_gap_is_noted_from_a_twentieth_of_the_change_on(self, gap, noted):
    table = few(untrained("max"))
    names = list(table.schema.modalities)
    scores = dict.fromkeys(names, np.full(len(table), (1 - gap) / len(names)))
    gaps = np.full(len(table), gap)
    notes = result.Attribution("m", table, scores, gap=gaps).notes()
    assert len(notes) == noted
    if noted:
      assert "mean size is 1, but miss it by 0.06," in notes[0]

  def test_unknown_ids_are_named(self):
    table = few(untrained("max"))
    assert result.rows_of(table, ["test 3", "test 0"]).tolist() == [3, 0]
    with pytest.raises(ValueError, match="no example 'test 99' among 12.*'test 0'"):
      result.rows_of(table, ["test 0", "test 99"])


class TestOutputs:
  def test_of_several_labels_is_their_mean_logit(self):
    target = outputs.Target("multilabel", 3, ("a", "b", "c"))
    logits = np.array([[1, 2, -3], [-2, -1, -3]], np.float32)
    output = outputs.predicted(target, logits, 0.5)
    # Where none is predicted, what speaks against the most probable one.
    np.testing.assert_allclose(output.of(logits), [1.5, 1])
    assert output.names() == ["a, b", "not b"]

  def test_of_a_class_is_its_log_probability(self):
    target = outputs.Target("multiclass", 2)
    logits = np.array([[0, 1], [5, 5]], np.float32)
    output = outputs.predicted(target, logits, 0.5)
    want = [-np.log1p(np.exp(-1)), -np.log(2)]
    np.testing.assert_allclose(output.of(logits), want, rtol=1e-6)
    np.testing.assert_allclose(output.of(logits + 7), output.of(logits), rtol=1e-5)

  def test_of_a_regression_is_in_the_units_of_the_data(self):
    target = outputs.Target("regression", 2, shift=(3.0, 1.0), scale=(2.0, 0.5))
    logits = np.array([[1, 2], [-1, 4]], np.float32)
    found = losses.probabilities(target, logits)
    np.testing.assert_array_equal(found, [[5, 2], [1, 3]])
    output = outputs.predicted(target, logits, 0.5)
    np.testing.assert_allclose(output.of(logits), found.sum(1) - 4)
    one = outputs.of_label(target, 1, 2)
    np.testing.assert_allclose(one.of(logits), found[:, 1] - 1)

  def test_of_a_binary_target_is_what_speaks_for_the_prediction(self):
    target = outputs.Target("binary", 1)
    logits = np.array([[2], [-3]], np.float32)
    output = outputs.predicted(target, logits[:, 0:1], 0.5)
    np.testing.assert_allclose(output.of(logits), [2, 3])
    assert output.names() == ["yes", "no"]
    named = outputs.Target("binary", 1, ("rare",))
    assert outputs.predicted(named, logits, 0.5).names() == ["rare", "not rare"]

  def test_a_label_may_be_chosen_by_name_or_number(self):
    target = outputs.Target("multilabel", 3, ("a", "b", "c"))
    logits = np.array([[1, 2, 3]], np.float32)
    for label in ("b", 1):
      assert outputs.of_label(target, label, 1).of(logits) == [2]
    with pytest.raises(ValueError, match="no label 'x'; choose from .'a', 'b', 'c'."):
      outputs.of_label(target, "x", 1)


class TestRefusals:
  def test_argmax_of_a_mean_names_what_is_possible(self):
    trained, table, output = setting("mean")
    with pytest.raises(ValueError, match="'max' or 'min'.*'mean'.*Methods.*'shapley'"):
      attribution.compute("argmax", trained, table, output)

  def test_attention_of_a_model_without(self):
    trained, table, output = setting("max")
    with pytest.raises(
      ValueError, match="a fusion with attention.*Methods of this model"
    ):
      attribution.compute("attention", trained, table, output)

  def test_an_unknown_method(self):
    trained, table, output = setting("max")
    with pytest.raises(
      ValueError, match="unknown method 'lime'; choose from .*'shapley'"
    ):
      attribution.compute("lime", trained, table, output)

  def test_no_examples(self):
    trained, table, _ = setting("max")
    with pytest.raises(ValueError, match="no examples to explain"):
      attribution.compute("shapley", trained, table.select(np.zeros(0, int)))

  def test_an_example_of_too_many_elements(self):
    trained, table, output = setting("max")
    many = robustness.repeated(table, 10_000, np.random.default_rng(0))
    for method in ("element_shapley", "leave_one_out"):
      with pytest.raises(ValueError, match="example 'test .*' has .*0000 elements"):
        attribution.compute(method, trained, many, output)


def test_repeated_elements_share_scores_and_leave_one_out_gives_zero():
  trained, table, output = setting("max")
  twins = robustness.repeated(table, 2, np.random.default_rng(0))
  for method in ("argmax", "element_shapley", "leave_one_out"):
    single, double = (
      attribution.compute(method, trained, each, output).elements
      for each in (table, twins)
    )
    for modality, scores in single.items():
      share = 0 if method == "leave_one_out" else scores / 2
      each = double[modality].reshape(-1, 2)
      want = np.broadcast_to(np.reshape(share, (-1, 1)), each.shape)
      np.testing.assert_allclose(each, want, atol=1e-5)
