"""Removal of elements from tables; a removed element is absent, without a trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from deepsets_jax.data.tables.table import Table, take_elements
from deepsets_jax.ragged import offsets_from_lengths


class Bags:
  """The elements of a table in one sequence: by example, then by modality.

  Attributes:
    offsets: Where the elements of each example begin, `[b+1]`.
    modality: The index of the modality of each element in the schema, `[n]`.
    example: The example of each element, `[n]`.
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
    """Number of elements of each example over all modalities: `[b]`."""
    return np.diff(self.offsets)

  @property
  def position(self) -> np.ndarray:
    """Position of each element among those of its example: `[n]`."""
    return np.arange(len(self.modality)) - self.offsets[self.example]

  def split(self, values: np.ndarray) -> dict[str, np.ndarray]:
    """Splits values per element, `[n, ...]`, into {modality: in the column's order}."""
    return {name: values[self.modality == i] for i, name in enumerate(self._names)}

  def join(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Joins {modality: values in the column's order}; the inverse of `split`."""
    dtype = np.result_type(*values.values())
    joined = np.zeros(len(self.modality), dtype)
    for index, name in enumerate(self._names):
      joined[self.modality == index] = values[name]
    return joined

  def total(self, values: np.ndarray) -> np.ndarray:
    """Sums the values of each example: `[n]` to `[b]`."""
    return np.bincount(self.example, values, minlength=len(self.offsets) - 1)


def keep_elements(table: Table, keep: np.ndarray) -> Table:
  """Returns the table without the elements where `keep` is False.

  Args:
    table: The table.
    keep: Whether to keep each element, in the order of `Bags(table)`: `[n]` bool.
  """
  parts = Bags(table).split(keep)
  kept = {k: take_elements(v, parts[k]) for k, v in table.modalities.items()}
  return dataclasses.replace(table, modalities=kept)


def keep_modalities(table: Table, keep: np.ndarray) -> Table:
  """Returns the table without the modalities where `keep` is False.

  Args:
    table: The table.
    keep: Whether to keep each modality of each example, `[b, m]` bool; columns in the
      order of the schema.
  """
  bags = Bags(table)
  return keep_elements(table, keep[bags.example, bags.modality])
