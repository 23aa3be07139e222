import math

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import ndcg_score

from deepsets_jax.tasks.retrieval import metrics


@st.composite
def rank_lists(draw):
  """Ranks of each user's targets, with halves; some users have none."""
  rank = st.integers(0, 40).map(lambda x: x / 2)
  lists = draw(st.lists(st.lists(rank, max_size=6), min_size=1, max_size=6))
  return lists if any(lists) else [*lists, [0.5]]


def of_ranks_loop(lists, k):
  lists = [ranks for ranks in lists if ranks]
  hr, ndcg, recall, mrr = [], [], [], []
  for ranks in lists:
    found = [rank for rank in ranks if rank < k]
    best = sum(1 / math.log2(place + 2) for place in range(min(len(ranks), k)))
    hr.append(len(found) > 0)
    ndcg.append(min(1, sum(1 / math.log2(rank + 2) for rank in found) / best))
    recall.append(len(found) / len(ranks))
    mrr.append(1 / (min(ranks) + 1))
  names = (f"hr_{k}", f"ndcg_{k}", f"recall_{k}", "mrr")
  return dict(zip(names, map(np.mean, (hr, ndcg, recall, mrr)), strict=True))


@hypothesis.given(rank_lists(), st.sampled_from([(1, 5), (3,), (20, 10)]))
def test_metrics_of_ranks_equal_a_loop(lists, ks):
  got = metrics.of_ranks(np.concatenate(lists), [len(x) for x in lists], ks)
  want = {}
  for k in ks:
    want |= of_ranks_loop(lists, k)
  assert got.keys() == want.keys()
  for name, value in want.items():
    assert got[name] == pytest.approx(value), name


def test_ndcg_equals_scikit_learn():
  rng = np.random.default_rng(0)
  scores = rng.normal(size=(30, 25))
  relevant = rng.uniform(size=scores.shape) < 0.3
  relevant[:, 0] = True
  places = np.argsort(np.argsort(-scores, axis=1), axis=1)
  for k in (1, 10, 25):
    got = metrics.of_ranks(places[relevant], relevant.sum(axis=1), (k,))
    assert got[f"ndcg_{k}"] == pytest.approx(ndcg_score(relevant, scores, k=k))


def test_metrics_equal_rax():
  rax = pytest.importorskip("rax")
  rng = np.random.default_rng(1)
  scores = rng.normal(size=(30, 25)).astype(np.float32)
  relevant = rng.uniform(size=scores.shape) < 0.1
  relevant[:, 0] = True
  places = np.argsort(np.argsort(-scores, axis=1), axis=1)
  got = metrics.of_ranks(places[relevant], relevant.sum(axis=1))
  labels = relevant.astype(np.float32)
  with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
    want = {
      "ndcg_10": rax.ndcg_metric(scores, labels, topn=10),
      "recall_10": rax.recall_metric(scores, labels, topn=10),
      "mrr": rax.mrr_metric(scores, labels),
    }
  for name, value in want.items():
    assert got[name] == pytest.approx(float(value), rel=1e-5), name


def test_a_tie_across_the_end_of_the_list_is_found():
  got = metrics.of_ranks([9.5, 10, 10.5], [1, 1, 1])
  assert got["hr_10"] == got["recall_10"] == pytest.approx(1 / 3)
  assert got["ndcg_10"] == pytest.approx(1 / math.log2(11.5) / 3)


def test_tied_targets_have_at_most_the_gain_of_the_best_order():
  assert metrics.of_ranks([0.5, 0.5], [2], (1,))["ndcg_1"] == 1


def test_bad_ranks_are_refused():
  for error, args in (
    ("lengths add up to 3; expected 2", ([0, 1], [3])),
    ("no targets", ([], [0, 0])),
    ("rank of target 1 is -1.0", ([0, -1], [2])),
    ("rank of target 0 is nan", ([np.nan], [1])),
    ("ks is .10, 0.", ([0], [1], (10, 0))),
  ):
    with pytest.raises(ValueError, match=error):
      metrics.of_ranks(*args)


def of_lists_loop(rows, popularity):
  i, k = len(popularity), rows.shape[1]
  shown = [row for user in rows for row in user if row >= 0]
  counts = [shown.count(item) for item in range(i)]
  percentiles = [
    stats.percentileofscore(popularity, value, kind="mean") / 100
    for value in popularity
  ]
  lists = [[row for row in user if row >= 0] for user in rows]
  lists = [rows for rows in lists if rows]
  differences = [abs(a - b) for a in counts for b in counts]
  return {
    f"coverage_{k}": len(set(shown)) / i,
    f"arp_{k}": np.mean([np.mean([popularity[r] for r in rows]) for rows in lists]),
    f"popularity_{k}": np.mean(
      [np.mean([percentiles[r] for r in rows]) for rows in lists]
    ),
    f"gini_{k}": np.mean(differences) / (2 * np.mean(counts)),
  }


@hypothesis.given(st.integers(0, 2**16))
def test_metrics_of_lists_equal_a_loop(seed):
  rng = np.random.default_rng(seed)
  rows = np.stack([rng.permutation(12)[:4] for _ in range(6)])
  rows[rng.uniform(size=rows.shape) < 0.3] = -1
  rows[0], rows[1, 0] = -1, 3
  popularity = rng.integers(0, 5, 12)
  got, want = metrics.of_lists(rows, popularity), of_lists_loop(rows, popularity)
  assert got.keys() == want.keys()
  for name, value in want.items():
    assert got[name] == pytest.approx(value), name


def test_lists_of_everything_are_even():
  got = metrics.of_lists(np.tile(np.arange(5), (3, 1)), np.arange(5) ** 2)
  assert got == pytest.approx(
    {"coverage_5": 1, "arp_5": 6, "popularity_5": 0.5, "gini_5": 0}
  )


def test_one_item_for_all_is_most_uneven():
  got = metrics.of_lists(np.full((3, 1), 4), np.arange(5))
  assert got == pytest.approx(
    {"coverage_1": 0.2, "arp_1": 4, "popularity_1": 0.9, "gini_1": 0.8}
  )


def test_bad_lists_are_refused():
  for error, rows in (
    ("list of user 1: item row 5 is not in 0 to 4", [[0], [5]]),
    ("list of user 0: item row -2", [[-2], [0]]),
    ("all lists are empty", [[-1], [-1]]),
  ):
    with pytest.raises(ValueError, match=error):
      metrics.of_lists(np.array(rows), np.arange(5))
