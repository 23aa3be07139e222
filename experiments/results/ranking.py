"""The section on ranking: losses on lists of ratings."""

from __future__ import annotations

from configs import movielens_ranking
from deepsets_jax.data.datasets import movielens
from deepsets_jax.data.interactions.lists import last_part
from experiments.results import ranking_baselines, runs, tables

_LOSSES = ("pairwise", "softmax", "pointwise")


def ranking_section() -> runs.Section:
  """Tabulate baselines and losses on MovieLens 100K."""
  columns = ranking_baselines.COLUMNS
  histories = movielens.load_movielens().histories
  baselines = ranking_baselines.evaluate(histories, last_part(histories)[0]["test"])
  rows = [
    [name, "", *cells]
    for name, *cells in tables.score_rows(baselines, columns.values())
  ]
  for loss in _LOSSES:
    found = runs.results_of(movielens_ranking, f"ratings,{loss},{{}}")
    cells = [tables.metric_over_seeds(found, "test", key) for key in columns.values()]
    rows.append([f"scorer, {loss}", f"{found[0]['parameters']:,}", *cells])
  head = ["model", "parameters", *columns]
  return runs.Section(tables.markdown_table(head, rows), found[0])
