"""What counting and linear algebra reach at recall: the table to be beaten.

  python -m experiments.results.retrieval_baselines --split=test

Leave-one-out on MovieLens 100K: the last film of each user is to be found among all
films but its earlier ones, and, the weaker protocol, among 100 random ones. A baseline
is fitted on the events known of all users: for "test" with the targets of "validation",
which are in the past then. A baseline is a function of histories and of where the known
events of each user end; it gives a function from rows of users to the scores of all
items, `[q, items]` float32, higher for better. Matrices of `[items, items]` are dense:
for tens of thousands of items, not for millions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse
from absl import flags

from deepsets_jax.data.datasets import movielens
from deepsets_jax.data.interactions.histories import Histories, Split, leave_out
from deepsets_jax.tasks.retrieval import metrics, ranks
from experiments import command

Scores = Callable[[np.ndarray], np.ndarray]

# The most similar items that an item speaks for, found by matching figures known before
# for the test part, not on validation; and events that a rule reaches over.
NEIGHBOURS = 100
WINDOW = 10


def popularity(histories: Histories, ends: np.ndarray) -> Scores:
  """The number of known events of the item, the same for every user."""
  counts = histories.popularity(ends).astype(np.float32)
  return lambda users: np.tile(counts, (len(users), 1))


def item_knn(
  histories: Histories, ends: np.ndarray, *, neighbours: int = NEIGHBOURS
) -> Scores:
  """The sum of the similarities of the user's items to the item.

  The cosine of the users of two items, zero beyond an item's nearest neighbours
  (Deshpande and Karypis, "Item-based top-N recommendation algorithms", 2004; theirs are
  normalised besides).
  """
  clicks, similar = _clicks(histories, ends), _similarities(histories, ends, neighbours)
  return lambda users: (clicks[users] @ similar).astype(np.float32)


def recent_item_knn(histories: Histories, ends: np.ndarray) -> Scores:
  """As `item_knn`, an event weighing .8 to the number of events since.

  Ding and Li, "Time weight collaborative filtering" (2005), by events instead of days.
  """
  similar = _similarities(histories, ends, NEIGHBOURS)
  return _through(_weigher(histories, ends, _decayed), similar)


def ease(histories: Histories, ends: np.ndarray, *, penalty: float = 200) -> Scores:
  """The user's items times the linear model of items by other items, in closed form.

  Steck, "Embarrassingly shallow autoencoders for sparse data" (2019), equation 8;
  `penalty` is its lambda.
  """
  clicks = _clicks(histories, ends)
  gram = (clicks.T @ clicks).toarray()
  gram[np.diag_indices_from(gram)] += penalty
  inverse = np.linalg.inv(gram)
  weights = inverse / -np.diag(inverse)
  np.fill_diagonal(weights, 0)
  return lambda users: (clicks[users] @ weights).astype(np.float32)


def sequence_rules(
  histories: Histories, ends: np.ndarray, *, window: int = WINDOW
) -> Scores:
  """The sum of the rules from the user's last items to the item.

  A rule from one item to a later one weighs the sum over all histories of 1 / distance,
  at distances up to `window`: "SR" of Kamehkhosh, Jannach and Ludewig, "A comparison of
  frequent pattern techniques and a deep learning method for session-based
  recommendation" (2017), and of Ludewig and Jannach, "Evaluation of session-based
  recommendation algorithms" (2018). Theirs fire from the last item alone. Here they do
  from each of the last `window`, weighed by 1 / distance once more, which finds more.
  """
  weigh = _weigher(histories, ends, lambda back: (back < window) / (back + 1))
  return _through(weigh, _rules(histories, ends, window))


def sure_sequence_rules(histories: Histories, ends: np.ndarray) -> Scores:
  """As `sequence_rules`, each by its confidence, and from all items of the user.

  The confidence is the share of the weight of all rules from the item (Agrawal,
  Imielinski and Swami, "Mining association rules", 1993); an event of the user weighs
  .8 to the number of events since. Of nine forms of rules the best on validation.
  """
  rules = _rules(histories, ends, WINDOW)
  total = rules.sum(axis=1, keepdims=True)
  confidence = rules / np.where(total, total, 1)
  return _through(_weigher(histories, ends, _decayed), confidence)


BASELINES = {
  "popularity": popularity,
  "item-kNN, cosine": item_knn,
  "EASE, lambda 200": ease,
  "item-kNN, recency .8^j": recent_item_knn,
  "sequence rules, window 10": sequence_rules,
  "sequence rules, confidence, recency .8^j": sure_sequence_rules,
}


def _clicks(histories: Histories, ends: np.ndarray) -> scipy.sparse.csr_matrix:
  """1 where a user is known to have seen an item: `[users, items]` float64."""
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
  """Cosines `[items, items]`; in each row the largest `neighbours`, the others 0.

  0 of an item with itself, and with one never seen. Of equal ones the earlier row.
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
  """The weights of the rules from an item to a later one: `[items, items]`."""
  items = histories.items_between(histories.offsets[:-1], ends)
  users = np.repeat(np.arange(items.num_examples), items.lengths)
  size = len(histories.items)
  rules = np.zeros((size, size))
  for distance in range(1, window + 1):
    there = users[distance:] == users[:-distance]
    pairs = (items.values[:-distance][there], items.values[distance:][there])
    weights = np.full(there.sum(), 1 / distance)
    # Pairs that are there several times add up.
    rules += scipy.sparse.coo_matrix((weights, pairs), shape=rules.shape).toarray()
  return rules


