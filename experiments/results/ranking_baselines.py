"""What counting and linear algebra reach at ranking by rating: the table to be beaten.

  python -m experiments.results.ranking_baselines --split=test

The last tenth of the ratings of each user of MovieLens 100K, in time, is a list to be
put in the order of the ratings; see `list_sources.last_part`. A baseline is fitted on
the ratings known of all users: for "test" with the lists of "validation", which are in
the past then. It is a function of histories and of where the known events of each user
end; it gives a function from rows of users and items, pair by pair, to scores.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from absl import flags

from deepsets_jax.data.datasets import movielens
from deepsets_jax.data.interactions.histories import Histories, Split
from deepsets_jax.data.interactions.lists import RatingLists, last_part
from deepsets_jax.data.tables.table import element_slots
from deepsets_jax.ragged import Ragged
from deepsets_jax.tasks.ranking import metrics
from experiments import command

Scores = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Places of a list at which it is cut.
_CUT = 10


def popularity(histories: Histories, ends: np.ndarray) -> Scores:
  """The number of known events of the item."""
  counts = histories.popularity(ends)
  return lambda users, items: counts[items]


def mean_rating(
  histories: Histories, ends: np.ndarray, *, shrinkage: float = 5
) -> Scores:
  """The mean rating of the item, with so many more ratings of the mean of all."""
  _, items, ratings = _known(histories, ends)
  totals = np.bincount(items, ratings - ratings.mean(), len(histories.items))
  means = totals / (np.bincount(items, minlength=len(totals)) + shrinkage)
  return lambda users, items: means[items]


def biases(histories: Histories, ends: np.ndarray, *, penalty: float = 5) -> Scores:
  """The item's part in a ridge regression of ratings on who rates and what.

  Koren, "Factor in the Neighbors" (2010), equation 1, solved exactly. What is the
  user's own part is the same for all of its list. It does better than a mean where the
  users of an item are harsher than others.
  """
  return _linear(histories, ends, penalty)[0]


def residual_knn(
  histories: Histories, ends: np.ndarray, *, penalty: float = 5, ridge: float = 100
) -> Scores:
  """As `biases`, and what the user's other residuals say of the item, linearly.

  The weights between items are those of Steck, "Embarrassingly shallow autoencoders for
  sparse data" (2019), equation 8, of residuals in place of clicks; `ridge` is its
  lambda.
  """
  bias, residuals = _linear(histories, ends, penalty)
  gram = residuals.T @ residuals
  gram[np.diag_indices_from(gram)] += ridge
  inverse = np.linalg.inv(gram)
  weights = inverse / -np.diag(inverse)
  np.fill_diagonal(weights, 0)
  found = residuals @ weights
  return lambda users, items: bias(users, items) + found[users, items]


BASELINES = {
  "popularity": popularity,
  "mean rating, shrunk by 5": mean_rating,
  "biases of users and films, ridge 5": biases,
  "biases, and residuals by EASE, lambda 100": residual_knn,
}


def random_order(labels: np.ndarray, lists: Ragged, relevant: float) -> dict:
  """The expectation of `metrics.of_lists` of lists in random order, exact."""
  found = {name: [] for name in metrics.names((_CUT,))}
  for some in np.split(labels, lists.offsets[1:-1]):
    gains, count = np.sort(np.exp2(some) - 1)[::-1], len(some)
    discounts = 1 / np.log2(np.arange(count) + 2)
    if gains.sum():
      for name, cut in ((f"ndcg_{_CUT}", _CUT), ("ndcg", count)):
        best = gains[:cut] @ discounts[:cut]
        found[name].append(gains.mean() * discounts[:cut].sum() / best)
    if good := int(np.sum(some >= relevant)):
      # Chances that the first so many candidates are all of the others.
      none = [
        math.comb(count - r, good) / math.comb(count, good) for r in range(count + 1)
      ]
      found["mrr"].append(-np.diff(none) @ (1 / np.arange(1, count + 1)))
    if np.ptp(some):
      found["concordance"].append(0.5)
  return {name: float(np.mean(values)) for name, values in found.items()}


def evaluate(histories: Histories, split: Split) -> dict[str, dict[str, float]]:
  """The metrics of every baseline, by name; see `metrics.of_lists`."""
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


def markdown(results: dict[str, dict[str, float]]) -> str:
  """The table of `evaluate`, in Markdown."""
  columns = {
    f"NDCG@{_CUT}": f"ndcg_{_CUT}",
    "NDCG": "ndcg",
    "MRR, liked": "mrr",
    "concordance": "concordance",
  }
  lines = [["model", *columns], ["---"] * (len(columns) + 1)]
  for name, values in results.items():
    numbers = [f"{values[key]:.3f}".lstrip("0") for key in columns.values()]
    lines.append([name, *numbers])
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _known(
  histories: Histories, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Users, items and ratings of the known events."""
  begins = histories.offsets[:-1]
  items = histories.items_between(begins, ends)
  slots = element_slots(begins, ends - begins, items.offsets)
  users = np.repeat(np.arange(len(begins)), ends - begins)
  return users, items.values, histories.ratings[slots].astype(np.float64)


def _linear(
  histories: Histories, ends: np.ndarray, penalty: float
) -> tuple[Scores, np.ndarray]:
  """The items' biases, and what biases leave of ratings, `[users, items]`, else 0."""
  users, items, ratings = _known(histories, ends)
  num_users, num_items = len(histories.users), len(histories.items)
  given = np.zeros((num_users, num_items))
  given[users, items] = 1
  wanted = np.zeros_like(given)
  wanted[users, items] = ratings - ratings.mean()
  # The normal equations of both, users solved for first: theirs are diagonal.
  of_users = given.sum(axis=1) + penalty
  shared = given / of_users[:, None]
  left = np.diag(given.sum(axis=0) + penalty) - given.T @ shared
  of_items = np.linalg.solve(left, wanted.sum(axis=0) - shared.T @ wanted.sum(axis=1))
  levels = (wanted.sum(axis=1) - given @ of_items) / of_users
  residuals = given * (wanted - levels[:, None] - of_items)
  return lambda users, items: of_items[items], residuals


def table(path: str | None, split: str) -> str:
  """The table of MovieLens 100K; a path of None downloads the data."""
  histories = movielens.load_movielens(path).histories
  return markdown(evaluate(histories, last_part(histories)[0][split]))


def main(argv: list[str]) -> None:
  """Prints the table of one split."""
  command.no_arguments(argv)
  print(table(flags.FLAGS.path, flags.FLAGS.split))


def define_flags() -> None:
  """The flags of the command line; here, so that the rest can be imported."""
  flags.DEFINE_string("path", None, "File of MovieLens 100K; by default it is fetched.")
  flags.DEFINE_enum("split", "test", ["validation", "test"], "What is to be ranked.")


if __name__ == "__main__":
  define_flags()
  command.run(main)
