"""Leave one out: what the output loses when one part is not there."""

from __future__ import annotations

import numpy as np

from deepsets_jax.analysis.attribution.coalitions import present_modalities, worth
from deepsets_jax.analysis.attribution.outputs import Output
from deepsets_jax.analysis.attribution.result import Importance
from deepsets_jax.data.tables.ablation import Bags
from deepsets_jax.data.tables.table import Table
from deepsets_jax.tasks.trained import Trained


def leave_one_out(trained: Trained, table: Table, output: Output) -> Importance:
  """f(all) - f(all but one), of each element and of each modality.

  A modality is left out as a whole: it does not have the sum of its elements. Of two
  that say the same, neither is missed: both count 0.
  """
  names, bags = list(table.schema.modalities), Bags(table)
  player, counts, present = present_modalities(table)
  losses = np.zeros(present.shape)
  losses[present] = _losses(trained, table, output, player, counts)
  elements = _losses(trained, table, output, bags.position, bags.lengths)
  return Importance(
    "leave_one_out",
    table,
    {name: losses[:, index] for index, name in enumerate(names)},
    bags.split(elements),
  )


def _losses(
  trained: Trained,
  table: Table,
  output: Output,
  player: np.ndarray,
  counts: np.ndarray,
) -> np.ndarray:
  """What each player's absence costs, row by row: `[players of all rows]`."""
  worths = worth(
    trained,
    table,
    output,
    player,
    counts,
    lambda _, n: np.concatenate([np.ones((1, n), bool), ~np.eye(n, dtype=bool)]),
  )
  return np.concatenate([each[0] - each[1:] for each in worths])
