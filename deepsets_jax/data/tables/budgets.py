"""Slot budgets: the number of elements of each modality that a shard can hold.

One budget per modality gives one compiled shape per run. They are proposed from the
offsets alone, which also show how full the slots will be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from deepsets_jax.data.tables.batching import Budget, plan
from deepsets_jax.data.tables.table import Table, take_elements
from deepsets_jax.foundation.errors import DataError

# Slots are a multiple of this, which suits the vector units of all devices.
_MULTIPLE = 8
# A proposal holds this share of random full shards, so that slots seldom end a shard.
# Sums of heavy-tailed lengths are not normal, so they are drawn and not computed.
_SHARE = 0.99
_DRAWS = 400


@dataclasses.dataclass(frozen=True)
class Usage:
  """How one modality fills its slots.

  Attributes:
    mean, p50, p99, max: Statistics of the elements per example; absent counts as 0.
    missing: Share of the examples without an element.
    slots: Number of slots of a shard.
    fill: Share of the slots that hold an element, over an epoch of shuffled rows.
  """

  mean: float
  p50: int
  p99: int
  max: int
  missing: float
  slots: int
  fill: float

  @classmethod
  def of(cls, lengths: np.ndarray, slots: int, shards: int) -> Usage:
    """Computes the usage from the lengths of the examples and the number of shards."""
    p50, p99 = np.percentile(lengths, [50, 99], method="higher")
    return cls(
      mean=float(lengths.mean()),
      p50=int(p50),
      p99=int(p99),
      max=int(lengths.max()),
      missing=float((lengths == 0).mean()),
      slots=slots,
      fill=float(lengths.sum() / (shards * slots)),
    )


def propose(tables: Mapping[str, Table], examples: int) -> dict[str, int]:
  """Proposes {modality: slots of a shard} for shards of `examples` examples.

  The slots hold 99 % of random shards of the training split, and the largest example of
  every split.
  """
  return {
    name: slots_for(
      tables["train"].lengths(name),
      max(int(table.lengths(name).max()) for table in tables.values()),
      examples,
    )
    for name in tables["train"].modalities
  }


def slots_for(lengths: np.ndarray, largest: int, examples: int) -> int:
  """Returns the slots that hold 99 % of random shards, and the largest example.

  Args:
    lengths: Number of elements of each example.
    largest: Number of elements of the largest example of any split.
    examples: Number of examples of a shard.
  """
  # The same shards for every modality.
  rng = np.random.default_rng(0)
  rows = rng.integers(0, len(lengths), (_DRAWS, min(examples, len(lengths))))
  needed = np.quantile(lengths[rows].sum(axis=1), _SHARE)
  return round_up(max(int(np.ceil(needed)), largest))


def round_up(slots: int) -> int:
  """Returns the smallest multiple of 8 that is at least `slots` and at least 1."""
  return -(-max(slots, 1) // _MULTIPLE) * _MULTIPLE


def check(tables: Mapping[str, Table], slots: Mapping[str, int]) -> None:
  """Checks that every example fits into a shard.

  Args:
    tables: The splits.
    slots: {modality: slots of a shard}.

  Raises:
    DataError: An example does not fit, or a modality has no budget.
  """
  for split, table in tables.items():
    missing = sorted(set(table.modalities) - set(slots))
    if missing:
      raise DataError(
        f"{split}: modality {missing[0]!r} has no budget; set"
        f" config.data.budgets.{missing[0]}, or leave all of them unset"
      )
    for name in table.modalities:
      lengths = table.lengths(name)
      row = int(np.argmax(lengths))
      if lengths[row] > slots[name]:
        raise DataError(
          f"{split}: example {str(table.ids[row])!r} has {lengths[row]} {name!r}"
          f" elements, and the budget is {slots[name]}; raise"
          f" config.data.budgets.{name}, or set config.data.overflow to 'first' or"
          " 'random' to truncate it"
        )


def truncate(
  table: Table, slots: Mapping[str, int], policy: str, seed: int
) -> tuple[Table, dict[str, int]]:
  """Cuts the examples that are over budget.

  Args:
    table: Any split.
    slots: {modality: the most elements of an example}.
    policy: "first" keeps the first elements; "random" a random subset, in order, that
      depends only on `seed` and the row of the example.
    seed: Seed of the policy "random".

  Returns:
    The table, and {modality: number of examples that were cut}, if any were.
  """
  modalities, counts = {}, {}
  for name, ragged in table.modalities.items():
    lengths = table.lengths(name)
    over = np.flatnonzero(lengths > slots[name])
    if not len(over):
      modalities[name] = ragged
      continue
    keep = np.ones(len(ragged.values), bool)
    for row in over:
      begin, end = ragged.offsets[row], ragged.offsets[row + 1]
      kept = np.arange(slots[name])
      if policy == "random":
        rng = np.random.default_rng((seed, int(row)))
        kept = rng.choice(lengths[row], slots[name], replace=False)
      keep[begin:end] = False
      keep[begin + kept] = True
    modalities[name], counts[name] = take_elements(ragged, keep), len(over)
  return dataclasses.replace(table, modalities=modalities), counts


def usage(table: Table, budget: Budget) -> dict[str, Usage]:
  """Returns {modality: how it fills its slots} over an epoch of shuffled rows."""
  shards = len(_shard_sizes(table, budget))
  return {
    name: Usage.of(table.lengths(name), budget.slots[name], shards)
    for name in table.modalities
  }


def examples_per_shard(table: Table, budget: Budget) -> float:
  """Returns the median number of examples of a shard over an epoch.

  It is `budget.examples`, unless slots are full before. The last shard, which is not
  full, is not counted if there are others.
  """
  sizes = _shard_sizes(table, budget)
  return float(np.median(sizes[:-1] if len(sizes) > 1 else sizes))


def _shard_sizes(table: Table, budget: Budget) -> np.ndarray:
  """Examples of each shard of an epoch of shuffled rows."""
  lengths = {name: table.lengths(name) for name in table.modalities}
  order = np.random.default_rng(0).permutation(len(table))
  return np.diff(plan(lengths, order, budget))
