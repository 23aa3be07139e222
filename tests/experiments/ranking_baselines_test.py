import itertools

import numpy as np
import pytest

from deepsets_jax.data.datasets import movielens
from deepsets_jax.data.interactions.lists import last_part
from deepsets_jax.foundation import cache
from deepsets_jax.ragged import from_lengths
from deepsets_jax.tasks.ranking import metrics
from experiments.results import ranking_baselines as baselines
from tests.data.interactions.rated import make_histories

WHEEL = cache.folder("wheels") / movielens.RECBOLE.file


def known():
  """Histories, the ends of the known events, and these events one by one."""
  histories = make_histories(users=20)
  split = last_part(histories)[0]["test"]
  ends = split.ends(histories)
  events = [
    (user, histories.rows[i], float(histories.ratings[i]))
    for user in range(20)
    for i in range(histories.offsets[user], ends[user])
  ]
  return histories, ends, events


def scores_of_items(baseline, histories, ends):
  items = np.arange(len(histories.items))
  return baseline(histories, ends)(np.zeros(len(items), int), items)


def test_random_order_is_the_mean_over_all_orders():
  lists = [np.array([4, 0, 2, 2]), np.array([1, 0, 3]), np.array([0, 0]), np.array([3])]
  labels = np.concatenate(lists).astype(np.float64)
  ragged = from_lengths(labels, np.array([len(x) for x in lists]))
  got = baselines.random_order(labels, ragged, relevant=2)
  found = {}
  for one in lists:
    orders = []
    for order in itertools.permutations(range(len(one))):
      # A second list, in perfect order, adds 1 to the sum of every metric.
      both = from_lengths(np.zeros(len(one) + 2), np.array([len(one), 2]))
      whole = metrics.of_lists(
        np.append(order, [1, 0]), np.append(one, [2, 0]), both, relevant=2
      )
      orders.append(whole)
    counts = {
      "ndcg_10": one.any(),
      "ndcg": one.any(),
      "mrr": (one >= 2).any(),
      "concordance": np.ptp(one) > 0,
    }
    for name, there in counts.items():
      if there:
        mean = np.mean([2 * whole[name] - 1 for whole in orders])
        found.setdefault(name, []).append(mean)
  assert set(got) == set(found)
  for name, values in found.items():
    assert got[name] == pytest.approx(np.mean(values), abs=1e-5), name


def test_equal_scores_are_as_good_as_a_random_order():
  rng = np.random.default_rng(0)
  lengths = np.array([3, 30, 12])
  labels = rng.integers(0, 5, 45).astype(np.float64)
  lists = from_lengths(labels, lengths)
  want = baselines.random_order(labels, lists, relevant=3)
  got = metrics.of_lists(np.zeros(45), labels, lists, relevant=3)
  for name in ("ndcg_10", "ndcg", "concordance"):
    assert got[name] == pytest.approx(want[name], abs=1e-5), name


def test_popularity_and_mean_ratings_agree_with_a_loop():
  histories, ends, events = known()
  popular = scores_of_items(baselines.popularity, histories, ends)
  means = scores_of_items(baselines.mean_rating, histories, ends)
  overall = np.mean([rating for *_, rating in events])
  for row in range(len(histories.items)):
    own = [rating for _, item, rating in events if item == row]
    assert popular[row] == len(own)
    want = sum(r - overall for r in own) / (len(own) + 5)
    np.testing.assert_allclose(means[row], want, 1e-9, 1e-12)


def test_biases_agree_with_a_ridge_regression():
  histories, ends, events = known()
  users, items, ratings = (np.array(x) for x in zip(*events, strict=True))
  columns = np.zeros((len(events), 20 + len(histories.items)))
  columns[np.arange(len(events)), users] = 1
  columns[np.arange(len(events)), 20 + items] = 1
  gram = columns.T @ columns + 5 * np.eye(columns.shape[1])
  want = np.linalg.solve(gram, columns.T @ (ratings - ratings.mean()))
  got = scores_of_items(baselines.biases, histories, ends)
  np.testing.assert_allclose(got, want[20:], 1e-6, 1e-9)


def test_residuals_find_the_preferences_of_users():
  histories = make_histories(users=100, longest=24)
  split = last_part(histories)[0]["test"]
  found = baselines.evaluate(histories, split)
  *others, residuals = (x["concordance"] for x in found.values())
  assert len(others) == 4 and max(others) < 0.65 and residuals > 0.9


@pytest.mark.skipif(not WHEEL.exists(), reason="MovieLens 100K was not fetched")
def test_the_table_of_movielens_has_the_known_numbers():
  rows = baselines.movielens_table(None, "test").splitlines()
  cells = [[c.strip() for c in row.strip("|").split("|")] for row in rows[2:]]
  # NDCG@10 and concordance.
  assert {row[0]: (row[1], row[4]) for row in cells} == {
    "random order": ("0.783", "0.500"),
    "popularity": ("0.828", "0.579"),
    "mean rating, shrunk by 5": ("0.866", "0.657"),
    "biases of users and films, ridge 5": ("0.868", "0.664"),
    "biases, and residuals by EASE, lambda 100": ("0.870", "0.671"),
  }
