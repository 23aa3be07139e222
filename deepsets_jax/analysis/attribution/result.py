"""The result of an attribution method: scores of modalities and of elements."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deepsets_jax.data.tables.ablation import Bags
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import ConfigError

# A completeness gap above this share of the output's change gets a note.
_LARGE_GAP = 0.05


class Element(NamedTuple):
  """An element of an example and its score.

  Attributes:
    modality: Name of its modality.
    position: Index among the example's elements of the modality, from 0.
    value: Token id or vector.
    score: Its contribution to the output; the method defines sign and unit.
  """

  modality: str
  position: int
  value: int | np.ndarray
  score: float


@dataclasses.dataclass(frozen=True)
class Attribution:
  """Attribution scores of one method for every example of a table.

  Attributes:
    method: Name of the method.
    table: The explained examples. Elements are those of its columns, in their order.
    modalities: Scores by modality, `[b]`; 0 where the modality is absent.
    elements: Scores by modality, `[n]`; None if the method scores modalities only.
    error: Standard errors of a sampled method, for its elements if it scores elements,
      else for its modalities; None if the method is exact.
    rounding: Bound on the rounding error of each example's scores, `[b]`. Scores are
      numerically zero if the absolute scores of the modalities add up to no more than
      this. For gradients it is 4 float steps of the sum of absolute products of
      gradient and input; None for other methods.
    gap: f(elements) - f(zero vectors) minus the sum of an example's scores, `[b]`; None
      if the scores of the method need not add up to that difference.
  """

  method: str
  table: Table
  modalities: Mapping[str, np.ndarray]
  elements: Mapping[str, np.ndarray] | None = None
  error: Mapping[str, np.ndarray] | None = None
  rounding: np.ndarray | None = None
  gap: np.ndarray | None = None

  def shares(self) -> dict[str, float]:
    """The mean share of each modality, ignoring signs.

    The absolute scores of an example are scaled to add up to 1. The mean is taken over
    the examples whose scores are not numerically zero (see `rounding`). If there are
    none, all shares are 0 and `notes` says so. For argmax this is the importance of
    Reiter et al., "Deep Multi-Modal Sets" (2020).
    """
    scores, some = self._sizes()
    if not some.any():
      return dict.fromkeys(self.modalities, 0.0)
    mean = (scores[some] / scores[some].sum(axis=1, keepdims=True)).mean(axis=0)
    return dict(zip(self.modalities, mean.tolist(), strict=True))

  def column_shares(self) -> dict[str, np.ndarray]:
    """The mean share of each column, `[c]`, for modalities that are made of columns.

    For each such modality, the absolute scores of an example's elements are scaled to
    add up to 1, and averaged over the examples where they are not numerically zero, as
    in `shares`. Empty if the method does not score elements.
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
    """Caveats for a reader of the scores, one sentence each; usually none.

    They say that scores are numerically zero, or that on average the scores of
    integrated gradients miss the change of the output by more than 5 % of it.
    """
    found = []
    scores, some = self._sizes()
    zero = int((scores.any(axis=1) & ~some).sum())
    if not some.any():
      words = "all scores are zero"
      if zero:
        words = (
          "all scores are numerically zero; the output does not change when elements"
          " are scaled, as in a set pool with normalize=True. Use shapley or"
          " leave_one_out, which remove elements instead"
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
          f" f(zero vectors), whose mean size is {change:.3g}, but miss it by"
          f" {gap:.3g}, because the output changes abruptly along the path."
        )
    return found

  def _sizes(self) -> tuple[np.ndarray, np.ndarray]:
    """Absolute scores of modalities, `[b, m]`; where they are not numerically 0."""
    scores = np.abs(np.stack(list(self.modalities.values()), axis=1))
    floor = 0 if self.rounding is None else self.rounding
    return scores, scores.sum(axis=1) > floor

  def first(self, number: int) -> Attribution:
    """The attribution of the first examples, without standard errors."""
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
    """The elements of an example, highest score first; ties in table order.

    Raises:
      ConfigError: The method scores modalities only.
    """
    if self.elements is None:
      raise ConfigError(
        f"{self.method} scores modalities, not elements. Use element_shapley."
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
) -> Attribution:
  """An attribution in which a modality's score is the sum over its elements.

  Args:
    method: As in `Attribution`.
    table: As in `Attribution`.
    elements: As in `Attribution`.
    **fields: The other fields of `Attribution`.
  """
  bags = Bags(table)
  joined = bags.join(elements)
  modalities = {
    name: bags.total(np.where(bags.modality == index, joined, 0))
    for index, name in enumerate(table.schema.modalities)
  }
  return Attribution(method, table, modalities, elements, **fields)


def rows_of(table: Table, ids: Sequence[str]) -> np.ndarray:
  """The rows of the examples with these ids.

  Raises:
    ConfigError: There is no example with an id; the message names similar ids.
  """
  rows = {str(name): row for row, name in enumerate(table.ids)}
  for name in ids:
    if name not in rows:
      near = [other for other in rows if other[:2] == name[:2]][:5] or list(rows)[:5]
      raise ConfigError(
        f"no example {name!r} among {len(rows)}; some of the ids are {near}"
      )
  return np.array([rows[name] for name in ids], np.int64)
