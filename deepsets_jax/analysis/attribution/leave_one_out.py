"""Leave-one-out attribution: the loss of output when one part is removed."""

from __future__ import annotations

import numpy as np

from deepsets_jax.analysis.attribution.coalitions import present_modalities, worth
from deepsets_jax.analysis.attribution.outputs import Output
from deepsets_jax.analysis.attribution.result import Attribution
from deepsets_jax.data.tables.ablation import Bags
from deepsets_jax.data.tables.table import Table
from deepsets_jax.tasks.trained import Trained


def leave_one_out(trained: Trained, table: Table, output: Output) -> Attribution:
  """f(all) - f(all but one), for each element and for each modality.

  A modality is removed as a whole, so its score is not the sum over its elements. If
  two parts carry the same information, removing either changes nothing and both score
  0.
  """
  names, bags = list(table.schema.modalities), Bags(table)
  player, counts, present = present_modalities(table)
  losses = np.zeros(present.shape)
  losses[present] = _losses(trained, table, output, player, counts)
  elements = _losses(trained, table, output, bags.position, bags.lengths)
  return Attribution(
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
  """The loss of output without each player, row after row: `[players of all rows]`."""
  worths = worth(
    trained,
    table,
    output,
    player,
    counts,
    lambda _, n: np.concatenate([np.ones((1, n), bool), ~np.eye(n, dtype=bool)]),
  )
  return np.concatenate([each[0] - each[1:] for each in worths])
