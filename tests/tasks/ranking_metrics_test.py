import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from deepsets_jax.ragged import from_lengths
from deepsets_jax.tasks.ranking import metrics
from deepsets_jax.tasks.retrieval import metrics as recall_metrics

KS = (3, 10)


@st.composite
def list_sets(draw, most=5):
  """Lists of scores and labels, of which some are empty and many tie."""
  sizes = draw(st.lists(st.integers(0, 15), min_size=1, max_size=8))
  rng = np.random.default_rng(draw(st.integers(0, 2**16)))
  levels = draw(st.sampled_from([2, 6, 10**6]))
  return [(rng.integers(0, levels, n), rng.integers(0, most, n)) for n in sizes]


def of(lists, **settings):
  scores, labels = (np.concatenate(x) for x in zip(*lists, strict=True))
  lengths = np.array([len(x) for x, _ in lists])
  ragged = from_lengths(np.zeros(len(scores)), lengths)
  return metrics.of_lists(scores, labels, ragged, KS, **settings)


def ranks_of(scores):
  """Ranks from 1; ties share their mean rank."""
  better = [(scores > s).sum() + ((scores == s).sum() + 1) / 2 for s in scores]
  return np.array(better)


def ndcg(scores, labels, k):
  """The gain at a rank is the mean of those of the candidates that may have it."""
  gains, order = 2.0**labels - 1, np.sort(scores)[::-1]
  found = best = 0
  for rank in range(min(k, len(scores))):
    discount = 1 / np.log2(rank + 2)
    found += discount * gains[scores == order[rank]].mean()
    best += discount * np.sort(gains)[::-1][rank]
  return found / best if best else None


def mrr(scores, labels, relevant):
  ranks = ranks_of(scores)[labels >= relevant]
  return 1 / ranks.min() if len(ranks) else None


def concordance(scores, labels):
  found = [
    float(a > b) + float(a == b) / 2
    for a, x in zip(scores, labels, strict=True)
    for b, y in zip(scores, labels, strict=True)
    if x > y
  ]
  return np.mean(found) if found else None


def loop(lists, relevant):
  functions = {f"ndcg_{k}": lambda s, y, k=k: ndcg(s, y, k) for k in KS}
  functions |= {
    "ndcg": lambda s, y: ndcg(s, y, 10**6),
    "mrr": lambda s, y: mrr(s, y, relevant),
    "concordance": concordance,
  }
  result = {}
  for name, function in functions.items():
    found = [function(s, y) for s, y in lists]
    found = [x for x in found if x is not None]
    result[name] = np.mean(found) if found else None
  return result


@hypothesis.given(lists=list_sets(), relevant=st.sampled_from([1, 3]))
def test_equals_a_loop_over_lists(lists, relevant):
  want = loop(lists, relevant)
  hypothesis.assume(None not in want.values())
  got = of(lists, relevant=relevant)
  assert list(got) == list(want) == list(metrics.names(KS))
  for name, value in want.items():
    np.testing.assert_allclose(got[name], value, 1e-5, err_msg=name)


@hypothesis.given(lists=list_sets(), seed=st.integers(0, 2**16))
def test_order_of_lists_and_within_them_does_not_matter(lists, seed):
  hypothesis.assume(None not in loop(lists, 1).values())
  rng = np.random.default_rng(seed)
  orders = [rng.permutation(len(s)) for s, _ in lists]
  shuffled = [(s[o], y[o]) for (s, y), o in zip(lists, orders, strict=True)]
  shuffled = [shuffled[i] for i in rng.permutation(len(lists))]
  got = of(shuffled)
  for name, value in of(lists).items():
    np.testing.assert_allclose(got[name], value, 1e-5, err_msg=name)


@hypothesis.given(seed=st.integers(0, 2**16), ties=st.booleans())
def test_agrees_with_the_metrics_of_retrieval_for_one_target(seed, ties):
  rng = np.random.default_rng(seed)
  lists, ranks = [], []
  for size in rng.integers(2, 16, 8):
    scores = rng.integers(0, 4, size) if ties else rng.permutation(size)
    wanted = rng.integers(size)
    lists.append((scores, np.arange(size) == wanted))
    ranks.append(ranks_of(scores)[wanted] - 1)
  got = of(lists)
  want = recall_metrics.of_ranks(np.array(ranks), np.ones(8, int), KS)
  # There what ties has the discount of the mean of its ranks.
  for name in ("mrr",) if ties else ("ndcg_3", "ndcg_10", "mrr"):
    np.testing.assert_allclose(got[name], want[name], 1e-5, err_msg=name)
  # The area under the curve of one positive is the share of others below it.
  sizes = np.array([len(scores) for scores, _ in lists])
  np.testing.assert_allclose(
    got["concordance"], np.mean(1 - np.array(ranks) / (sizes - 1)), 1e-5
  )


@pytest.mark.parametrize("longest", [300, 1100])
def test_chunks_do_not_matter(longest):
  # Lists of several chunks, and one that is longer than a chunk.
  rng = np.random.default_rng(0)
  sizes = [longest, 400, 0, 200, 300, 1, 250, 0]
  lists = [(rng.integers(0, 50, n), rng.integers(0, 5, n)) for n in sizes]
  want = loop(lists, 1)
  for name, value in of(lists).items():
    np.testing.assert_allclose(value, want[name], 1e-4, err_msg=name)


def test_a_list_in_order_has_value_one_and_its_reverse_does_not():
  labels = np.array([4, 3, 3, 1, 0])
  np.testing.assert_allclose([*of([(labels, labels)]).values()], 1, 1e-6)
  got = of([(-labels, labels)], relevant=4)
  assert got["mrr"] == pytest.approx(1 / 5) and got["concordance"] == 0


@pytest.mark.parametrize(
  ("scores", "labels", "message"),
  [
    ([1.0, np.nan], [1, 0], "list 0, candidate 1: the score is nan"),
    ([1.0, 2.0], [1, -1], "list 0, candidate 1: the label is -1.0; .* at least 0"),
    ([], [], "no candidates"),
    ([1.0, 2.0], [0, 0], "'ndcg_3' is not defined on any list"),
    ([1.0, 2.0], [2, 2], "'concordance' is not defined on any list"),
  ],
)
def test_lists_without_a_metric_are_named(scores, labels, message):
  with pytest.raises(ValueError, match=message):
    of([(np.array(scores), np.array(labels))])


def test_scores_that_do_not_match_the_lists_are_refused():
  lists = from_lengths(np.zeros(3), np.array([1, 2]))
  with pytest.raises(ValueError, match="2 scores and 3 labels do not match the 3"):
    metrics.of_lists(np.zeros(2), np.zeros(3), lists)
