"""Baselines of ranking by rating: counts and linear models.

  python -m experiments.results.ranking_baselines --split=test

The last tenth of the ratings of each user of MovieLens 100K, in time, is a list to be
put in the order of the ratings; see `data.interactions.lists.last_part`. A baseline is
fitted on the known ratings of all users; for "test" these include the lists of
"validation", which lie in the past.

A baseline is a function (histories, ends) -> scores. `ends` has the end of each user's
known events, as a position in the histories. `scores` maps rows of users and rows of
items, pair by pair, to the scores of the pairs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from deepsets_jax.data.datasets import movielens
from deepsets_jax.data.interactions.histories import Histories, Split
from deepsets_jax.data.interactions.lists import RatingLists, last_part
from deepsets_jax.data.tables.table import element_slots
from deepsets_jax.ragged import Ragged
from deepsets_jax.tasks.ranking import metrics
from experiments.results import baselines, tables
from experiments.results.retrieval_baselines import ease_weights

Scores = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Number of first positions that NDCG@10 counts.
_CUT = 10
# Head of a column -> metric.
COLUMNS = {
  f"NDCG@{_CUT}": f"ndcg_{_CUT}",
  "NDCG": "ndcg",
  "MRR, liked": "mrr",
  "concordance": "concordance",
}


def popularity(histories: Histories, ends: np.ndarray) -> Scores:
  """Score an item by the number of its known events."""
  counts = histories.popularity(ends)
  return lambda users, items: counts[items]


def mean_rating(
  histories: Histories, ends: np.ndarray, *, shrinkage: float = 5
) -> Scores:
  """Score an item by its mean rating, shrunk towards the mean of all ratings.

  `shrinkage` is the number of added ratings that equal the mean of all.
  """
  _, items, ratings = _known(histories, ends)
  totals = np.bincount(items, ratings - ratings.mean(), len(histories.items))
  means = totals / (np.bincount(items, minlength=len(totals)) + shrinkage)
  return lambda users, items: means[items]


def biases(histories: Histories, ends: np.ndarray, *, penalty: float = 5) -> Scores:
  """Score an item by its bias in a ridge regression of ratings on users and items.

  Koren, "Factor in the Neighbors" (2010), equation 1, solved exactly. The user's own
  bias is left out, since it is the same for the whole list. A bias is better than a
  mean for items whose users rate lower, or higher, than others.
  """
  return _linear(histories, ends, penalty)[0]


def residual_knn(
  histories: Histories, ends: np.ndarray, *, penalty: float = 5, ridge: float = 100
) -> Scores:
  """Add a linear prediction from the user's other residuals to `biases`.

  The prediction has `ease_weights` that are fitted to residuals instead of clicks.
  """
  bias, residuals = _linear(histories, ends, penalty)
  found = residuals @ ease_weights(residuals.T @ residuals, ridge)
  return lambda users, items: bias(users, items) + found[users, items]


BASELINES = {
  "popularity": popularity,
  "mean rating, shrunk by 5": mean_rating,
  "biases of users and films, ridge 5": biases,
  "biases, and residuals by EASE, lambda 100": residual_knn,
}


def random_order(labels: np.ndarray, lists: Ragged, relevant: float) -> dict:
  """Compute the exact mean of `metrics.of_lists` over all orders of the lists."""
  found = {name: [] for name in metrics.names((_CUT,))}
  for some in np.split(labels, lists.offsets[1:-1]):
    gains, count = np.sort(np.exp2(some) - 1)[::-1], len(some)
    discounts = 1 / np.log2(np.arange(count) + 2)
    if gains.sum():
      for name, cut in ((f"ndcg_{_CUT}", _CUT), ("ndcg", count)):
        best = gains[:cut] @ discounts[:cut]
        found[name].append(gains.mean() * discounts[:cut].sum() / best)
    if good := int(np.sum(some >= relevant)):
      # Probability that the first r candidates are all irrelevant.
      none = [
        math.comb(count - r, good) / math.comb(count, good) for r in range(count + 1)
      ]
      found["mrr"].append(-np.diff(none) @ (1 / np.arange(1, count + 1)))
    if np.ptp(some):
      found["concordance"].append(0.5)
  return {name: float(np.mean(values)) for name, values in found.items()}


def evaluate(histories: Histories, split: Split) -> dict[str, dict[str, float]]:
  """Evaluate every baseline: name -> metrics of `metrics.of_lists`."""
  ends = split.ends(histories)
  source = RatingLists(histories, ends, max_history=1, list_size=1, seed=0)
  lists, labels = source.between(split.known_ends, split.target_ends)
  users = np.repeat(split.user_rows, lists.lengths)
  measure = functools.partial(
    metrics.of_lists, labels=labels, lists=lists, ks=(_CUT,), relevant=source.liked
  )
  found = {"random order": random_order(labels, lists, source.liked)}
  for name, baseline in BASELINES.items():
    found[name] = measure(baseline(histories, ends)(users, lists.values))
  return found


def _known(
  histories: Histories, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """User rows, item rows and ratings of the known events."""
  begins = histories.offsets[:-1]
  items = histories.items_between(begins, ends)
  slots = element_slots(begins, ends - begins, items.offsets)
  users = np.repeat(np.arange(len(begins)), ends - begins)
  return users, items.values, histories.ratings[slots].astype(np.float64)


def _linear(
  histories: Histories, ends: np.ndarray, penalty: float
) -> tuple[Scores, np.ndarray]:
  """Item biases as scores, and residuals `[users, items]`, 0 without a rating."""
  users, items, ratings = _known(histories, ends)
  num_users, num_items = len(histories.users), len(histories.items)
  given = np.zeros((num_users, num_items))
  given[users, items] = 1
  wanted = np.zeros_like(given)
  wanted[users, items] = ratings - ratings.mean()
  # Normal equations of users and items. Users are eliminated, as their block is
  # diagonal.
  of_users = given.sum(axis=1) + penalty
  shared = given / of_users[:, None]
  left = np.diag(given.sum(axis=0) + penalty) - given.T @ shared
  of_items = np.linalg.solve(left, wanted.sum(axis=0) - shared.T @ wanted.sum(axis=1))
  levels = (wanted.sum(axis=1) - given @ of_items) / of_users
  residuals = given * (wanted - levels[:, None] - of_items)
  return lambda users, items: of_items[items], residuals


def movielens_table(path: str | None, split: str) -> str:
  """Tabulate all baselines on MovieLens 100K; without a path the data is downloaded."""
  histories = movielens.load_movielens(path).histories
  results = evaluate(histories, last_part(histories)[0][split])
  rows = tables.score_rows(results, COLUMNS.values())
  return tables.markdown_table(["model", *COLUMNS], rows)


if __name__ == "__main__":
  baselines.run(movielens_table)
