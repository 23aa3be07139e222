"""The metrics of recall, given the vectors of users and items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from deepsets_jax.data.tables.table import take_elements
from deepsets_jax.ragged import Ragged
from deepsets_jax.tasks.retrieval import metrics, nearest, ranks


def evaluate(
  users: Float[np.ndarray, "q d"],
  items: Float[np.ndarray, "i d"],
  targets: Ragged,
  known: Ragged,
  popularity: Int[np.ndarray, "i"],
  cutoffs: Sequence[int],
  among: Int[np.ndarray, "a"] | None = None,
) -> dict[str, float]:
  """The metrics of full ranking, and of the lists at the largest cutoff.

  Args:
    users: Vectors.
    items: Vectors of all items.
    targets: Rows of the items that each user is to find.
    known: Rows of the items that each is known to have come to, which are left out.
    popularity: Training events of each item.
    cutoffs: See `metrics.of_ranks`.
    among: Rows of the items to find the targets among, increasing; None for all.
  """
  if among is not None:
    items, popularity = items[among], popularity[among]
    targets, known = _places(targets, among), _places(known, among)
  found = ranks.of_vectors(users, items, targets, known)
  lists = nearest.nearest(users, items, min(max(cutoffs), len(items)), known)[1]
  return {
    **metrics.of_ranks(found, np.diff(targets.offsets), cutoffs),
    **metrics.of_lists(lists, popularity),
  }


def _places(rows: Ragged, among: Int[np.ndarray, "a"]) -> Ragged:
  """Lists of rows as places in `among`; a row that is not there is left out."""
  kept = take_elements(rows, np.isin(rows.values, among))
  return kept.replace(values=np.searchsorted(among, kept.values))
