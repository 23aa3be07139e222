"""Whole runs of ranking on small rated clicks."""

import json
import re

import jax
import numpy as np
import pytest

from deepsets_jax import tasks
from deepsets_jax.data.datasets import registry
from deepsets_jax.tasks import fit
from deepsets_jax.tasks.ranking import metrics, scoring
from deepsets_jax.tasks.retrieval import metrics as recall_metrics
from deepsets_jax.tasks.retrieval import ranks
from deepsets_jax.training import sharding
from experiments.results import ranking_baselines
from tests.data.interactions.clicks import small_config
from tests.data.interactions.rated import make_source

USERS, LONGEST = 100, 24
# Of the weaker protocol: there are 64 items in all.
SAMPLED = 20


@pytest.fixture(scope="module", autouse=True)
def rated():
  with pytest.MonkeyPatch.context() as patched:
    source = make_source(users=USERS, longest=LONGEST)
    patched.setattr(registry, "load_histories", lambda data: source)
    patched.setattr(scoring, "_SAMPLED", SAMPLED)
    yield


def config_of(lists, **changes):
  config = small_config(
    **{
      "task": "ranking",
      "total_steps": 40,
      "train.eval_every": 40,
      "data.histories.id_events": 1,
      "data.histories.max_history": 8,
      "ranking.lists": lists,
      "ranking.list_size": 5,
      "ranking.negatives": 6,
      "ranking.hidden": (8,),
    }
    | changes
  )
  config.model.fading = ()
  return config


@pytest.fixture(
  scope="module", params=["ratings", pytest.param("clicks", marks=pytest.mark.slow)]
)
def finished(request, tmp_path_factory):
  """The kind of lists, the folder of a run, and its results."""
  workdir = tmp_path_factory.mktemp(request.param) / "run"
  results = fit.train_and_evaluate(config_of(request.param), workdir)
  return request.param, workdir, results


@pytest.fixture(scope="module")
def best(finished):
  """The task of the run, loaded from its folder, and its parameters."""
  return tasks.load_task(finished[1], "ranking")


def pair_scores(task, params, split):
  """`[users of the split, items]`, through batches of lists of all items."""
  users, items = task.vectors(params, split)
  score = jax.jit(
    lambda u, v: task.model.apply({"params": params}, u, v, method="score")
  )
  return np.stack([score(np.tile(u, (len(items), 1)), items) for u in users])


