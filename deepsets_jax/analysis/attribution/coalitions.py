"""Coalitions: the model's output on parts of an example's bag, many parts at once.

Players are an example's modalities, or its elements; a coalition's worth is the output
on the bag of its elements alone. Absence is absence, so that every coalition is a valid
input, and no background data has to stand in for what is missing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np

from deepsets_jax.analysis.attribution import merging
from deepsets_jax.analysis.attribution.outputs import Output
from deepsets_jax.data.tables.ablation import Bags, keep_elements
from deepsets_jax.data.tables.table import Table, element_slots
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged, offsets_from_lengths
from deepsets_jax.tasks.trained import Trained

# Bytes of elements that are copied out and evaluated together.
_CHUNK = 1 << 28

# Players of an example: with more, their coalitions would be too many to write down.
MOST_PLAYERS = 1 << 13

# Coalitions of one row: of the row and its number of players, `[q, players]` bool.
Coalitions = Callable[[int, int], np.ndarray]


def worth(
  trained: Trained,
  table: Table,
  output: Output,
  player: np.ndarray,
  counts: np.ndarray,
  coalitions: Coalitions,
) -> Iterator[np.ndarray]:
  """The output of coalitions of each row's players, row by row: `[q]`.

  As few large batches as memory allows.

  Args:
    trained: The model.
    table: Of `b` examples.
    output: What is measured.
    player: Whose each element is, among its example's players: `[n]`.
    counts: Players of each example, `[b]`.
    coalitions: Of a row and its number of players, which to measure: `[q, players]`.

  Raises:
    ConfigError: An example of too many players.
  """
  if len(counts) and counts.max() > MOST_PLAYERS:
    row = int(np.argmax(counts))
    raise ConfigError(
      f"example {str(table.ids[row])!r} has {counts[row]} elements; to take each away"
      f" is for up to {MOST_PLAYERS}: take argmax, attention, gradient_x_input or"
      " integrated_gradients"
    )
  bags, found = Bags(table), []
  for pieces in _chunks(table, counts, coalitions):
    asked = [(row, piece) for row, piece, _ in pieces]
    worths = _evaluate(trained, table, output, bags, player, asked)
    for each, (_, _, is_last) in zip(worths, pieces, strict=True):
      found.append(each)
      if is_last:
        yield np.concatenate(found)
        found = []


def _chunks(
  table: Table, counts: np.ndarray, coalitions: Coalitions
) -> Iterator[list[tuple[int, np.ndarray, bool]]]:
  """Rows, some or all of their coalitions, and whether these are the row's last."""
  width = np.zeros(len(table), np.int64)
  for name, ragged in table.modalities.items():
    width += table.lengths(name) * _bytes(ragged)
  pieces, size = [], 0
  for row, n in enumerate(counts.tolist()):
    asked = coalitions(row, n)
    most = max(_CHUNK // (int(width[row]) + 1), 1)
    for begin in range(0, len(asked), most):
      piece = asked[begin : begin + most]
      pieces.append((row, piece, begin + most >= len(asked)))
      size += len(piece) * int(width[row])
      if size > _CHUNK:
        yield pieces
        pieces, size = [], 0
  if pieces:
    yield pieces


def _bytes(ragged: Ragged) -> int:
  """Of one element, with its weight and time."""
  arrays = (ragged.values, ragged.weights, ragged.times)
  return sum(
    array.dtype.itemsize * math.prod(array.shape[1:])
    for array in arrays
    if array is not None
  )


def _evaluate(
  trained: Trained,
  table: Table,
  output: Output,
  bags: Bags,
  player: np.ndarray,
  asked: list[tuple[int, np.ndarray]],
) -> list[np.ndarray]:
  """The worths of some rows' coalitions, as one table of all of them."""
  sizes = [len(coalitions) for _, coalitions in asked]
  rows = np.repeat([row for row, _ in asked], sizes)
  keep = np.concatenate([coalitions.ravel() for _, coalitions in asked])
  players = np.repeat([coalitions.shape[1] for _, coalitions in asked], sizes)
  first = np.cumsum(players) - players  # Of each coalition's players in `keep`.
  lengths = bags.lengths[rows]
  offsets = offsets_from_lengths(lengths)
  slots = element_slots(bags.offsets[:-1][rows], lengths, offsets)
  kept = keep[np.repeat(first, lengths) + player[slots]]
  logits = trained.logits(keep_elements(table.select(rows), kept))
  worths = output.select(rows).of(logits).astype(np.float64)
  return np.split(worths, np.cumsum(sizes)[:-1])


def output_of_subsets(trained: Trained, table: Table, output: Output) -> np.ndarray:
  """The output of every subset of modalities, `[b, 2**m]`, in the order of `subsets`.

  Subsets that differ in nothing that an example has are evaluated once. A fusion that
  merges pools each modality once; of others each subset is an evaluation.
  """
  player, counts, present = present_modalities(table)
  if trained.run.model.fusion.merges:
    found = merging.scores_of_subsets(trained, table, output, present)
  else:
    found = np.zeros((len(table), 1 << present.shape[1]))
    worths = worth(trained, table, output, player, counts, lambda _, n: subsets(n))
    for row, each in enumerate(worths):
      found[row, : len(each)] = each
  place = np.maximum(np.cumsum(present, axis=1) - 1, 0)
  bits = np.where(present, 1 << place, 0)
  every = subsets(present.shape[1]).astype(np.int64)
  return np.take_along_axis(found, bits @ every.T, axis=1)


def present_modalities(table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The modalities that are there as players.

  Returns:
    Whose each element is, among the modalities of its example, `[n]`; how many those
    are, `[b]`; and which, `[b, m]` bool.
  """
  bags = Bags(table)
  present = np.stack([table.lengths(k) > 0 for k in table.schema.modalities], axis=1)
  place = np.cumsum(present, axis=1) - 1
  return place[bags.example, bags.modality], present.sum(axis=1), present


@functools.cache
def subsets(n: int) -> np.ndarray:
  """All subsets of `n` players, `[2**n, n]` bool; player `i` is in those of bit `i`."""
  return (np.arange(1 << n)[:, None] >> np.arange(n)) & 1 == 1
