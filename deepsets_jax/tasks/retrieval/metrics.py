"""Metrics of retrieval, from the ranks of targets and from the recommended lists.

Axes besides the usual: `q` users, `i` items, `t` targets of all users.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.stats
from jaxtyping import Float, Int, Shaped

from deepsets_jax.foundation.errors import ConfigError


def of_ranks(
  ranks: Float[np.ndarray, "t"],
  lengths: Int[np.ndarray, "q"],
  ks: Sequence[int] = (10,),
) -> dict[str, float]:
  """Compute metrics of the ranks of targets, averaged over users.

  * "hr_10", the hit rate: whether any target of the user is among the first 10.
  * "recall_10": share of the user's targets among the first 10. With one target it is
    the hit rate.
  * "ndcg_10": discounted gain of the targets, 1 / log2(rank + 2) each, over that of the
    best order (Järvelin and Kekäläinen, 2002). It is capped at 1, which more than 10
    tied targets would exceed.
  * "mrr": 1 / (rank + 1) of the user's best target, at any rank.

  Args:
    ranks: Ranks from 0, one user after the other. Ties may give halves; a target is
      among the first `k` if its rank is below `k`.
    lengths: Number of targets of each user. Users without targets do not count.
    ks: Lengths of the list.

  Raises:
    ConfigError: The lengths do not add up to the number of ranks, there is no target, a
      rank is negative or not finite, or a `k` is below 1.
  """
  ranks, lengths = np.asarray(ranks, np.float64), np.asarray(lengths)
  if lengths.sum() != len(ranks):
    raise ConfigError(
      f"lengths add up to {lengths.sum()}; expected {len(ranks)}, one per rank"
    )
  if not len(ranks):
    raise ConfigError("there are no targets to average over; is the split empty?")
  bad = ~(np.isfinite(ranks) & (ranks >= 0))
  if bad.any():
    place = int(np.argmax(bad))
    raise ConfigError(f"rank of target {place} is {ranks[place]}; expected at least 0")
  if min(ks, default=1) < 1:
    raise ConfigError(f"ks is {tuple(ks)}; expected at least 1 each")
  lengths = lengths[lengths > 0]
  begins = np.cumsum(lengths) - lengths
  result = {}
  for k in ks:
    found = ranks < k
    hits = np.add.reduceat(found, begins, dtype=np.int64)
    gains = np.add.reduceat(np.where(found, 1 / np.log2(ranks + 2), 0), begins)
    best = np.cumsum(1 / np.log2(np.arange(k) + 2))[np.minimum(lengths, k) - 1]
    result[f"hr_{k}"] = float(np.mean(hits > 0))
    result[f"ndcg_{k}"] = float(np.mean(np.minimum(gains / best, 1)))
    result[f"recall_{k}"] = float(np.mean(hits / lengths))
  return result | {"mrr": float(np.mean(1 / (np.minimum.reduceat(ranks, begins) + 1)))}


def of_lists(
  rows: Int[np.ndarray, "q k"], popularity: Shaped[np.ndarray, "i"]
) -> dict[str, float]:
  """Compute coverage and popularity of recommended lists.

  The names end with the length of the lists:

  * "coverage_10": share of all items that are in any list.
  * "arp_10", the average recommendation popularity: mean popularity of a user's list,
    averaged over users (Yin et al., "Challenging the Long Tail Recommendation", 2012).
  * "popularity_10": the same for the percentile of the popularity, which is comparable
    between data sets. The percentile of an item is the share of less popular items plus
    half the share of equally popular ones, itself included. Random lists have 0.5.
  * "gini_10": Gini coefficient of the number of times that items are recommended. It is
    0 if all are recommended equally often, and near 1 if only few are (Fleder and
    Hosanagar, 2009).

  Args:
    rows: Item rows recommended to each user; -1 for no item. Users without items do not
      count.
    popularity: Popularity of each item, such as its number of training events.

  Raises:
    ConfigError: An item row is out of range, or all lists are empty.
  """
  rows, popularity = np.asarray(rows), np.asarray(popularity, np.float64)
  num_items = len(popularity)
  bad = np.argwhere((rows < -1) | (rows >= num_items))
  if len(bad):
    user, place = bad[0]
    raise ConfigError(
      f"list of user {user}: item row {rows[user, place]} is not in 0 to"
      f" {num_items - 1}; use -1 for no item"
    )
  shown = rows >= 0
  lengths = shown.sum(axis=1)
  if not lengths.any():
    raise ConfigError("all lists are empty: there is nothing to average")

  def mean(values):
    listed = np.where(shown, values[rows], 0).sum(axis=1)
    return float(np.mean(listed[lengths > 0] / lengths[lengths > 0]))

  counts = np.bincount(rows[shown], minlength=num_items)
  values = {
    "coverage": float(np.mean(counts > 0)),
    "arp": mean(popularity),
    "popularity": mean(_percentiles(popularity)),
    "gini": _gini(counts),
  }
  return {f"{name}_{rows.shape[1]}": value for name, value in values.items()}


def _percentiles(values: Float[np.ndarray, "i"]) -> Float[np.ndarray, "i"]:
  """Percentiles from 0 to 1: `scipy.stats.percentileofscore` of kind "mean"."""
  return (scipy.stats.rankdata(values) - 0.5) / len(values)


def _gini(counts: Int[np.ndarray, "i"]) -> float:
  """Half the mean absolute difference of the counts of two items, over their mean."""
  n = len(counts)
  weights = 2 * np.arange(1, n + 1) - n - 1
  return float(np.sum(weights * np.sort(counts)) / (n * counts.sum()))
