"""The part on ranking: losses on lists of ratings."""

from __future__ import annotations

from typing import Any

from configs import movielens_ranking
from deepsets_jax.data.datasets import movielens
from deepsets_jax.data.interactions.lists import last_part
from experiments.results import ranking_baselines, runs

_LOSSES = ("pairwise", "softmax", "pointwise")
_COLUMNS = {
  "NDCG@10": "ndcg_10",
  "NDCG": "ndcg",
  "MRR, liked": "mrr",
  "concordance": "concordance",
}


def ranking_part() -> tuple[str, dict[str, Any]]:
  """Baselines and losses, and where they were measured."""
  histories = movielens.load_movielens().histories
  baselines = ranking_baselines.evaluate(histories, last_part(histories)[0]["test"])
  rows = [
    [name, "", *(f"{values[key]:.3f}" for key in _COLUMNS.values())]
    for name, values in baselines.items()
  ]
  for loss in _LOSSES:
    rows.append(_row(loss))
  table = runs.table(["model", "parameters", *_COLUMNS], rows)
  return table, runs.facts(_name("pairwise", 0))


def _name(loss: str, seed: int) -> str:
  return f"movielens_rank_ratings_{loss}_{seed}"


def _row(loss: str) -> list[str]:
  found = [
    runs.once(movielens_ranking.get_config(f"ratings,{loss},{seed}"), _name(loss, seed))
    for seed in runs.SEEDS
  ]
  cells = [
    runs.spread([result["test"][key] for result in found]) for key in _COLUMNS.values()
  ]
  return [f"scorer, {loss}", f"{found[0]['parameters']:,}", *cells]
