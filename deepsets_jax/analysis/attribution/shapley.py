"""Shapley values: the mean gain of a player over all orders in which players can join.

Shapley, "A Value for n-Person Games" (1953), for the game defined in `coalitions`.
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
from deepsets_jax.analysis.attribution.result import Attribution
from deepsets_jax.data.tables.ablation import Bags
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.tasks.trained import Trained

# Most players for exact values: 2**12 = 4,096 coalitions.
MOST_EXACT = 12


def of_modalities(
  trained: Trained,
  table: Table,
  output: Output,
  *,
  permutations: int | None = None,
  seed: int = 0,
) -> Attribution:
  """Shapley values of modalities; those of an example add up to f(all) - f(none).

  They are exact for up to 12 modalities. The players are the present modalities; an
  absent modality adds nothing and scores 0.

  Args:
    trained: The model.
    table: `b` examples of its schema.
    output: The output to explain.
    permutations: Number of random orders if there are more than 12 modalities, in pairs
      of an order and its reverse. The spread over pairs gives the standard error.
    seed: Seed of the orders.

  Raises:
    ConfigError: More than 12 modalities and no permutations.
  """
  names = list(table.schema.modalities)
  if len(names) > MOST_EXACT and permutations is None:
    raise ConfigError(
      f"{len(names)} modalities have 2**{len(names)} subsets; Shapley values are exact"
      f" for up to {MOST_EXACT} modalities. Set permutations=100, say, to sample"
      " orders, or use leave_one_out."
    )
  if len(names) <= MOST_EXACT:
    worths = output_of_subsets(trained, table, output)
    # An absent modality scores exactly 0, free of rounding.
    present = present_modalities(table)[2]
    values = np.where(present, worths @ _weights(len(names)), 0)
    columns = {name: values[:, index] for index, name in enumerate(names)}
    return Attribution("shapley", table, columns)
  player, counts, present = present_modalities(table)
  values, errors = _play(trained, table, output, player, counts, permutations, seed)

  def columns_of(found: np.ndarray) -> dict[str, np.ndarray]:
    dense = np.zeros(present.shape)
    dense[present] = found
    return {name: dense[:, index] for index, name in enumerate(names)}

  return Attribution("shapley", table, columns_of(values), error=columns_of(errors))


def of_elements(
  trained: Trained,
  table: Table,
  output: Output,
  *,
  permutations: int = 8,
  seed: int = 0,
) -> Attribution:
  """Shapley values of single elements, exact for examples of up to 12 elements.

  For larger examples they are means over random orders, in pairs of an order and its
  reverse. They still add up to f(all) - f(none), and `error` holds their standard
  errors. A modality's score is the sum over its elements. It differs from the
  modality's Shapley value in `of_modalities`, where the players are modalities.

  Raises:
    ConfigError: Fewer than four permutations, or an odd number, which would leave no
      standard error.
  """
  bags = Bags(table)
  values, errors = _play(
    trained, table, output, bags.position, bags.lengths, permutations, seed
  )
  error = bags.split(errors) if (bags.lengths > MOST_EXACT).any() else None
  return result.of_elements("element_shapley", table, bags.split(values), error=error)


def check_permutations(permutations: int) -> None:
  """Raise unless the number of random orders is even and at least 4.

  Raises:
    ConfigError: It is not.
  """
  if permutations < 4 or permutations % 2:
    raise ConfigError(
      f"permutations is {permutations}: orders come in pairs, and the standard error"
      " needs two pairs. Give an even number of at least 4."
    )


def _play(
  trained: Trained,
  table: Table,
  output: Output,
  player: np.ndarray,
  counts: np.ndarray,
  permutations: int | None,
  seed: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Values and standard errors of the players, row after row: `[all players]`."""
  if (counts > MOST_EXACT).any():
    check_permutations(permutations)

  def orders(row: int, n: int) -> np.ndarray:
    """The position of each player in the row's random orders, `[permutations, n]`."""
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
  """The matrix from worths of all subsets to players' values, `[2**n, n]` float64.

  A subset of size `s` has the weight (s - 1)! (n - s)! / n! for its members and
  -s! (n - 1 - s)! / n! for the other players.
  """
  member = subsets(n)
  size = member.sum(axis=1)
  # Probability that exactly the subset without the player joined before the player.
  chance = np.array([1 / (n * math.comb(n - 1, s)) for s in range(n)] + [0.0])
  return np.where(member, chance[size - 1][:, None], -chance[size][:, None])
