"""The section on retrieval: models of clicks, cold items, missing fields, costs."""

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
from experiments.results import retrieval_baselines, runs, tables
from experiments.results.reading import benchmark_output

# Variant of the config -> its name in the tables.
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
_METRICS = ("hr_10", "ndcg_10", "mrr")
# Variants that are also measured among 100 sampled items and on rare targets.
_SAMPLED = ("history", "graph")
# A target with fewer training events than this is rare.
_RARE = 5
# Numbers of latest events that are removed from the history.
_DROPPED = (0, 1, 2, 5, 10, 20)


def retrieval_section() -> runs.Section:
  """Make all tables on MovieLens 100K, and measure the costs."""
  blocks = [
    _models(),
    "A weaker protocol, ranking among 100 sampled items:",
    _weaker(),
    "Cold items, a tenth of all, without any training event:",
    _cold(),
    "HR@10 without the latest events, and without user fields:",
    _missing(),
    "Cost:",
    benchmark_output("retrieval"),
    benchmark_output("retrieval_training"),
  ]
  return runs.Section("\n\n".join(blocks), _results("history")[0])


def _results(variant: str) -> list[Mapping[str, Any]]:
  return runs.results_of(movielens_retrieval, f"{variant},{{}}")


@functools.cache
def _loaded(variant: str) -> list[tuple[Any, Any]]:
  """The task and the parameters of each seed."""
  _results(variant)
  return [
    tasks.load_task(run.folder)
    for run in runs.seeded_runs(movielens_retrieval, f"{variant},{{}}")
  ]


@functools.cache
def _baselines() -> Mapping[str, Mapping[str, float]]:
  histories = movielens.load_movielens().histories
  return retrieval_baselines.evaluate(histories, leave_out(histories)[0]["test"])


def _models() -> str:
  """Baselines and models, ranking all items."""
  head = ["model", "parameters", "examples/s", "HR@10", "NDCG@10", "MRR", "coverage"]
  rows = [
    [name, "", "", *cells, ""]
    for name, *cells in tables.score_rows(_baselines(), _METRICS)
  ]
  for variant, label in _MODELS.items():
    found = _results(variant)
    rate = np.mean([result["examples_per_second"] for result in found])
    cells = [
      tables.metric_over_seeds(found, "test", key) for key in (*_METRICS, "coverage_10")
    ]
    rows.append([label, f"{found[0]['parameters']:,}", f"{rate:,.0f}", *cells])
  return tables.markdown_table(head, rows)


def _weaker() -> str:
  """Baselines and models, ranking 100 sampled items."""
  keys = _METRICS[:2]
  rows = tables.score_rows(_baselines(), [f"sampled_{key}" for key in keys])
  for variant in _SAMPLED:
    found = [_sampled(*loaded) for loaded in _loaded(variant)]
    cells = [tables.mean_and_sd([values[key] for values in found]) for key in keys]
    rows.append([_MODELS[variant], *cells])
  return tables.markdown_table(["model", "HR@10", "NDCG@10"], rows)


def _test_case(task: Any, params: Any) -> tuple[Any, Any, Any, Any]:
  """Vectors of test users and of all items; targets and known items of the users."""
  split = task.splits["test"]
  items = task.items(params)
  users = task.users(params, items, task.before("test"))
  return users, items, split.targets(task.histories), split.known(task.histories)


def _sampled(task: Any, params: Any) -> dict[str, float]:
  """The test metrics among 100 sampled items."""
  users, items, targets, known = _test_case(task, params)
  rows = task.splits["test"].user_rows
  found = ranks.among_sampled((users, items), targets, known, user_rows=rows)
  return metrics.of_ranks(found, np.diff(targets.offsets))


def _cold() -> str:
  """Cold items with and without content, and rare targets."""
  rows = []
  for variant, label in (
    ("cold_ids", "ids alone"),
    ("cold", "title, year, genres, triples, and ids of items with events"),
  ):
    found, sizes = _results(variant), _loaded(variant)[0][0].splits["cold"]
    cells = [
      tables.metric_over_seeds(found, split, key)
      for split in ("cold", "cold_alone")
      for key in ("hr_10", "ndcg_10")
    ]
    rows.append([label, *cells])
  head = ["item features", "HR@10", "NDCG@10", "HR@10, cold items only", "NDCG@10"]
  cold, targets = len(sizes.cold_rows), len(sizes.target_rows)
  rare = {
    variant: [_rare_targets(*x) for x in _loaded(variant)] for variant in _SAMPLED
  }
  count = rare["history"][0][0]
  hits = "; ".join(
    f"{_MODELS[variant]} {tables.mean_and_sd([float(hit) for _, hit in found], 1)}"
    for variant, found in rare.items()
  )
  return "\n\n".join(
    [
      tables.markdown_table(head, rows),
      f"{targets} users have a target among the {cold} cold items, ranked among all"
      f" 1,682 items and among the cold ones alone. Of the test targets of"
      f" leave-one-out, {count} have fewer than {_RARE} training events; found among"
      f" the first 10: {hits}.",
    ]
  )


def _rare_targets(task: Any, params: Any) -> tuple[int, int]:
  """The number of rare test targets, and how many of them are in the top 10."""
  users, items, targets, known = _test_case(task, params)
  found = ranks.of_vectors(users, items, targets, known)
  rare = task.histories.popularity(task.train_ends)[targets.values] < _RARE
  return int(rare.sum()), int((found[rare] < 10).sum())


def _missing() -> str:
  """HR@10 without the latest events, with and without user fields."""
  rows = []
  for fields, label in ((True, "user fields known"), (False, "user fields absent")):
    cells = [
      tables.mean_and_sd([_hit_rate(*loaded, fields, n) for loaded in _loaded("users")])
      for n in (*_DROPPED, None)
    ]
    rows.append([label, *cells])
  head = ["", *(f"latest {n} unknown" for n in _DROPPED), "no history"]
  return tables.markdown_table(head, rows)


def _hit_rate(task: Any, params: Any, fields: bool, latest: int | None) -> float:
  """HR@10 on test, with or without user fields, without the latest events.

  `latest` is the number of removed events; None removes the whole history.
  """
  split, histories = task.splits["test"], task.histories
  begins = histories.offsets[:-1][split.user_rows]
  ends = begins if latest is None else np.maximum(split.known_ends - latest, begins)
  table = users_before(histories, split.user_rows, ends, task.examples.max_history)
  names: Sequence[str] = list(table.schema.modalities)
  keep = np.array([fields or name == HISTORY for name in names])
  table = keep_modalities(table, np.broadcast_to(keep, (len(table), len(names))))
  return task.evaluate(params, "test", table)["hr_10"]
