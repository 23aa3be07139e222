"""Evaluation of retrieval, given the vectors of users and items."""

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
  """Compute the metrics of full ranking, and of the lists at the largest cutoff.

  Args:
    users: Vectors of the users.
    items: Vectors of all items.
    targets: Item rows that each user should find.
    known: Item rows that each user has seen before, which are left out.
    popularity: Number of training events of each item.
    cutoffs: Lengths of lists, see `metrics.of_ranks`.
    among: Ascending rows of the items to rank; None for all items.
  """
  if among is not None:
    items, popularity = items[among], popularity[among]
    targets, known = _positions(targets, among), _positions(known, among)
  found = ranks.of_vectors(users, items, targets, known)
  lists = nearest.nearest(users, items, min(max(cutoffs), len(items)), known)[1]
  return {
    **metrics.of_ranks(found, np.diff(targets.offsets), cutoffs),
    **metrics.of_lists(lists, popularity),
  }


def _positions(rows: Ragged, among: Int[np.ndarray, "a"]) -> Ragged:
  """Lists of item rows as positions in `among`; other rows are left out."""
  kept = take_elements(rows, np.isin(rows.values, among))
  return kept.replace(values=np.searchsorted(among, kept.values))
