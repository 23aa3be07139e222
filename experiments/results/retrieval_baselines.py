"""Baselines of retrieval: counts, neighbourhoods and linear models.

  python -m experiments.results.retrieval_baselines --split=test

Leave-one-out on MovieLens 100K: the last film of each user is the target. It is ranked
among all films that the user has not seen before and, as a weaker protocol, among 100
random ones. A baseline is fitted on the known events of all users; for "test" these
include the targets of "validation", which lie in the past.

A baseline is a function (histories, ends) -> scores. `ends` has the end of each user's
known events, as a position in the histories. `scores` maps rows of users `[q]` to the
scores of all items, `[q, items]` float32; higher is better. Matrices `[items, items]`
are dense, which suits tens of thousands of items, not millions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse

from deepsets_jax.data.datasets import movielens
from deepsets_jax.data.interactions.histories import Histories, Split, leave_out
from deepsets_jax.tasks.retrieval import metrics, ranks
from experiments.results import baselines, tables

Scores = Callable[[np.ndarray], np.ndarray]

# Number of most similar items per item. It was chosen to match figures that were known
# for the test part, not on validation.
NEIGHBOURS = 100
# Largest distance, in events, between the two items of a sequence rule.
WINDOW = 10
_COLUMNS = {
  "HR@10": "hr_10",
  "NDCG@10": "ndcg_10",
  "MRR": "mrr",
  "HR@10, 100 neg.": "sampled_hr_10",
  "NDCG@10, 100 neg.": "sampled_ndcg_10",
}


def popularity(histories: Histories, ends: np.ndarray) -> Scores:
  """Score an item by the number of its known events, the same for every user."""
  counts = histories.popularity(ends).astype(np.float32)
  return lambda users: np.tile(counts, (len(users), 1))


def item_knn(
  histories: Histories, ends: np.ndarray, *, neighbours: int = NEIGHBOURS
) -> Scores:
  """Score an item by the sum of its similarities to the user's items.

  The similarity is the cosine between the users of two items, and zero beyond an item's
  nearest neighbours: Deshpande and Karypis, "Item-based top-N recommendation
  algorithms" (2004), without their normalisation of similarities.
  """
  clicks, similar = _clicks(histories, ends), _similarities(histories, ends, neighbours)
  return lambda users: (clicks[users] @ similar).astype(np.float32)


def recent_item_knn(histories: Histories, ends: np.ndarray) -> Scores:
  """Weight the events of `item_knn` by .8 to the power of the number of later events.

  Ding and Li, "Time weight collaborative filtering" (2005), by events instead of days.
  """
  similar = _similarities(histories, ends, NEIGHBOURS)
  return _item_to_item(_weigher(histories, ends, _decayed), similar)


def ease(histories: Histories, ends: np.ndarray, *, penalty: float = 200) -> Scores:
  """Score items by a linear model of each item given the others: `ease_weights`."""
  clicks = _clicks(histories, ends)
  weights = ease_weights((clicks.T @ clicks).toarray(), penalty)
  return lambda users: (clicks[users] @ weights).astype(np.float32)


def ease_weights(gram: np.ndarray, penalty: float) -> np.ndarray:
  """Weights `[items, items]` of the linear model of each item given the others.

  Steck, "Embarrassingly shallow autoencoders for sparse data" (2019), equation 8.

  Args:
    gram: Gram matrix `[items, items]` of the columns of items; it is changed.
    penalty: The ridge penalty, lambda of the paper.
  """
  gram[np.diag_indices_from(gram)] += penalty
  inverse = np.linalg.inv(gram)
  weights = inverse / -np.diag(inverse)
  np.fill_diagonal(weights, 0)
  return weights


def sequence_rules(
  histories: Histories, ends: np.ndarray, *, window: int = WINDOW
) -> Scores:
  """Score an item by the sum of the rules from the user's last items to it.

  The weight of a rule from one item to a later one is the sum of 1 / distance over all
  histories, at distances up to `window`: "SR" of Kamehkhosh, Jannach and Ludewig, "A
  comparison of frequent pattern techniques and a deep learning method for session-based
  recommendation" (2017), and of Ludewig and Jannach, "Evaluation of session-based
  recommendation algorithms" (2018). They apply the rules of the last item only. Here
  the rules of each of the last `window` items apply, multiplied by 1 / distance once
  more, which finds more targets.
  """
  weigh = _weigher(histories, ends, lambda back: (back < window) / (back + 1))
  return _item_to_item(weigh, _rules(histories, ends, window))


def sure_sequence_rules(histories: Histories, ends: np.ndarray) -> Scores:
  """Score items by the confidence of `sequence_rules`, from all items of the user.

  The confidence of a rule is its share of the weight of all rules from the same item
  (Agrawal, Imielinski and Swami, "Mining association rules", 1993). The weight of an
  event is .8 to the power of the number of later events. This was the best of nine
  forms of rules on validation.
  """
  rules = _rules(histories, ends, WINDOW)
  total = rules.sum(axis=1, keepdims=True)
  confidence = rules / np.where(total, total, 1)
  return _item_to_item(_weigher(histories, ends, _decayed), confidence)


BASELINES = {
  "popularity": popularity,
  "item-kNN, cosine": item_knn,
  "EASE, lambda 200": ease,
  "item-kNN, recency .8^j": recent_item_knn,
  "sequence rules, window 10": sequence_rules,
  "sequence rules, confidence, recency .8^j": sure_sequence_rules,
}


def _clicks(histories: Histories, ends: np.ndarray) -> scipy.sparse.csr_matrix:
  """Matrix `[users, items]` float64: 1 for every item a user is known to have seen."""
  items = histories.items_between(histories.offsets[:-1], ends)
  shape = (items.num_examples, len(histories.items))
  ones = np.ones(len(items.values))
  clicks = scipy.sparse.csr_matrix((ones, items.values, items.offsets), shape=shape)
  clicks.sum_duplicates()
  clicks.data[:] = 1
  return clicks


def _similarities(
  histories: Histories, ends: np.ndarray, neighbours: int
) -> np.ndarray:
  """Cosines `[items, items]`, the largest `neighbours` of each row; the others are 0.

  An item has 0 with itself and with items that were never seen. Of equal cosines the
  one of the earlier column stays.
  """
  clicks = _clicks(histories, ends)
  common = (clicks.T @ clicks).toarray()
  norms = np.sqrt(np.diag(common))
  cosines = common / np.maximum(norms[:, None] * norms, 1)
  np.fill_diagonal(cosines, 0)
  farther = np.argsort(-cosines, axis=1, kind="stable")[:, neighbours:]
  np.put_along_axis(cosines, farther, 0, axis=1)
  return cosines


def _rules(histories: Histories, ends: np.ndarray, window: int) -> np.ndarray:
  """Weights `[items, items]` of the rules from an item (row) to a later one."""
  items = histories.items_between(histories.offsets[:-1], ends)
  users = np.repeat(np.arange(items.num_examples), items.lengths)
  size = len(histories.items)
  rules = np.zeros((size, size))
  for distance in range(1, window + 1):
    there = users[distance:] == users[:-distance]
    pairs = (items.values[:-distance][there], items.values[distance:][there])
    weights = np.full(there.sum(), 1 / distance)
    # Equal pairs add up.
    rules += scipy.sparse.coo_matrix((weights, pairs), shape=rules.shape).toarray()
  return rules


def _decayed(back: np.ndarray) -> np.ndarray:
  return 0.8**back


def _weigher(
  histories: Histories, ends: np.ndarray, weight: Callable[[np.ndarray], np.ndarray]
) -> Callable[[np.ndarray], scipy.sparse.csr_matrix]:
  """Return a function: rows of users `[q]` -> weights of their known items.

  The result is `[q, items]`. `weight` maps the number of later known events, 0 for the
  last event, to the weight of an event.
  """

  def weigh(users: np.ndarray) -> scipy.sparse.csr_matrix:
    items = histories.items_between(histories.offsets[:-1][users], ends[users])
    last = np.repeat(items.offsets[1:] - 1, items.lengths)
    weights = weight(last - np.arange(len(last)))
    shape = (len(users), len(histories.items))
    return scipy.sparse.csr_matrix((weights, items.values, items.offsets), shape=shape)

  return weigh


def _item_to_item(
  weigh: Callable[[np.ndarray], scipy.sparse.csr_matrix], items: np.ndarray
) -> Scores:
  return lambda users: (weigh(users) @ items).astype(np.float32)


def evaluate(histories: Histories, split: Split) -> dict[str, dict[str, float]]:
  """Evaluate every baseline, ranking all items and 100 sampled ones.

  Returns:
    Name -> metrics of `metrics.of_ranks` at 10; those among 100 sampled items have the
    prefix "sampled_".
  """
  ends = split.ends(histories)
  targets, seen = split.targets(histories), split.known(histories)
  found = {}
  for name, baseline in BASELINES.items():
    scores = baseline(histories, ends)(split.user_rows)
    full = ranks.of_scores(scores, targets, seen)
    sampled = ranks.among_sampled(scores, targets, seen, user_rows=split.user_rows)
    found[name] = metrics.of_ranks(full, targets.lengths, ks=(10,))
    weaker = metrics.of_ranks(sampled, targets.lengths, ks=(10,))
    found[name] |= {f"sampled_{key}": value for key, value in weaker.items()}
  return found


def movielens_table(path: str | None, split: str) -> str:
  """Tabulate all baselines on MovieLens 100K; without a path the data is downloaded."""
  histories = movielens.load_movielens(path).histories
  results = evaluate(histories, leave_out(histories)[0][split])
  rows = tables.score_rows(results, _COLUMNS.values())
  return tables.markdown_table(["model", *_COLUMNS], rows)


if __name__ == "__main__":
  baselines.run(movielens_table)
