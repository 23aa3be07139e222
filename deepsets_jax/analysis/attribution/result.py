"""Importance: a score per example of every modality and of every element."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deepsets_jax.data.tables.ablation import Bags
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import ConfigError

# Share of the output's change from which on a completeness gap is worth a note.
_LARGE_GAP = 0.05


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
    rounding: What rounding may make of the scores of an example, `[b]`: where the
      absolute scores of its modalities add up to no more, they are numerically zero.
      For gradients, 4 float steps of the sum of absolute products of gradient and
      input; None of other methods.
    gap: f(elements) - f(zero vectors) less the sum of an example's scores, `[b]`; None
      of methods whose scores need not add up to that.
  """

  method: str
  table: Table
  modalities: Mapping[str, np.ndarray]
  elements: Mapping[str, np.ndarray] | None = None
  error: Mapping[str, np.ndarray] | None = None
  rounding: np.ndarray | None = None
  gap: np.ndarray | None = None

  def shares(self) -> dict[str, float]:
    """Of the data set: the mean share of each modality, without sign.

    In an example the absolute scores are scaled to add up to 1; then the mean is taken
    over the examples where they are not numerically zero, see `rounding`. Where no
    example is left all shares are 0, and `notes` says so. Of argmax it is the paper's
    importance.
    """
    scores, some = self._sizes()
    if not some.any():
      return dict.fromkeys(self.modalities, 0.0)
    mean = (scores[some] / scores[some].sum(axis=1, keepdims=True)).mean(axis=0)
    return dict(zip(self.modalities, mean.tolist(), strict=True))

  def column_shares(self) -> dict[str, np.ndarray]:
    """The mean share of each column, `[c]`, by modality that is made of columns.

    In an example the absolute scores of the elements of such a modality are scaled to
    add up to 1; then the mean is taken over the examples where they are not numerically
    zero, as in `shares`. Of a method without scores of elements there are none.
    """
    found: dict[str, np.ndarray] = {}
    floor = 0 if self.rounding is None else self.rounding
    for name, modality in self.table.schema.modalities.items():
      if not modality.groups or self.elements is None:
        continue
      tokens, scores = self.table.modalities[name], np.abs(self.elements[name])
      row = np.repeat(np.arange(len(self.table)), self.table.lengths(name))
      total = np.bincount(row, scores, minlength=len(self.table))
      some = total > floor
      share = np.where(some[row], scores / np.where(some, total, 1)[row], 0)
      column = np.repeat(np.arange(len(modality.groups)), modality.groups)
      sums = np.bincount(column[tokens.values], share, minlength=len(modality.groups))
      found[name] = sums / max(some.sum(), 1)
    return found

  def notes(self) -> list[str]:
    """What one should know before one reads the scores, a sentence each; often none.

    That scores are numerically zero, or that those of integrated gradients miss the
    change of the output by more than 5 % of it, in means over the examples.
    """
    found = []
    scores, some = self._sizes()
    zero = int((scores.any(axis=1) & ~some).sum())
    if not some.any():
      words = "all scores are zero"
      if zero:
        words = (
          "all scores are numerically zero; the output does not change when elements"
          " are scaled, as in a set pool with normalize=True; shapley and leave_one_out"
          " take elements away instead"
        )
      found.append(f"{self.method}: {words}.")
    elif zero:
      found.append(
        f"{self.method}: the scores of {zero} of {len(some)} examples are numerically"
        " zero; shares leave these examples out."
      )
    if self.gap is not None:
      change = np.abs(self.gap + sum(self.modalities.values())).mean()
      gap = np.abs(self.gap).mean()
      if gap > _LARGE_GAP * change:
        found.append(
          f"{self.method}: the scores of an example should add up to f(elements) -"
          f" f(zero vectors), whose mean size is {change:.3g}, and miss it by"
          f" {gap:.3g}; the output jumps or bends sharply on the way."
        )
    return found

  def _sizes(self) -> tuple[np.ndarray, np.ndarray]:
    """Absolute scores of modalities `[b, m]`; where they are not numerically zero."""
    scores = np.abs(np.stack(list(self.modalities.values()), axis=1))
    floor = 0 if self.rounding is None else self.rounding
    return scores, scores.sum(axis=1) > floor

  def first(self, number: int) -> Importance:
    """The importance of the first examples, without standard errors."""
    table, elements = self.table.select(np.arange(number)), None
    if self.elements is not None:
      sizes = {name: len(column.values) for name, column in table.modalities.items()}
      elements = {name: one[: sizes[name]] for name, one in self.elements.items()}
    return dataclasses.replace(
      self,
      table=table,
      modalities={name: one[:number] for name, one in self.modalities.items()},
      elements=elements,
      error=None,
      rounding=None if self.rounding is None else self.rounding[:number],
      gap=None if self.gap is None else self.gap[:number],
    )

  def ranked(self, row: int) -> list[Element]:
    """The elements of an example, the most important first; ties in table order.

    Raises:
      ConfigError: The method tells modalities only.
    """
    if self.elements is None:
      raise ConfigError(
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
  **fields: Any,
) -> Importance:
  """Importance whose modalities have the sum of their elements' scores.

  Args:
    method, table, elements: As in `Importance`.
    **fields: The others of `Importance`.
  """
  bags = Bags(table)
  joined = bags.join(elements)
  modalities = {
    name: bags.total(np.where(bags.modality == index, joined, 0))
    for index, name in enumerate(table.schema.modalities)
  }
  return Importance(method, table, modalities, elements, **fields)


def rows_of(table: Table, ids: Sequence[str]) -> np.ndarray:
  """The rows of examples by their ids.

  Raises:
    ConfigError: An id that is not there; names ids that begin alike.
  """
  rows = {str(name): row for row, name in enumerate(table.ids)}
  for name in ids:
    if name not in rows:
      near = [other for other in rows if other[:2] == name[:2]][:5] or list(rows)[:5]
      raise ConfigError(f"no example {name!r} among {len(rows)}; there are {near}")
  return np.array([rows[name] for name in ids], np.int64)
