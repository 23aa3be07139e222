"""Shapley values: what each player adds, over all orders in which players may come.

Shapley, "A Value for n-Person Games" (1953), of the game of `coalitions`.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from deepsets_jax.analysis.attribution import result
from deepsets_jax.analysis.attribution.coalitions import (
  output_of_subsets,
  present_modalities,
  subsets,
  worth,
)
from deepsets_jax.analysis.attribution.outputs import Output
from deepsets_jax.analysis.attribution.result import Importance
from deepsets_jax.data.tables.ablation import Bags
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.tasks.trained import Trained

# Players whose coalitions are all evaluated: 4,096 of them.
MOST_EXACT = 12


def of_modalities(
  trained: Trained,
  table: Table,
  output: Output,
  *,
  permutations: int | None = None,
  seed: int = 0,
) -> Importance:
  """Shapley values of modalities; those of an example add up to f(all) - f(none).

  Exact for up to 12 modalities. The players are those that are there: an absent
  modality adds nothing, and counts 0.

  Args:
    trained: The model.
    table: Of its schema, `b` examples.
    output: What is shared out.
    permutations: Of more modalities, how many random orders, in pairs of an order and
      its reverse; their spread is the standard error.
    seed: Of the orders.

  Raises:
    ConfigError: More than 12 modalities and no permutations.
  """
  names = list(table.schema.modalities)
  if len(names) > MOST_EXACT and permutations is None:
    raise ConfigError(
      f"{len(names)} modalities have 2**{len(names)} subsets, and exact Shapley values"
      f" are for up to {MOST_EXACT}: give a number of permutations to sample, such as"
      " 100, or take leave_one_out"
    )
  if len(names) <= MOST_EXACT:
    worths = output_of_subsets(trained, table, output)
    # Exactly 0 where there is nothing, not as it was rounded.
    present = present_modalities(table)[2]
    values = np.where(present, worths @ _weights(len(names)), 0)
    columns = {name: values[:, index] for index, name in enumerate(names)}
    return Importance("shapley", table, columns)
  player, counts, present = present_modalities(table)
  values, errors = _play(trained, table, output, player, counts, permutations, seed)

  def columns_of(found: np.ndarray) -> dict[str, np.ndarray]:
    dense = np.zeros(present.shape)
    dense[present] = found
    return {name: dense[:, index] for index, name in enumerate(names)}

  return Importance("shapley", table, columns_of(values), error=columns_of(errors))


def of_elements(
  trained: Trained,
  table: Table,
  output: Output,
  *,
  permutations: int = 8,
  seed: int = 0,
) -> Importance:
  """Shapley values of single elements; exact in examples of up to 12 elements.

  In larger ones they are the mean over random orders, in pairs of an order and its
  reverse; they still add up to f(all) - f(none), and `error` has their standard
  errors. A modality has the sum of its elements' values, which is not its Shapley
  value among modalities: that is another game.

  Raises:
    ConfigError: Fewer than four permutations, or an odd number: no error to state.
  """
  bags = Bags(table)
  values, errors = _play(
    trained, table, output, bags.position, bags.lengths, permutations, seed
  )
  error = bags.split(errors) if (bags.lengths > MOST_EXACT).any() else None
  return result.of_elements("element_shapley", table, bags.split(values), error=error)


def _play(
  trained: Trained,
  table: Table,
  output: Output,
  player: np.ndarray,
  counts: np.ndarray,
  permutations: int | None,
  seed: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Every player's value and standard error, row by row: `[players of all rows]`."""
  if (counts > MOST_EXACT).any() and (permutations < 4 or permutations % 2):
    raise ConfigError(
      f"{permutations} permutations: they come in pairs, and an error needs two pairs;"
      " give an even number from 4"
    )

  def orders(row: int, n: int) -> np.ndarray:
    """Places of a row's players in its random orders, `[permutations, n]`."""
    rng = np.random.default_rng((seed, row))
    half = rng.permuted(np.tile(np.arange(n), (permutations // 2, 1)), axis=1)
    return np.stack([half, n - 1 - half], axis=1).reshape(permutations, n)

  def coalitions(row: int, n: int) -> np.ndarray:
    if n <= MOST_EXACT:
      return subsets(n)
    sizes = np.arange(n + 1)
    return (orders(row, n)[:, None] < sizes[:, None]).reshape(-1, n)

  worths = worth(trained, table, output, player, counts, coalitions)
  values, errors = [], []
  for row, (n, worth_of) in enumerate(zip(counts.tolist(), worths, strict=True)):
    if n <= MOST_EXACT:
      values.append(worth_of @ _weights(n))
      errors.append(np.zeros(n))
      continue
    gains = np.diff(worth_of.reshape(permutations, n + 1), axis=1)
    added = np.take_along_axis(gains, orders(row, n), axis=1)
    pairs = added.reshape(-1, 2, n).mean(axis=1)
    values.append(pairs.mean(axis=0))
    errors.append(pairs.std(axis=0, ddof=1) / math.sqrt(len(pairs)))
  return np.concatenate(values), np.concatenate(errors)


@functools.cache
def _weights(n: int) -> np.ndarray:
  """From the worths of all subsets to the players' values: `[2**n, n]` float64.

  A subset with a player counts (s - 1)! (n - s)! / n! for them, `s` its size; one
  without, minus s! (n - 1 - s)! / n!.
  """
  member = subsets(n)
  size = member.sum(axis=1)
  # Of the subset without the player: its chance to be who came before.
  chance = np.array([1 / (n * math.comb(n - 1, s)) for s in range(n)] + [0.0])
  return np.where(member, chance[size - 1][:, None], -chance[size][:, None])
