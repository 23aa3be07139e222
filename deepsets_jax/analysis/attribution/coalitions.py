"""Model outputs of coalitions, evaluated many at a time.

The players of an example are its modalities or its elements. The worth of a coalition
is the output for a set that holds only the coalition's elements. The models accept
absent elements, so every coalition is a valid input and needs no background data to
fill in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np

from deepsets_jax.analysis.attribution import merging
from deepsets_jax.analysis.attribution.outputs import Output
from deepsets_jax.data.tables.ablation import Bags, keep_elements
from deepsets_jax.data.tables.table import Table, element_slots
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import offsets_from_lengths
from deepsets_jax.tasks.trained import Trained

# Bytes of elements that are copied and evaluated together.
_CHUNK = 1 << 28

# Most players of an example: the memory for the coalitions grows with their square.
MOST_PLAYERS = 1 << 13

# (row, number of players) -> coalitions of this row, `[q, players]` bool.
Coalitions = Callable[[int, int], np.ndarray]


def worth(
  trained: Trained,
  table: Table,
  output: Output,
  player: np.ndarray,
  counts: np.ndarray,
  coalitions: Coalitions,
) -> Iterator[np.ndarray]:
  """Yield for each row the outputs of its coalitions, `[q]`.

  Coalitions are evaluated in as few large batches as memory allows.

  Args:
    trained: The model.
    table: `b` examples.
    output: The output to measure.
    player: The player that owns each element, numbered within its example: `[n]`.
    counts: Number of players of each example, `[b]`.
    coalitions: (row, number of players) -> the coalitions to measure, `[q, players]`.

  Raises:
    ConfigError: An example has more than `MOST_PLAYERS` players.
  """
  if len(counts) and counts.max() > MOST_PLAYERS:
    row = int(np.argmax(counts))
    raise ConfigError(
      f"example {str(table.ids[row])!r} has {counts[row]} elements, and this method"
      f" takes up to {MOST_PLAYERS}. Use argmax, attention, gradient_x_input or"
      " integrated_gradients."
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
  """Yield lists of (row, coalitions, whether they are the last of the row).

  The elements of all coalitions in a list take about `_CHUNK` bytes.
  """
  width = np.zeros(len(table), np.int64)
  for name, ragged in table.modalities.items():
    arrays = (ragged.values, ragged.weights, ragged.times)
    width += table.lengths(name) * sum(x[:1].nbytes for x in arrays if x is not None)
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


def _evaluate(
  trained: Trained,
  table: Table,
  output: Output,
  bags: Bags,
  player: np.ndarray,
  asked: list[tuple[int, np.ndarray]],
) -> list[np.ndarray]:
  """The outputs of several rows' coalitions, evaluated as one table."""
  sizes = [len(coalitions) for _, coalitions in asked]
  rows = np.repeat([row for row, _ in asked], sizes)
  keep = np.concatenate([coalitions.ravel() for _, coalitions in asked])
  players = np.repeat([coalitions.shape[1] for _, coalitions in asked], sizes)
  first = np.cumsum(players) - players  # Start of each coalition in `keep`.
  lengths = bags.lengths[rows]
  offsets = offsets_from_lengths(lengths)
  slots = element_slots(bags.offsets[:-1][rows], lengths, offsets)
  kept = keep[np.repeat(first, lengths) + player[slots]]
  logits = trained.logits(keep_elements(table.select(rows), kept))
  worths = output.select(rows).of(logits).astype(np.float64)
  return np.split(worths, np.cumsum(sizes)[:-1])


def output_of_subsets(trained: Trained, table: Table, output: Output) -> np.ndarray:
  """The output of every subset of modalities, `[b, 2**m]`, in the order of `subsets`.

  Subsets that are equal for an example, because it lacks the modalities in which they
  differ, are evaluated once. If the fusion merges partial states, each modality is
  encoded and pooled once; otherwise each subset takes one evaluation.
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
  """The present modalities of each example as players.

  Returns:
    The player that owns each element, numbered among the present modalities of its
    example, `[n]`; the number of players, `[b]`; and which modalities are present,
    `[b, m]` bool.
  """
  bags = Bags(table)
  present = np.stack([table.lengths(k) > 0 for k in table.schema.modalities], axis=1)
  place = np.cumsum(present, axis=1) - 1
  return place[bags.example, bags.modality], present.sum(axis=1), present


@functools.cache
def subsets(n: int) -> np.ndarray:
  """All subsets of `n` players, `[2**n, n]` bool; bit `i` of the row is player `i`."""
  return (np.arange(1 << n)[:, None] >> np.arange(n)) & 1 == 1
