"""The part on recall: models of clicks, cold items, missing fields, and costs."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from configs import movielens_retrieval
from deepsets_jax import tasks
from deepsets_jax.data.datasets import movielens
from deepsets_jax.data.interactions.histories import leave_out
from deepsets_jax.data.interactions.next_item import HISTORY, users_before
from deepsets_jax.data.tables.ablation import keep_modalities
from deepsets_jax.tasks.retrieval import metrics, ranks
from experiments.results import retrieval_baselines, runs
from experiments.results.reading import printed

# By the name of a variant, what it says in the table.
_MODELS = {
  "history": "history",
  "users": "history + user fields",
  "text": "… + title, year, genres",
  "graph": "… + graph triples",
  "unordered": "history, order-free (mean)",
  "set_pool": "10 latest + user fields, 64 wide: set pool",
  "transformer": "10 latest, 64 wide: transformer in the history",
  "two_stage": "10 latest + user fields, 64 wide: two-stage",
  "single_stream": "10 latest + user fields, 64 wide: single stream",
  "seen_as_negatives": "history, seen items as negatives",
}
_COLUMNS = ("hr_10", "ndcg_10", "mrr")
# Of whom also the rarely seen targets are looked at.
_FEW = 5
_WEAKER = ("history", "graph")
# Latest events that are not known.
_DROPPED = (0, 1, 2, 5, 10, 20)


def retrieval_part() -> tuple[str, dict[str, Any]]:
  """All tables, and where they were made."""
  blocks = [
    _models(),
    "The weaker protocol, among 100 sampled items:",
    _weaker(),
    "Items that nothing is trained on, a tenth of all:",
    _cold(),
    "The most recent events unknown, and user fields absent, HR@10:",
    _missing(),
    "What it costs:",
    printed("retrieval"),
    printed("retrieval_training"),
  ]
  return "\n\n".join(blocks), runs.facts(_name("history", 0))


def _name(variant: str, seed: int) -> str:
  return f"movielens_retrieval_{variant}_{seed}"


def _results(variant: str) -> list[Mapping[str, Any]]:
  return [
    runs.once(movielens_retrieval.get_config(f"{variant},{seed}"), _name(variant, seed))
    for seed in runs.SEEDS
  ]


@functools.cache
def _loaded(variant: str) -> list[tuple[Any, Any]]:
  """The task and the parameters of each seed."""
  _results(variant)
  return [tasks.load_task(runs.RUNS / _name(variant, seed)) for seed in runs.SEEDS]


@functools.cache
def _baselines() -> Mapping[str, Mapping[str, float]]:
  histories = movielens.load_movielens().histories
  return retrieval_baselines.evaluate(histories, leave_out(histories)[0]["test"])


def _models() -> str:
  """Baselines and models in full ranking."""
  head = ["model", "parameters", "examples/s", "HR@10", "NDCG@10", "MRR", "coverage"]
  rows = []
  for name, values in _baselines().items():
    rows.append([name, "", "", *(f"{values[key]:.3f}" for key in _COLUMNS), ""])
  for variant, label in _MODELS.items():
    found = _results(variant)
    rate = np.mean([result["examples_per_second"] for result in found])
    cells = [f"{found[0]['parameters']:,}", f"{rate:,.0f}"]
    for key in (*_COLUMNS, "coverage_10"):
      cells.append(runs.spread([result["test"][key] for result in found]))
    rows.append([label, *cells])
  return runs.table(head, rows)


def _weaker() -> str:
  rows = [
    [name, *(f"{values[f'sampled_{key}']:.3f}" for key in _COLUMNS[:2])]
    for name, values in _baselines().items()
  ]
  for variant in _WEAKER:
    found = [_sampled(*loaded) for loaded in _loaded(variant)]
    cells = [runs.spread([values[key] for values in found]) for key in _COLUMNS[:2]]
    rows.append([_MODELS[variant], *cells])
  return runs.table(["model", "HR@10", "NDCG@10"], rows)


def _sampled(task: Any, params: Any) -> dict[str, float]:
  split = task.splits["test"]
  targets, known = split.targets(task.histories), split.known(task.histories)
  items = task.items(params)
  users = task.users(params, items, task.before("test"))
  found = ranks.among_sampled((users, items), targets, known, user_rows=split.user_rows)
  return metrics.of_ranks(found, np.diff(targets.offsets))


def _cold() -> str:
  """Cold items with and without content, and targets that were seldom seen."""
  rows = []
  for variant, label in (
    ("cold_ids", "ids alone"),
    ("cold", "title, year, genres, triples; ids where there are events"),
  ):
    found, sizes = _results(variant), _loaded(variant)[0][0].splits["cold"]
    cells = [
      runs.spread([result[split][key] for result in found])
      for split in ("cold", "cold_alone")
      for key in ("hr_10", "ndcg_10")
    ]
    rows.append([label, *cells])
  head = ["items are known by", "HR@10", "NDCG@10", "HR@10, cold alone", "NDCG@10"]
  cold, targets = len(sizes.cold_rows), len(sizes.target_rows)
  seldom = {variant: [_seldom(*x) for x in _loaded(variant)] for variant in _WEAKER}
  count = seldom["history"][0][0]
  hits = "; ".join(
    f"{_MODELS[variant]} {runs.spread([float(hit) for _, hit in found], 1)}"
    for variant, found in seldom.items()
  )
  return "\n\n".join(
    [
      runs.table(head, rows),
      f"{targets} users asked for one of {cold} cold items, among all 1,682 and among"
      f" the cold ones alone. Of leave-one-out's test targets {count} have fewer than"
      f" {_FEW} training events; found among the first 10: {hits}.",
    ]
  )


def _seldom(task: Any, params: Any) -> tuple[int, int]:
  """Test targets with few training events, and how many of them are found."""
  split = task.splits["test"]
  targets, known = split.targets(task.histories), split.known(task.histories)
  items = task.items(params)
  users = task.users(params, items, task.before("test"))
  found = ranks.of_vectors(users, items, targets, known)
  few = task.histories.popularity(task.train_ends)[targets.values] < _FEW
  return int(few.sum()), int((found[few] < 10).sum())


def _missing() -> str:
  rows = []
  for fields, label in ((True, "user fields known"), (False, "absent")):
    cells = [
      runs.spread([_without(*loaded, fields, n) for loaded in _loaded("users")])
      for n in (*_DROPPED, None)
    ]
    rows.append([label, *cells])
  head = ["", *(f"latest {n} unknown" for n in _DROPPED), "no history"]
  return runs.table(head, rows)


def _without(task: Any, params: Any, fields: bool, latest: int | None) -> float:
  """HR@10 on test without the latest events (None: without any), or user fields."""
  split, histories = task.splits["test"], task.histories
  begins = histories.offsets[:-1][split.user_rows]
  ends = begins if latest is None else np.maximum(split.known_ends - latest, begins)
  table = users_before(histories, split.user_rows, ends, task.examples.max_history)
  names: Sequence[str] = list(table.schema.modalities)
  keep = np.array([fields or name == HISTORY for name in names])
  table = keep_modalities(table, np.broadcast_to(keep, (len(table), len(names))))
  return task.evaluate(params, "test", table)["hr_10"]