def _decayed(back: np.ndarray) -> np.ndarray:
  return 0.8**back


def _weigher(
  histories: Histories, ends: np.ndarray, weight: Callable[[np.ndarray], np.ndarray]
) -> Callable[[np.ndarray], scipy.sparse.csr_matrix]:
  """From rows of users to the weights of their known items, `[q, items]`.

  `weight` is of the number of known events since: 0 for the last one.
  """

  def weigh(users: np.ndarray) -> scipy.sparse.csr_matrix:
    items = histories.items_between(histories.offsets[:-1][users], ends[users])
    last = np.repeat(items.offsets[1:] - 1, items.lengths)
    weights = weight(last - np.arange(len(last)))
    shape = (len(users), len(histories.items))
    return scipy.sparse.csr_matrix((weights, items.values, items.offsets), shape=shape)

  return weigh


def _through(
  weigh: Callable[[np.ndarray], scipy.sparse.csr_matrix], items: np.ndarray
) -> Scores:
  return lambda users: (weigh(users) @ items).astype(np.float32)


def evaluate(histories: Histories, split: Split) -> dict[str, dict[str, float]]:
  """The metrics of every baseline, full ranking and, as "sampled_...", among 100.

  Returns:
    By name, see `metrics.of_ranks` at 10.
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


def markdown(results: dict[str, dict[str, float]]) -> str:
  """The table of `evaluate`, in Markdown."""
  columns = {
    "HR@10": "hr_10",
    "NDCG@10": "ndcg_10",
    "MRR": "mrr",
    "HR@10, 100 neg.": "sampled_hr_10",
    "NDCG@10, 100 neg.": "sampled_ndcg_10",
  }
  lines = [["model", *columns], ["---"] * (len(columns) + 1)]
  for name, values in results.items():
    numbers = [f"{values[key]:.3f}".lstrip("0") for key in columns.values()]
    lines.append([name, *numbers])
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table(path: str | None, split: str) -> str:
  """The table of MovieLens 100K; a path of None downloads the data."""
  histories = movielens.load_movielens(path).histories
  return markdown(evaluate(histories, leave_out(histories)[0][split]))


def main(argv: list[str]) -> None:
  """Prints the table of one split."""
  command.no_arguments(argv)
  print(table(flags.FLAGS.path, flags.FLAGS.split))


def define_flags() -> None:
  """The flags of the command line; here, so that the rest can be imported."""
  flags.DEFINE_string("path", None, "File of MovieLens 100K; by default it is fetched.")
  flags.DEFINE_enum("split", "test", ["validation", "test"], "What is to be found.")


if __name__ == "__main__":
  define_flags()
  command.run(main)
