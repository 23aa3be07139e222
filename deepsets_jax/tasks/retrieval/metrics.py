"""Metrics of recall, from ranks of what was to be found and from the lists shown.

Axes besides the usual: `q` users, `i` items, `t` targets of all users.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from deepsets_jax.foundation.errors import ConfigError


def of_ranks(
  ranks: Float[np.ndarray, "t"],
  lengths: Int[np.ndarray, "q"],
  ks: Sequence[int] = (10,),
) -> dict[str, float]:
  """How well targets were found, as means over users.

  "hr_10": whether any target of the user is among the first 10 (hit rate). "recall_10":
  the share of the user's targets there. "ndcg_10": their discounted gain, 1 / log2(rank
  + 2) each, over that of the best order (Järvelin and Kekäläinen, 2002), at most 1,
  which more than 10 targets that tie would pass. "mrr": 1 / (rank + 1) of the user's
  best target, not cut. With one target, recall is the hit rate.

  Args:
    ranks: From 0, a user's after another's; with halves from ties, and found among `k`
      if less than `k`.
    lengths: Number of targets of each user. Users without any do not count.
    ks: Lengths of the list.

  Raises:
    ConfigError: Lengths that do not add up, no target at all, a rank that is negative
      or not finite, or a `k` of less than 1.
  """
  ranks, lengths = np.asarray(ranks, np.float64), np.asarray(lengths)
  if lengths.sum() != len(ranks):
    raise ConfigError(f"lengths add up to {lengths.sum()}, and there are {len(ranks)}")
  if not len(ranks):
    raise ConfigError("no targets: there is nothing to average; is the split empty?")
  bad = ~(np.isfinite(ranks) & (ranks >= 0))
  if bad.any():
    place = int(np.argmax(bad))
    raise ConfigError(f"rank {ranks[place]} of target {place}: expected 0 or more")
  if min(ks, default=1) < 1:
    raise ConfigError(f"ks are {tuple(ks)}: expected at least 1 each")
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
  """What of the catalogue is shown, and how popular it is; names end with `k`.

  "coverage_10": the share of items that are in any list. "arp_10": the average
  recommendation popularity, the mean over users of the mean popularity of their list
  (Yin et al., "Challenging the Long Tail Recommendation", 2012). "popularity_10": the
  same of percentiles, 0 to 1, which compares over data sets: the share of items that
  are less popular, plus half of that of the equally popular, itself included; random
  lists have .5. "gini_10": the inequality of how often items are shown, 0 if all
  equally often, near 1 if few alone (Fleder and Hosanagar, 2009).

  Args:
    rows: Items shown to each user; -1 is none. A user without any does not count.
    popularity: Number of known events of each item, say.

  Raises:
    ConfigError: A row that no item has, or no item in any list.
  """
  rows, popularity = np.asarray(rows), np.asarray(popularity, np.float64)
  num_items = len(popularity)
  bad = np.argwhere((rows < -1) | (rows >= num_items))
  if len(bad):
    user, place = bad[0]
    raise ConfigError(
      f"list of user {user}: item row {rows[user, place]}, and there are {num_items}"
      " items; -1 is no item"
    )
  shown = rows >= 0
  lengths = shown.sum(axis=1)
  if not lengths.any():
    raise ConfigError("no list has an item: there is nothing to average")

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
  """Scipy's `percentileofscore` of kind "mean", over 100."""
  ordered = np.sort(values)
  sides = [np.searchsorted(ordered, values, side=side) for side in ("left", "right")]
  return np.mean(sides, axis=0) / len(values)


def _gini(counts: Int[np.ndarray, "i"]) -> float:
  """Half the mean absolute difference of two items' counts, over the mean count."""
  n = len(counts)
  weights = 2 * np.arange(1, n + 1) - n - 1
  return float(np.sum(weights * np.sort(counts)) / (n * counts.sum()))