class TestARun:
  def test_learns_more_than_the_common_preferences(self, finished):
    lists, _, results = finished
    if lists == "ratings":
      histories = make_source(users=USERS, longest=LONGEST).histories
      split = ranking_baselines.last_part(histories)[0]["test"]
      found = ranking_baselines.evaluate(histories, split)
      common = [x["concordance"] for name, x in found.items() if "resid" not in name]
      assert len(common) == 4 and max(common) < 0.65
      assert results["test"]["concordance"] > 0.75, results["test"]
    else:
      # Of the 64 items, 10 at random are the right one once in six times.
      assert results["test"]["hr_10"] > 0.5, results["test"]

  def test_writes_its_files(self, finished):
    _, workdir, results = finished
    names = {path.name for path in workdir.iterdir()}
    assert names >= {"config.json", "results.json", "learning_curves.png"}
    stored = json.loads((workdir / "results.json").read_text())
    assert stored["test"] == results["test"]
    parts = stored["summary"]["parts"]
    assert stored["summary"]["parameters"] == stored["parameters"]
    assert stored["parameters"] == sum(part["parameters"] for part in parts.values())
    assert parts["scorer"]["parameters"] == 24 * 8 + 8 + 8 + 1
    assert parts["scorer"]["flops_per_example"] > 0
    config = json.loads((workdir / "config.json").read_text())
    assert set(config["data"]["budgets"]) == {
      "taste", "age", "history", "candidates", "item_id", "item_word", "item_picture"
    }  # fmt: skip
    assert config["train"]["metric"] == "ndcg_10"
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    steps = [x for x in map(json.loads, lines) if x["split"] == "train"]
    assert all(0 < x["fill_candidates"] <= 1 for x in steps)

  def test_its_metrics_equal_a_loop_over_users(self, finished, best):
    lists, _, results = finished
    task, params = best
    split, histories = task.splits["test"], task.histories
    scores = pair_scores(task, params, "test")
    targets = split.targets(histories)
    if lists == "ratings":
      rows = np.repeat(np.arange(len(scores)), targets.lengths)
      labels = task.examples.between(split.known_ends, split.target_ends)[1]
      want = metrics.of_lists(
        scores[rows, targets.values], labels, targets, relevant=task.examples.liked
      )
    else:
      known, lengths = split.known(histories), targets.lengths
      want = recall_metrics.of_ranks(ranks.of_scores(scores, targets, known), lengths)
      weaker = ranks.among_sampled(
        scores, targets, known, n=SAMPLED, user_rows=split.user_rows
      )
      weaker = recall_metrics.of_ranks(weaker, lengths)
      want |= {f"sampled_{name}": value for name, value in weaker.items()}
      assert set(want) == set(results["test"])
    for name, value in want.items():
      assert results["test"][name] == pytest.approx(value, abs=2e-3), name

  def test_training_and_evaluation_compute_the_same_scores(self, best):
    task, params = best
    lists = task.batcher.batch(0, [np.arange(4)], 0, 0)
    lists = jax.tree.map(lambda x: x[0], lists)
    logits = jax.jit(task.model.apply)(
      {"params": params},
      lists.users.modalities,
      lists.items.modalities,
      lists.candidates,
    )
    users, ends = task.examples.of_epoch(0, np.arange(4))
    table = task.examples.users_before(users, ends)
    items = task._vectors.items(params["towers"], task.histories.items)
    of_users = task._vectors.users(params["towers"], items, table)
    rows = np.repeat(np.arange(4), lists.candidates.lengths[:4])
    slots = lists.candidates.values[: len(rows)]
    got = task._pairs.scores(params, of_users, items, rows, lists.items.indices[slots])
    np.testing.assert_allclose(got, logits[: len(rows)], 1e-4, 1e-5)


@pytest.mark.slow
def test_a_step_is_the_same_on_one_device_and_on_eight_by_one_all_reduce():
  states = []
  for devices in (8, 1):
    mesh = jax.make_mesh(
      (devices,),
      (sharding.AXIS,),
      devices=jax.devices()[:devices],
      axis_types=(jax.sharding.AxisType.Auto,),
    )
    with pytest.MonkeyPatch.context() as patched:
      patched.setattr(sharding, "make_mesh", lambda mesh=mesh: mesh)
      task = tasks.build_task(config_of("ratings", **{"data.shards": 8}))
    step = task.compile_step()
    if devices == 8:
      program = step.as_text()
      assert len(re.findall(r" all-reduce(?:-start)?\(", program)) == 1
      assert "all-gather" not in program
    batch = next(task.train_batches())
    state, numbers = step(task.init(), sharding.put(batch, task.mesh))
    states.append(jax.device_get((state.params, numbers)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), *states)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"ranking.lists": "views"},
      r"ranking.lists 'views'; choose one of \['ratings', 'clicks'",
    ),
    ({"ranking.loss": "hinge"}, "unknown config.ranking.loss 'hinge'"),
    ({"ranking.list_size": 0}, "config.ranking.list_size is 0"),
    (
      {"train.metric": "auc"},
      r"config.train.metric 'auc'; choose one of \['ndcg_10', 'ndcg',",
    ),
    ({"data.budgets.colour": 8}, "config.data.budgets.colour: the data has no such"),
  ],
)
def test_a_bad_setting_is_named(changes, message):
  config = config_of("ratings")
  with config.unlocked():
    config.update_from_flattened_dict(
      {k: v for k, v in changes.items() if "colour" not in k}
    )
    if "data.budgets.colour" in changes:
      config.data.budgets.colour = 8
  with pytest.raises(ValueError, match=message):
    tasks.build_task(config)
