"""Whole small runs of retrieval, and failures."""

import dataclasses
import json
import math
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax import tasks
from deepsets_jax.data.datasets import registry
from deepsets_jax.data.interactions.histories import leave_out, of_events
from deepsets_jax.data.interactions.next_item import HISTORY, users_before
from deepsets_jax.data.tables.batching import Batcher, Budget
from deepsets_jax.tasks import fit, trained
from deepsets_jax.tasks.retrieval import nearest
from deepsets_jax.training import checkpoints, run_folder
from deepsets_jax.training import loop as train
from tests.data.interactions.clicks import (
  AROUND,
  ITEMS,
  NEVER,
  WITHOUT_FIELDS,
  make_histories,
  make_source,
  small_config,
)

STEPS = 60
USERS = 200


@pytest.fixture(scope="module", autouse=True)
def clicks():
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(registry, "load_histories", lambda data: make_source(users=USERS))
    yield


def config_of(**changes):
  learning = {
    "total_steps": STEPS,
    "train.eval_every": 25,
    "data.element_dropout": 0.1,
    "data.histories.id_events": 1,
    "optim.ema_decay": 0.9,
  }
  return small_config(**learning | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """The folder and the results of a run, and the names of what was compiled."""
  compiled = []

  def listen(event, seconds, **facts):
    if event.endswith("backend_compile_duration"):
      compiled.append(facts["fun_name"])

  jax.monitoring.register_event_duration_secs_listener(listen)
  workdir = tmp_path_factory.mktemp("runs") / "whole"
  results = fit.train_and_evaluate(config_of(), workdir)
  return workdir, results, list(compiled)


@pytest.fixture(scope="module")
def best(finished):
  """The task of the run, and the parameters it ended with."""
  workdir, _, _ = finished
  task = tasks.build_task(run_folder.read_config(workdir))
  return task, jax.device_get(final_state(task, workdir, best=True).eval_params)


def final_state(task, workdir, *, best=False):
  with checkpoints.Checkpoints(workdir / "checkpoints", higher_is_better=True) as kept:
    state, position = kept.restore(task.abstract_state)
    if best:
      state, _ = kept.restore(task.abstract_state, position.best_step)
    return state


def lines_of(workdir, split):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [line for line in map(json.loads, lines) if line["split"] == split]


class TestARun:
  def test_learns_more_than_popularity(self, finished):
    _, results, _ = finished
    histories = make_histories(users=USERS)
    splits, ends = leave_out(histories)
    popularity = histories.popularity(ends)
    popular = loop(np.tile(popularity, (USERS, 1)), histories, splits["test"])
    assert popular["hr_10"] < 0.3
    assert results["test"]["hr_10"] > popular["hr_10"] + 0.5, results["test"]
    assert results["test"]["ndcg_10"] > 2 * popular["ndcg_10"]

  def test_compiles_its_step_once(self, finished):
    # Of what evaluates, there is one function of users and one of items.
    assert finished[2].count("jit(device_step)") == 1
    assert finished[2].count("jit(device_fn)") == 2

  def test_writes_its_files(self, finished):
    workdir, results, _ = finished
    names = {path.name for path in workdir.iterdir()}
    assert names >= {"config.json", "results.json", "learning_curves.png"}
    stored = json.loads((workdir / "results.json").read_text())
    assert stored["test"] == results["test"]
    assert stored["summary"]["parameters"] == stored["parameters"]
    assert stored["examples_per_second"] > 0
    config = json.loads((workdir / "config.json").read_text())
    assert set(config["data"]["budgets"]) == {
      "taste", "age", "history", "item_id", "item_word", "item_picture"
    }  # fmt: skip
    assert config["train"]["metric"] == "ndcg_10"

  def test_writes_each_step_once_with_the_use_of_slots(self, finished):
    workdir, _, _ = finished
    steps = lines_of(workdir, "train")
    assert [x["step"] for x in steps] == list(range(1, STEPS + 1))
    for name in ("history", "taste", "item_id", "item_word"):
      assert all(0 < x[f"fill_{name}"] <= 1 for x in steps)
    evaluated = lines_of(workdir, "validation")
    assert [x["step"] for x in evaluated] == [25, 50, 60]
    assert "coverage_10" in evaluated[0]

  @pytest.mark.slow
  @pytest.mark.parametrize("how", ["plug", "signal"])
  def test_resumes_bit_for_bit(self, finished, best, tmp_path, monkeypatch, how):
    whole, results, _ = finished
    interrupt(monkeypatch, tmp_path, at_step=31, how=how)
    again = fit.train_and_evaluate(config_of(), tmp_path)
    a, b = (final_state(best[0], folder) for folder in (tmp_path, whole))
    a, b = (x.replace(key=jax.random.key_data(x.key)) for x in (a, b))
    assert int(a.step) == STEPS
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert again["test"] == results["test"]
    both = [(folder / "metrics.jsonl").read_text() for folder in (tmp_path, whole)]
    assert both[0] == both[1]

  def test_is_not_a_supervised_run(self, finished):
    with pytest.raises(ValueError, match="retrieval"):
      trained.load_trained(finished[0])


class _PulledPlugError(Exception):
  pass


def interrupt(monkeypatch, workdir, at_step, how):
  """Interrupt a run after some steps, by a signal or by an exception."""
  run_steps, taken = train._train, []

  def counting(task, step, *rest):
    def counted(state, batch):
      taken.append(None)
      if len(taken) == at_step and how == "signal":
        os.kill(os.getpid(), signal.SIGTERM)
      if len(taken) > at_step:
        raise _PulledPlugError
      return step(state, batch)

    return run_steps(task, counted, *rest)

  with monkeypatch.context() as patched:
    patched.setattr(train, "_train", counting)
    with pytest.raises(SystemExit if how == "signal" else _PulledPlugError):
      fit.train_and_evaluate(config_of(), workdir)


def loop(scores, histories, split):
  """The metrics at 10, user by user, of scores `[users, items]`."""
  found = {"hr_10": [], "ndcg_10": [], "mrr": []}
  for user, known_end, target_end in zip(
    split.user_rows, split.known_ends, split.target_ends, strict=True
  ):
    known = histories.rows[histories.offsets[user] : known_end]
    (target,) = histories.rows[known_end:target_end]
    score = scores[user, target]
    others = np.delete(scores[user], np.append(known, target))
    rank = np.sum(others > score) + np.sum(others == score) / 2
    found["hr_10"].append(rank < 10)
    found["ndcg_10"].append(1 / math.log2(rank + 2) if rank < 10 else 0)
    found["mrr"].append(1 / (rank + 1))
  return {name: float(np.mean(values)) for name, values in found.items()}


def vectors(task, params, users):
  """Vectors of all items and of a table of users, on one device."""
  lengths = {k: int(users.lengths(k).sum()) + 8 for k in users.modalities}
  items = task.histories.items
  room = {k: int(items.lengths(k).sum()) + 8 for k in items.modalities}
  batches = (
    Batcher(table, Budget(len(table), slots)).shard(np.arange(len(table)))
    for table, slots in ((users, lengths), (items, room))
  )
  users, items = (jax.tree.map(jnp.asarray, x.modalities) for x in batches)
  users, items = jax.jit(task.model.apply)({"params": params}, users, items)
  return np.asarray(users, np.float64), np.asarray(items, np.float64)


class TestEvaluate:
  def test_equals_a_loop_over_users(self, finished, best):
    task, params = best
    histories, split = task.histories, task.splits["test"]
    users, items = vectors(task, params, task.before("test"))
    scores = np.zeros((USERS, ITEMS))
    scores[split.user_rows] = users @ items.T
    want = loop(scores, histories, split)
    results = finished[1]["test"]
    for name, value in want.items():
      np.testing.assert_allclose(results[name], value, 1e-6)
    np.testing.assert_allclose(results["recall_10"], want["hr_10"], 1e-6)

  def test_lists_have_no_item_that_the_user_has_seen(self, best):
    task, params = best
    seen = task.splits["test"].known(task.histories)
    lists = _lists(task, params, seen)
    for own, known in zip(lists, seen.to_lists(), strict=True):
      assert not set(own) & set(known) and len(set(own)) == 10
    unmasked = _lists(task, params, None)
    assert any(set(a) & set(b) for a, b in zip(unmasked, seen.to_lists(), strict=True))

  def test_fields_and_events_may_be_missing(self, finished, best):
    task, params = best
    table = task.before("test")
    nothing = dataclasses.replace(
      table,
      modalities={
        name: dataclasses.replace(
          ragged,
          values=ragged.values[:0],
          offsets=ragged.offsets * 0,
          times=None if ragged.times is None else ragged.times[:0],
        )
        for name, ragged in table.modalities.items()
      },
    )
    taste = {**nothing.modalities, "taste": table.modalities["taste"]}
    tasteful = dataclasses.replace(nothing, modalities=taste)
    found = [
      task.evaluate(params, "test", given)["hr_10"] for given in (nothing, tasteful)
    ]
    # A user's circle is of 12 items.
    assert found[0] + 0.2 < found[1] < finished[1]["test"]["hr_10"]


def _lists(task, params, seen):
  items = task.items(params)
  users = task.users(params, items, task.before("test"))
  return nearest.nearest(users, items, 10, seen)[1]


class TestColdUsersAndItems:
  def test_a_user_without_history_has_a_vector(self, best):
    task, params = best
    histories = task.histories
    table = users_before(histories, np.array([5]), histories.offsets[[5]], 50)
    assert not len(table.modalities[HISTORY].values)
    (user,) = task.users(params, task.items(params), table)
    assert np.isfinite(user).all() and np.abs(user).max() > 0

  def test_unseen_items_have_the_vectors_of_their_fields(self, best):
    task, params = best
    items = task.items(params)
    assert items.shape == (ITEMS, 8) and np.isfinite(items).all()
    never = np.arange(ITEMS - NEVER, ITEMS)
    assert not task.histories.items.lengths_of("id", never).any()
    assert task.histories.items.lengths_of("word", never).all()
    assert len(np.unique(items[never].round(5), axis=0)) == NEVER

  def test_an_item_without_fields_has_a_vector_without_ids(self):
    task = tasks.build_task(config_of(**{"data.histories.id_events": None}))
    items = task.items(task.init().eval_params)
    assert "id" not in task.histories.items.modalities
    assert np.isfinite(items[WITHOUT_FIELDS]).all()

  def test_a_history_over_the_window_counts_by_its_latest_events(self, best):
    task, params = best
    histories, items = task.histories, task.items(params)
    # Longer than any history of training, and than the budget of a shard.
    rows = np.arange(60) % AROUND
    longer, _ = of_events(
      histories.users, histories.items, np.zeros(60, int), rows, np.arange(60) * 99,
      where="log",
    )  # fmt: skip
    user, end = np.array([0]), np.array([60])
    got = task.users(params, items, users_before(longer, user, end, 50))
    latest, _ = of_events(
      histories.users, histories.items, np.zeros(50, int), rows[10:],
      np.arange(10, 60) * 99, where="log",
    )  # fmt: skip
    want = task.users(params, items, users_before(latest, user, np.array([50]), 60))
    np.testing.assert_array_equal(got, want)

  def test_a_log_in_any_order_and_with_duplicates_gives_the_same_vectors(self, best):
    task, params = best
    histories, items = task.histories, task.items(params)
    owners = np.repeat(np.arange(USERS), histories.lengths())
    # Events at one time would stay in the order of the log.
    times = np.arange(len(owners)) * 1000
    order = np.random.default_rng(0).permutation(np.arange(len(owners)).repeat(2))
    logs = (np.arange(len(owners)), order)
    (plain, _), (mended, counts) = (
      of_events(
        histories.users, histories.items, owners[log], histories.rows[log], times[log],
        where="log",
      )
      for log in logs
    )  # fmt: skip
    assert counts["duplicates"] == len(owners) and counts["out_of_order"] > 0
    users = np.arange(20)
    got, want = (
      task.users(params, items, users_before(x, users, x.offsets[1:][users], 50))
      for x in (mended, plain)
    )
    np.testing.assert_array_equal(got, want)


def test_all_items_are_negatives_if_there_are_fewer_than_asked_for():
  task = tasks.build_task(small_config(**{"retrieval.num_uniform_negatives": 1000}))
  batch = task.batcher.batch(0, [np.arange(1)], 0, 0)
  assert sorted(batch.negatives[0].tolist()) == list(range(64))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"data.histories.user_fields": ("smell",)}, "user_fields: no field 'smell'"),
    ({"data.histories.item_fields": ("smell",)}, "item_fields: no field 'smell'"),
    (
      {"retrieval.num_uniform_negatives": -1},
      "config.retrieval.num_uniform_negatives is -1; expected 0 to 64",
    ),
    (
      {"retrieval.num_uniform_negatives": 0, "retrieval.in_batch": False},
      "neither in_batch nor uniform",
    ),
    (
      {"retrieval.temperature": 0.0},
      "config.retrieval.temperature is 0.0; expected above 0",
    ),
    (
      {"retrieval.cutoffs": ()},
      r"config.retrieval.cutoffs is \(\); expected at least one",
    ),
    ({"retrieval.cutoffs": (10, 65)}, r"cutoffs is \(10, 65\).* from 1 to 64"),
    ({"retrieval.cutoffs": (0,)}, r"cutoffs is \(0,\)"),
    ({"data.histories.max_history": 0}, "max_history is 0; expected at least 1"),
    ({"data.histories.examples": "all"}, "examples 'all'; one of"),
    ({"data.histories.held_out": 0}, "held_out 0: expected at least 1"),
    ({"data.histories.held_out": 5}, "no user has 11 events, .* longest .* has 9"),
    ({"data.batch_size": 33}, "config.data.batch_size 33 is not a multiple"),
    ({"data.modality_dropout": 1.5}, "modality_rate 1.5"),
    (
      {"train.metric": "ndcg_20"},
      "unknown config.train.metric 'ndcg_20'; choose one of",
    ),
    ({"train.metric": "loss"}, "unknown config.train.metric 'loss'"),
    ({"item_model.features": 0}, "config.item_model.features is 0"),
    ({"model.fading": ("taste",)}, "fading: 'taste' is declared unordered"),
    ({"model.fading": ("smell",)}, "fading: no modality 'smell'"),
    (
      {"model.head.project": False, "model.features": 16},
      "project is False, and the head's last vector is 16 wide, not 8",
    ),
  ],
)
def test_a_bad_setting_is_named_before_anything_is_written(tmp_path, changes, message):
  config = config_of(**changes)
  with pytest.raises(ValueError, match=message):
    fit.train_and_evaluate(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def of_budgets(**slots):
  config = config_of()
  config.data.budgets.update(slots)
  return config


class TestBudgets:
  @pytest.mark.parametrize(
    ("slots", "message"),
    [
      (
        {"smell": 8},
        "config.data.budgets.smell: the data has no such modality; choose",
      ),
      ({"item_smell": 8}, "config.data.budgets.item_smell: the data has no such"),
      ({"item_taste": 8}, "config.data.budgets.item_taste: the data has no such"),
      ({"item_word": 0}, "config.data.budgets.item_word is 0; expected at least 1"),
      ({"age": 0}, "config.data.budgets.age is 0, but a user has up to 1"),
      (
        {"history": 5},
        "history is 5, but .* up to 6 .* config.data.histories.max_history",
      ),
    ],
  )
  def test_of_unknown_modalities_or_too_small_are_named(self, slots, message):
    with pytest.raises(ValueError, match=message):
      tasks.build_task(of_budgets(**slots))

  def test_open_budgets_are_proposed(self):
    task = tasks.build_task(of_budgets(item_word=40, history=16))
    slots = task.config.data.budgets
    assert slots["item_word"] == task.batcher.item_budget.slots["word"] == 40
    assert slots["history"] == task.budget.slots["history"] == 16
    assert set(slots) == {f"item_{x}" for x in ("id", "word", "picture")} | {
      "taste",
      "age",
      "history",
    }

  @pytest.mark.slow
  def test_items_that_training_cuts_are_whole_in_evaluation(self):
    roomy, tight = (
      tasks.build_task(of_budgets()),
      tasks.build_task(of_budgets(item_word=8)),
    )
    params = roomy.init().eval_params
    np.testing.assert_allclose(roomy.items(params), tight.items(params), 1e-5, 1e-6)

  @pytest.mark.parametrize("examples", ["prefixes", "users"])
  def test_a_long_max_history_takes_at_most_a_slot_per_event(self, examples):
    slots = [
      tasks.build_task(
        config_of(
          **{
            "data.histories.max_history": window,
            "data.histories.examples": examples,
            "data.batch_size": 8,
          }
        )
      ).budget.slots["history"]
      for window in (50, 10**6)
    ]
    assert slots[0] == slots[1] == 8  # The longest of training has six before it.


def test_fields_whose_names_clash_are_named(monkeypatch):
  source = make_source(users=USERS)
  users = source.histories.users
  for name, message in (
    ("history", "field of users is called 'history'"),
    ("item_word", "user field 'item_word' and the item field 'word'"),
  ):
    schema = dataclasses.replace(
      users.schema, modalities={name: users.schema.modalities["taste"]}
    )
    clash = dataclasses.replace(
      users, schema=schema, modalities={name: users.modalities["taste"]}
    )
    source.histories = dataclasses.replace(source.histories, users=clash)
    monkeypatch.setattr(registry, "load_histories", lambda data: source)
    with pytest.raises(ValueError, match=message):
      tasks.build_task(config_of())
