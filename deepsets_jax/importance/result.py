"""Importance: a score per example of every modality and of every element."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from deepsets_jax.data.ablation import Bags
from deepsets_jax.data.table import Table


class Element(NamedTuple):
  """One element of an example, and what it counts.

  Attributes:
    modality: Its name.
    position: Its place among the example's elements of the modality, from 0.
    value: The token id, or the vector.
    score: Of what was explained; of which sign and unit, see the method.
  """

  modality: str
  position: int
  value: int | np.ndarray
  score: float


@dataclasses.dataclass(frozen=True)
class Importance:
  """What each part of each example of a table counts, by one method.

  Attributes:
    method: Its name.
    table: The examples explained. Elements are those of its columns, in their order.
    modalities: By modality, `[b]`; 0 where it is absent.
    elements: By modality, `[n]`; None of a method that tells modalities only.
    error: Of a sampled method, the standard errors of its finer scores, in their
      form; None of an exact one.
  """

  method: str
  table: Table
  modalities: Mapping[str, np.ndarray]
  elements: Mapping[str, np.ndarray] | None = None
  error: Mapping[str, np.ndarray] | None = None

  def shares(self) -> dict[str, float]:
    """Of the data set: the mean share of each modality, without sign.

    In an example the absolute scores are scaled to add up to 1; then the mean is taken
    over the examples where any is not 0. Of argmax it is the paper's importance.
    """
    scores = np.abs(np.stack(list(self.modalities.values()), axis=1))
    total = scores.sum(axis=1, keepdims=True)
    some = total[:, 0] > 0
    if not some.any():
      return dict.fromkeys(self.modalities, 0.0)
    mean = (scores[some] / total[some]).mean(axis=0)
    return dict(zip(self.modalities, mean.tolist(), strict=True))

  def ranked(self, row: int) -> list[Element]:
    """The elements of an example, the most important first; ties in table order.

    Raises:
      ValueError: The method tells modalities only.
    """
    if self.elements is None:
      raise ValueError(
        f"{self.method} tells modalities, no elements; element_shapley does"
      )
    found = []
    for name, scores in self.elements.items():
      column = self.table.modalities[name]
      begin, end = column.offsets[row], column.offsets[row + 1]
      found += [
        Element(name, slot - begin, column.values[slot], float(scores[slot]))
        for slot in range(int(begin), int(end))
      ]
    return sorted(found, key=lambda element: -element.score)


def of_elements(
  method: str,
  table: Table,
  elements: Mapping[str, np.ndarray],
  error: Mapping[str, np.ndarray] | None = None,
) -> Importance:
  """Importance whose modalities have the sum of their elements' scores."""
  bags = Bags(table)
  joined = bags.join(elements)
  modalities = {
    name: bags.total(np.where(bags.modality == index, joined, 0))
    for index, name in enumerate(table.schema.modalities)
  }
  return Importance(method, table, modalities, elements, error)


def rows_of(table: Table, ids: Sequence[str]) -> np.ndarray:
  """The rows of examples by their ids.

  Raises:
    ValueError: An id that is not there; names ids that begin alike.
  """
  rows = {str(name): row for row, name in enumerate(table.ids)}
  for name in ids:
    if name not in rows:
      near = [other for other in rows if other[:2] == name[:2]][:5] or list(rows)[:5]
      raise ValueError(f"no example {name!r} among {len(rows)}; there are {near}")
  return np.array([rows[name] for name in ids], np.int64)
