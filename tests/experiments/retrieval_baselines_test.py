import numpy as np
import pytest

from deepsets_jax.data.datasets import movielens
from deepsets_jax.data.interactions import catalog
from deepsets_jax.data.interactions.histories import leave_out, of_events
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation import cache
from deepsets_jax.ragged import from_lists
from experiments.results import retrieval_baselines as baselines

WHEEL = cache.folder("wheels") / movielens.RECBOLE.file
# A cosine of several pairs of items below.
ROOT = 2 / 6**0.5


def make_table(count):
  return Table(
    Schema({"word": Modality("tokens", 1)}, Target("none", 0)),
    {"word": from_lists([[]] * count, dtype=np.int32)},
    np.zeros((count, 0), np.float32),
    np.arange(count).astype(np.str_),
  )


def make(lists, items):
  """Histories of one list of item rows for each user, in this order."""
  log = [(u, i, time) for u, rows in enumerate(lists) for time, i in enumerate(rows)]
  users, rows, times = np.array(log).T
  return of_events(
    make_table(len(lists)), make_table(items), users, rows, times, where="log"
  )[0]


# Item 3 was never seen, and user 3 has no history.
TINY = make([[0, 1, 2], [0, 1], [2, 0], []], items=4)


def scores(baseline, users, histories=TINY, **options):
  found = baseline(histories, histories.offsets[1:], **options)(np.array(users))
  assert found.dtype == np.float32
  return found


def assert_close(found, want):
  np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-7)


class TestByHand:
  def test_popularity_is_the_number_of_events(self):
    assert_close(scores(baselines.popularity, [3, 1]), [[3, 2, 2, 0]] * 2)

  def test_item_knn_sums_cosines(self):
    # The cosine of items 1 and 2, which have one of their two users in common, is 1/2.
    want = [[ROOT, ROOT, ROOT + 0.5, 0], [0, 0, 0, 0]]
    assert_close(scores(baselines.item_knn, [1, 3]), want)

  def test_only_the_nearest_neighbours_of_an_item_count(self):
    # Items 1 and 2 are equally similar to item 0; item 1 comes first.
    want = [[ROOT, ROOT, 0, 0]]
    assert_close(scores(baselines.item_knn, [1], neighbours=1), want)

  def test_an_item_clicked_twice_counts_once_for_its_similarity(self):
    twice = make([[0, 1, 2, 0], [0, 1, 1], [2, 0], []], items=4)
    want = scores(baselines.item_knn, [0, 1, 2])
    assert_close(scores(baselines.item_knn, [0, 1, 2], twice), want)

  def test_recent_items_have_larger_weights(self):
    want = [[1.8 * ROOT, 0.64 * ROOT + 0.5, 0.64 * ROOT + 0.4, 0]]
    assert_close(scores(baselines.recent_item_knn, [0]), want)

  def test_rules_lead_from_the_earlier_item_to_the_later(self):
    # From 0 to 1 twice at distance 1, and to 2 once at 2; from 1 to 2; from 2 to 0.
    want = [[0, 1, 1 + 0.5 * 0.5, 0], [0.5, 0, 0, 0]]
    got = scores(baselines.sequence_rules, [1, 3])
    assert_close(got, [want[0], [0, 0, 0, 0]])
    got = scores(baselines.sequence_rules, [2])
    assert_close(got, [[0.5 * 1, 2, 0.5, 0]])

  def test_a_window_bounds_the_rules_and_the_history(self):
    got = scores(baselines.sequence_rules, [0, 1], window=1)
    assert_close(got, [[1, 0, 0, 0], [0, 0, 1, 0]])

  def test_the_confidence_of_the_rules_of_an_item_adds_up_to_1(self):
    # From item 0: 2 to 1 and 1/2 to 2.
    got = scores(baselines.sure_sequence_rules, [1, 3])
    assert_close(got, [[0, 0.8 * 0.8, 1 + 0.8 * 0.2, 0], [0, 0, 0, 0]])

  def test_ease_is_a_ridge_regression_of_each_item_by_the_others(self):
    clicks = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0] * 4], float)
    want = np.zeros((4, 4))
    for item in range(4):
      others = [i for i in range(4) if i != item]
      x, y = clicks[:, others], clicks[:, item]
      weights = np.linalg.solve(x.T @ x + 0.7 * np.eye(3), x.T @ y)
      want[:, item] = x @ weights
    assert_close(scores(baselines.ease, range(4), penalty=0.7), want)


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_events_after_the_known_ones_have_no_effect(name):
  longer = make([[0, 1, 2, 3, 3], [0, 1, 2], [2, 0], [1]], items=4)
  ends = longer.offsets[:-1] + TINY.lengths()
  got = baselines.BASELINES[name](longer, ends)(np.arange(4))
  want = baselines.BASELINES[name](TINY, TINY.offsets[1:])(np.arange(4))
  np.testing.assert_array_equal(got, want)


def histories_of_ten():
  """Ten users who have each seen nine of ten items; the tenth is their target."""
  lists = [[*range(u), *range(u + 1, 10), 10 + u, 20 + u, u] for u in range(10)]
  return make(lists, items=130)


def test_every_baseline_ranks_all_items_and_100_sampled_ones():
  histories = histories_of_ten()
  found = baselines.evaluate(histories, leave_out(histories)[0]["test"])
  assert list(found) == list(baselines.BASELINES)
  # The target has 9 events, every other unseen item at most one.
  assert found["popularity"]["hr_10"] == found["popularity"]["mrr"] == 1
  assert found["popularity"]["sampled_ndcg_10"] == 1


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_table_is_that_of_a_split_of_movielens(split, monkeypatch):
  data = catalog.ItemCatalog(histories_of_ten(), np.array([]), {})
  monkeypatch.setattr(
    movielens, "load_movielens", lambda path: data if path == "a.whl" else None
  )
  lines = baselines.movielens_table("a.whl", split).splitlines()
  assert len(lines) == 2 + len(baselines.BASELINES)
  assert lines[0].startswith("| model | HR@10 | NDCG@10 | MRR |")
  # The validation target is an item that no other user has clicked.
  found = {"validation": "0.000", "test": "1.000"}[split]
  assert lines[2].startswith(f"| popularity | {found} | {found} |")


@pytest.mark.skipif(not WHEEL.is_file(), reason=f"{WHEEL.name} is not in the cache")
def test_the_metrics_on_movielens_are_the_known_ones():
  """HR and NDCG at 10, ranking all items."""
  histories = movielens.load_movielens().histories
  found = baselines.evaluate(histories, leave_out(histories)[0]["test"])
  want = {
    "popularity": (0.086, 0.044),
    "item-kNN, cosine": (0.106, 0.055),
    "EASE, lambda 200": (0.143, 0.073),
    "item-kNN, recency .8^j": (0.165, 0.089),
    "sequence rules, window 10": (0.193, 0.100),
    "sequence rules, confidence, recency .8^j": (0.209, 0.115),
  }
  for name, values in found.items():
    got = (values["hr_10"], values["ndcg_10"])
    # One of 943 users, since another processor may round scores to a tie.
    np.testing.assert_allclose(got, want[name], atol=0.0016, err_msg=name)
