"""Tables of which some elements are taken away, as if they had never been there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from deepsets_jax.data.tables.table import Table, take_elements
from deepsets_jax.ragged import offsets_from_lengths


class Bags:
  """All elements of a table in one line: example by example, modality by modality.

  Attributes:
    offsets: Where each example's elements begin, `[b+1]`.
    modality: Of each element, its place in the schema's order, `[n]`.
    example: Of each element, `[n]`.
  """

  def __init__(self, table: Table):
    self._names = list(table.schema.modalities)
    lengths = np.stack([table.lengths(name) for name in self._names], axis=1)
    self.offsets = offsets_from_lengths(lengths.sum(axis=1))
    kinds = np.tile(np.arange(len(self._names)), len(table))
    self.modality = np.repeat(kinds, lengths.ravel())
    self.example = np.repeat(np.arange(len(table)), np.diff(self.offsets))

  @property
  def lengths(self) -> np.ndarray:
    """Elements of each example, of all modalities: `[b]`."""
    return np.diff(self.offsets)

  @property
  def position(self) -> np.ndarray:
    """Of each element, its place in its example's line: `[n]`."""
    return np.arange(len(self.modality)) - self.offsets[self.example]

  def split(self, values: np.ndarray) -> dict[str, np.ndarray]:
    """A value per element, `[n, ...]`, in the order of each modality's column."""
    return {name: values[self.modality == i] for i, name in enumerate(self._names)}

  def join(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """The inverse of `split`."""
    dtype = np.result_type(*values.values())
    joined = np.zeros(len(self.modality), dtype)
    for index, name in enumerate(self._names):
      joined[self.modality == index] = values[name]
    return joined

  def total(self, values: np.ndarray) -> np.ndarray:
    """The sum of each example's values, `[n]` to `[b]`."""
    return np.bincount(self.example, values, minlength=len(self.offsets) - 1)


def keep_elements(table: Table, keep: np.ndarray) -> Table:
  """The table without the elements where `keep` is False.

  Args:
    table: Of `b` examples.
    keep: In the order of `Bags(table)`, `[n]` bool.
  """
  parts = Bags(table).split(keep)
  kept = {k: take_elements(v, parts[k]) for k, v in table.modalities.items()}
  return dataclasses.replace(table, modalities=kept)


def keep_modalities(table: Table, keep: np.ndarray) -> Table:
  """The table without the modalities where `keep`, `[b, m]` bool, is False.

  The columns of `keep` are the schema's modalities, in its order.
  """
  bags = Bags(table)
  return keep_elements(table, keep[bags.example, bags.modality])
