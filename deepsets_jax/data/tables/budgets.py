"""Slot budgets: how many elements of each modality a shard of a batch has room for.

One budget per modality is one compiled shape per run. A scan of the offsets alone
proposes them, and says how full the slots will be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from deepsets_jax.data.tables.batching import Budget, plan
from deepsets_jax.data.tables.table import Table, take_elements
from deepsets_jax.foundation.errors import DataError

# Slots are a multiple of this: what the vector units of all devices like.
_MULTIPLE = 8
# A proposal has room for this share of random full shards: of a few modalities, it is
# seldom the slots that close a batch. Sums of heavy tails are not normal, so they are
# drawn, not worked out.
_SHARE = 0.99
_DRAWS = 400


@dataclasses.dataclass(frozen=True)
class Usage:
  """How one modality fills its slots.

  Attributes:
    mean, p50, p99, max: Elements per example, absent ones counted as 0.
    missing: Share of the examples without an element.
    slots: The budget per shard.
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
    """Of examples of these lengths, in so many shards."""
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
  """Slots per modality and shard for shards of `examples` examples.

  What 99 % of random shards of the training part need, and never less than the
  largest example of any split.
  """
  return {
    name: room(
      tables["train"].lengths(name),
      max(int(table.lengths(name).max()) for table in tables.values()),
      examples,
    )
    for name in tables["train"].modalities
  }


def room(lengths: np.ndarray, largest: int, examples: int) -> int:
  """Slots for 99 % of random shards of examples of some lengths, and for the largest.

  Args:
    lengths: Elements of each example.
    largest: Of any example.
    examples: Of a shard.
  """
  # The same shards for every modality.
  rng = np.random.default_rng(0)
  rows = rng.integers(0, len(lengths), (_DRAWS, min(examples, len(lengths))))
  needed = np.quantile(lengths[rows].sum(axis=1), _SHARE)
  return rounded(max(int(np.ceil(needed)), largest))


def rounded(slots: int) -> int:
  """A number of slots that devices like, not below this one nor 1."""
  return -(-max(slots, 1) // _MULTIPLE) * _MULTIPLE


def check(tables: Mapping[str, Table], slots: Mapping[str, int]) -> None:
  """Raises for an example that no shard has room for.

  Raises:
    DataError: It names the example, the modality, its size, the budget and the ways
      out; or a modality has no budget.
  """
  for split, table in tables.items():
    missing = sorted(set(table.modalities) - set(slots))
    if missing:
      raise DataError(
        f"{split}: modality {missing[0]!r} has no budget; set"
        f" config.data.budgets.{missing[0]}, or leave all unset for a proposal"
      )
    for name in table.modalities:
      lengths = table.lengths(name)
      row = int(np.argmax(lengths))
      if lengths[row] > slots[name]:
        raise DataError(
          f"{split}: example {str(table.ids[row])!r} has {lengths[row]} {name!r}"
          f" elements and the budget is {slots[name]}; raise"
          f" config.data.budgets.{name}, or set config.data.overflow to 'first' or"
          " 'random' to truncate it"
        )


def truncate(
  table: Table, slots: Mapping[str, int], policy: str, seed: int
) -> tuple[Table, dict[str, int]]:
  """The table with no example over budget, and how many were cut per modality.

  Args:
    table: Any split.
    slots: Elements an example may have, by modality.
    policy: "first" keeps the first elements; "random" a subset without replacement,
      in order, that depends on `seed` and the example's row alone.
    seed: Of the random policy.
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
  """How each modality of a table fills its slots, over an epoch of shuffled rows."""
  shards = len(_shard_sizes(table, budget))
  return {
    name: Usage.of(table.lengths(name), budget.slots[name], shards)
    for name in table.modalities
  }


def examples_per_shard(table: Table, budget: Budget) -> float:
  """The median over an epoch: `budget.examples`, unless slots are full before.

  Without the last shard of the epoch, which holds what is left.
  """
  sizes = _shard_sizes(table, budget)
  return float(np.median(sizes[:-1] if len(sizes) > 1 else sizes))


def _shard_sizes(table: Table, budget: Budget) -> np.ndarray:
  """Examples of each shard of an epoch of shuffled rows."""
  lengths = {name: table.lengths(name) for name in table.modalities}
  order = np.random.default_rng(0).permutation(len(table))
  return np.diff(plan(lengths, order, budget))
