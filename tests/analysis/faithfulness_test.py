import dataclasses

import jax
import numpy as np
import pytest
import sklearn.metrics
from scipy import stats

from deepsets_jax.analysis.attribution import faithfulness, result
from deepsets_jax.data.tables.ablation import Bags
from deepsets_jax.data.tables.schema import Target
from tests.analysis.models_trained import few, untrained


def attribution_of(table, scores):
  return result.of_elements("m", table, Bags(table).split(scores))


class TestAuc:
  def test_of_elements_is_the_mean_over_examples_that_can_be_judged(self):
    table = few(untrained("max"))
    bags, rng = Bags(table), np.random.default_rng(0)
    scores = rng.normal(size=len(bags.modality))
    truth = rng.random(len(scores)) < 0.4
    want = []
    for row in range(len(table)):
      own = bags.example == row
      if truth[own].any() and not truth[own].all():
        want.append(sklearn.metrics.roc_auc_score(truth[own], scores[own]))
    assert 2 <= len(want) < len(table)
    found = attribution_of(table, scores)
    got = faithfulness.auc_of_elements(found, bags.split(truth))
    assert got == pytest.approx(np.mean(want))

  def test_is_nan_where_nothing_can_be_judged(self):
    table = few(untrained("max"))
    bags = Bags(table)
    found = attribution_of(table, np.ones(len(bags.modality)))
    truth = bags.split(np.ones(len(bags.modality), bool))
    assert np.isnan(faithfulness.auc_of_elements(found, truth))

  def test_of_modalities_is_of_those_that_are_there(self):
    table = few(untrained("max"))
    bags = Bags(table)
    truth = bags.split(bags.modality == 1)  # The profile decides.
    columns = {
      name: np.full(len(table), float(name == "profile"))
      for name in table.schema.modalities
    }
    right = result.Attribution("m", table, columns)
    wrong = result.Attribution("m", table, {k: -v for k, v in columns.items()})
    assert faithfulness.auc_of_modalities(right, truth) == 1
    assert faithfulness.auc_of_modalities(wrong, truth) == 0

  def test_of_elements_from_modalities_gives_each_element_its_modality_s_score(self):
    table = few(untrained("max"))
    bags = Bags(table)
    columns = {
      name: np.full(len(table), float(i))
      for i, name in enumerate(table.schema.modalities)
    }
    scores = faithfulness.scores_of(result.Attribution("m", table, columns), bags)
    np.testing.assert_array_equal(scores, bags.modality)


class TestRemoval:
  def setting(self):
    trained = untrained("max")
    # Larger parameters, so that the sets and not the head's bias decide.
    params = jax.tree.map(lambda x: 4 * x, trained.params)
    trained = dataclasses.replace(trained, params=params)
    table = trained.run.tables["test"].select(np.arange(60))
    # What the model says of everything is right, so that less can only be worse.
    right = trained.logits(table).argmax(axis=1).astype(np.int32)
    return trained, dataclasses.replace(table, targets=right)

  def test_ends_are_everything_and_nothing(self):
    trained, table = self.setting()
    scores = np.random.default_rng(0).normal(size=len(Bags(table).modality))
    away = faithfulness.deletion(trained, table, scores)
    back = faithfulness.insertion(trained, table, scores)
    assert away.values[0] == back.values[-1] == 1
    assert away.values[-1] == back.values[0] < 1
    assert away.metric == "accuracy"

  def test_each_step_takes_the_highest_scores_of_each_example(self, monkeypatch):
    trained, table = self.setting()
    bags = Bags(table)
    scores = np.random.default_rng(0).normal(size=len(bags.modality))
    kept = []
    tally = faithfulness.tally
    monkeypatch.setattr(
      faithfulness, "tally", lambda t, part: kept.append(part) or tally(t, part)
    )
    faithfulness.deletion(trained, table, scores, (0.0, 0.5, 1.0))
    for row in (0, 7):
      own = np.flatnonzero(bags.example == row)
      left = own[np.argsort(-scores[own])][int(np.rint(0.5 * len(own))) :]
      for index, (name, ragged) in enumerate(table.modalities.items()):
        mine = left[bags.modality[left] == index]
        slots = (
          mine
          - np.flatnonzero((bags.example == row) & (bags.modality == index))[:1].sum()
          if len(mine)
          else mine
        )
        want = ragged.to_lists()[row][np.sort(slots)]
        np.testing.assert_array_equal(kept[1].modalities[name].to_lists()[row], want)

  def test_bands_hold_the_curve_and_areas_are_those_of_trapezoids(self):
    trained, table = self.setting()
    scores = np.random.default_rng(0).normal(size=len(Bags(table).modality))
    curve = faithfulness.deletion(trained, table, scores, (0.0, 0.25, 1.0))
    v = curve.values
    assert curve.area == pytest.approx((v[0] + v[1]) / 8 + (v[1] + v[2]) * 3 / 8)
    assert np.all((curve.lower <= v) & (v <= curve.upper))
    assert curve.area_band[0] < curve.area < curve.area_band[1]

  def test_micro_f1_and_error_are_scikit_learns(self):
    rng = np.random.default_rng(0)
    truth, guess = rng.random((2, 40, 5)) < 0.4
    parts = [(truth & guess).sum(1), guess.sum(1), truth.sum(1)]
    tallies = np.stack(parts, axis=1)[None].astype(float)
    target = Target("multilabel", 5)
    curve = faithfulness.summarise(tallies, target, np.zeros(1), seed=0)
    want = sklearn.metrics.f1_score(truth, guess, average="micro")
    assert curve.values[0] == pytest.approx(want) and curve.metric == "f1_micro"


class TestAgreement:
  def test_is_one_with_itself_and_minus_one_with_its_reverse(self):
    table = few(untrained("max"))
    scores = np.random.default_rng(0).normal(size=len(Bags(table).modality))
    pair = [attribution_of(table, scores), attribution_of(table, -(scores**3))]
    np.testing.assert_allclose(faithfulness.agreement(pair), [[1, -1], [-1, 1]])

  def test_is_the_mean_rank_correlation_of_examples(self):
    table = few(untrained("max"))
    bags, rng = Bags(table), np.random.default_rng(0)
    # With ties.
    first, second = np.round(rng.normal(size=(2, len(bags.modality))), 0)
    want = []
    for row in range(len(table)):
      a, b = first[bags.example == row], second[bags.example == row]
      if len(a) >= 3 and np.ptp(a) > 0 and np.ptp(b) > 0:
        want.append(stats.spearmanr(a, b).statistic)
    pair = [attribution_of(table, x) for x in (first, second)]
    assert faithfulness.agreement(pair)[0, 1] == pytest.approx(np.mean(want))
