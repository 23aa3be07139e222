"""Whole small runs: files, resuming bit for bit, and failures."""

import json
import os
import pathlib
import shutil
import signal

import jax
import numpy as np
import pytest

from configs import smoke
from deepsets_jax.data.datasets import registry
from deepsets_jax.foundation.errors import DataError
from deepsets_jax.tasks import fit
from deepsets_jax.tasks.supervised import run as runs
from deepsets_jax.training import checkpoints, loop, run_folder

STEPS = 12


def small_config(**changes):
  config = smoke.get_config()
  config.total_steps = STEPS
  config.data.update(batch_size=16, element_dropout=0.1)
  config.data.digits.train_examples = 100
  config.model.features = 4
  config.model.dense.update(hidden=(4,), dropout=0.1)
  config.model.head.hidden = (4,)
  config.optim.update(warmup_steps=2, ema_decay=0.9)
  config.train.update(eval_every=5, log_every=1)
  config.update_from_flattened_dict(changes)
  return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "whole"
  results = fit.train_and_evaluate(small_config(), workdir)
  return workdir, results


def final_state(workdir):
  run = runs.build_run(run_folder.read_config(workdir))
  with checkpoints.Checkpoints(workdir / "checkpoints", higher_is_better=True) as kept:
    return kept.restore(run.abstract_state)[0]


def assert_same_state(a, b):
  assert int(a.step) == int(b.step) == STEPS
  np.testing.assert_array_equal(jax.random.key_data(a.key), jax.random.key_data(b.key))
  a, b = a.replace(key=None), b.replace(key=None)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_run_writes_its_files(finished):
  workdir, results = finished
  names = {path.name for path in workdir.iterdir()}
  assert names >= {"config.json", "metrics.jsonl", "results.json", "checkpoints"}
  assert names >= {"tensorboard", "learning_curves.png", "set_sizes.png"}
  assert not [name for name in names if name.startswith(".")]  # Nothing half-written.
  assert any((workdir / "tensorboard").glob("events.out.tfevents.*"))
  stored = json.loads((workdir / "results.json").read_text())
  assert stored["test"]["accuracy"] == results["test"]["accuracy"]
  for key in ("validation", "threshold", "parameters", "seconds", "versions", "device"):
    assert key in stored
  assert stored["examples_per_second"] > 0
  assert stored["summary"]["parameters"] == stored["parameters"]
  assert stored["summary"]["step"]["flops_per_example"] > 0
  state = final_state(workdir)
  sizes = [x.size for x in jax.tree.leaves(state.params)]
  assert stored["parameters"] == sum(sizes)


def test_metrics_hold_each_step_once_in_order(finished):
  workdir, _ = finished
  lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
  steps = [x["step"] for x in lines if x["split"] == "train"]
  assert steps == list(range(1, STEPS + 1))
  evaluated = [x["step"] for x in lines if x["split"] == "validation"]
  assert evaluated == [5, 10, 12]
  train_lines = [x for x in lines if x["split"] == "train"]
  assert all(0 < x["fill_image"] <= 1 for x in train_lines)


def test_a_run_prints_its_costs_and_compiles_its_step_once(tmp_path, capsys):
  compiled = []

  def listen(event, seconds, **facts):
    if event.endswith("backend_compile_duration"):
      compiled.append(facts["fun_name"])

  jax.monitoring.register_event_duration_secs_listener(listen)
  fit.train_and_evaluate(small_config(), tmp_path)
  assert compiled.count("jit(device_step)") == 1
  said = capsys.readouterr().out
  assert said.index("parameters") < said.index("Compiled step: ")


class _PulledPlugError(Exception):
  pass


def interrupted(monkeypatch, workdir, at_step, how):
  """Interrupt a run after some steps, by a signal or by an exception."""
  run_steps, taken = loop._train, []

  def counting(run, step, *rest):
    def counted(state, batch):
      taken.append(None)
      if len(taken) == at_step and how == "signal":
        os.kill(os.getpid(), signal.SIGTERM)
      if len(taken) > at_step:
        raise _PulledPlugError
      return step(state, batch)

    return run_steps(run, counted, *rest)

  with monkeypatch.context() as patched:
    patched.setattr(loop, "_train", counting)
    with pytest.raises(SystemExit if how == "signal" else _PulledPlugError):
      fit.train_and_evaluate(small_config(), workdir)


@pytest.mark.parametrize(
  ("at_step", "how", "latest"), [(3, "plug", None), (7, "plug", 5), (8, "signal", 8)]
)
def test_resuming_is_bit_for_bit(monkeypatch, tmp_path, finished, at_step, how, latest):
  whole, results = finished
  interrupted(monkeypatch, tmp_path, at_step, how)
  with checkpoints.Checkpoints(tmp_path / "checkpoints", higher_is_better=True) as kept:
    assert kept.latest == latest
  again = fit.train_and_evaluate(small_config(), tmp_path)
  assert_same_state(final_state(tmp_path), final_state(whole))
  assert again["test"] == results["test"]
  metrics = [(f / "metrics.jsonl").read_text() for f in (tmp_path, whole)]
  assert metrics[0] == metrics[1]


def test_a_finished_run_is_only_evaluated_again(finished):
  workdir, results = finished
  before = (workdir / "metrics.jsonl").read_text()
  again = fit.train_and_evaluate(small_config(), workdir)
  assert again["test"] == results["test"]
  assert (workdir / "metrics.jsonl").read_text() == before


def test_another_config_is_refused_and_nothing_changes(finished):
  workdir, _ = finished
  before = sorted(str(path) for path in workdir.rglob("*"))
  with pytest.raises(ValueError, match=r"model.features: 4 there, 8 here"):
    fit.train_and_evaluate(small_config(**{"model.features": 8}), workdir)
  assert sorted(str(path) for path in workdir.rglob("*")) == before


def test_a_checkpoint_of_another_model_is_refused(finished, tmp_path):
  workdir, _ = finished
  shutil.copytree(workdir / "checkpoints", tmp_path / "checkpoints")
  with pytest.raises(ValueError, match=r"another model: its parameter .* is \("):
    fit.train_and_evaluate(small_config(**{"model.features": 8}), tmp_path)


def test_early_stopping_keeps_the_best(tmp_path, monkeypatch):
  # Nothing is learned at rate 0, so that the first evaluation stays the best.
  config = small_config(**{"optim.learning_rate": 0.0, "train.patience": 2})
  config.update_from_flattened_dict({"total_steps": 50, "train.eval_every": 3})
  results = fit.train_and_evaluate(config, tmp_path)
  assert results["best_step"] == 3
  steps = [int(path.name) for path in (tmp_path / "checkpoints").iterdir()]
  assert sorted(steps) == [3, 6, 9]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
  tmp_path, monkeypatch
):
  run_steps = loop._train

  def poisoned(run, step, *rest):
    def nan_at_six(state, batch):
      if int(state.step) == 6:
        state = state.replace(params=jax.tree.map(lambda x: x * np.nan, state.params))
      return step(state, batch)

    return run_steps(run, nan_at_six, *rest)

  monkeypatch.setattr(loop, "_train", poisoned)
  with pytest.raises(loop.NonFiniteError) as error:
    fit.train_and_evaluate(small_config(), tmp_path)
  for part in (
    "loss is nan at step 7",
    "of step 5 is kept",
    "learning_rate",
  ):
    assert part in str(error.value)
  assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["5"]


def _store(tmp_path, spoil):
  """Write the small data set as tables, spoil one, and return its config."""
  tables = registry.load_tables(small_config().data, seed=0)
  for split, table in tables.items():
    table.write(tmp_path / "tables" / split)
  spoil(tmp_path / "tables" / "train")
  config = small_config(**{"data.name": "tables"})
  config.data.path = str(tmp_path / "tables")
  return config


def _edit(name, change):
  def spoil(folder):
    array = np.load(folder / name)
    np.save(folder / name, change(array.copy()))

  return spoil


def _set(index, value):
  def change(array):
    array[index] = value
    return array

  return change


def _truncate(folder: pathlib.Path):
  path = folder / "image.values.npy"
  path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
  ("spoil", "parts"),
  [
    (_edit("image.values.npy", _set((3, 2), np.nan)), ["'image'", "row", "feature 2"]),
    (_edit("profile.values.npy", _set((0, 0), np.inf)), ["'profile'", "not finite"]),
    (_edit("ocr.values.npy", _set(0, 10)), ["'ocr'", "outside the vocabulary of 10"]),
    (_edit("targets.npy", _set(4, 10)), ["target", "(row 4)", "from 0 to 9"]),
    (_edit("image.offsets.npy", _set(2, 99)), ["'image'", "offsets decrease"]),
    (_edit("image.values.npy", lambda x: x[:, :5]), ["'image'", "(5,)", "(64,)"]),
    (_truncate, ["image.values.npy", "truncated", "write the table again"]),
    (lambda folder: (folder / "ids.npy").unlink(), ["ids.npy", "missing"]),
    (lambda folder: shutil.rmtree(folder), ["no split 'train'"]),
  ],
)
def test_bad_data_is_named_before_anything_is_written(tmp_path, spoil, parts):
  config = _store(tmp_path, spoil)
  with pytest.raises(DataError) as error:
    fit.train_and_evaluate(config, tmp_path / "run")
  for part in parts:
    assert part in str(error.value)
  assert not (tmp_path / "run").exists()


def test_stored_tables_train_as_their_source_does(tmp_path, finished):
  config = _store(tmp_path, lambda folder: None)
  results = fit.train_and_evaluate(config, tmp_path / "run")
  assert results["test"] == finished[1]["test"]


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    ({"data.name": "imdb"}, "unknown config.data.name 'imdb'"),
    ({"data.digits.task": "minimum"}, "minimum"),
    ({"data.batch_size": 17}, "config.data.batch_size 17 is not a multiple"),
    ({"data.batch_size": 0}, "config.data.batch_size is 0; expected at least 1"),
    ({"train.eval_every": 0}, "config.train.eval_every is 0"),
    ({"total_steps": -1}, "config.total_steps is -1"),
    ({"data.budgets.image": 0}, "'image' elements, and the budget is 0"),
    ({"model.head.activation": "swish"}, "unknown activation 'swish'"),
    ({"model.set_pool.pools": ("median",)}, "the pool 'median' does not merge"),
    ({"data.shards": 3}, "config.data.shards 3 is not a multiple of the 8 devices"),
    ({"data.overflow": "last"}, "unknown config.data.overflow 'last'"),
    ({"data.budgets.image": 2}, "'image' elements, and the budget is 2"),
    ({"data.modality_dropout": 1.5}, "modality_rate 1.5"),
    ({"train.metric": "f1_micro"}, "unknown config.train.metric 'f1_micro'"),
    ({"optim.schedule": "step"}, "unknown config.optim.schedule 'step'"),
    ({"optim.warmup_steps": 12}, "warmup_steps 12 is not below"),
    ({"loss.regression": "huber"}, "unknown regression loss 'huber'"),
  ],
)
def test_a_bad_setting_is_named_before_anything_is_written(tmp_path, changes, named):
  with pytest.raises(ValueError, match=named):
    fit.train_and_evaluate(small_config(**changes), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_validation_of_one_class_warns_and_selects_by_the_loss(
  tmp_path, monkeypatch, caplog
):
  config = small_config(**{"data.digits.task": "contains_nine"})
  config.train.metric = None
  tables = registry.load_tables(config.data, 0)
  without = np.flatnonzero(tables["validation"].targets == 0)
  tables["validation"] = tables["validation"].select(without)
  monkeypatch.setattr(registry, "load_tables", lambda *_: tables)
  with caplog.at_level("WARNING", logger="absl"):
    run = runs.build_run(config)
  assert run.config.train.metric == "loss"
  assert caplog.text.count("roc_auc is not defined on its") == 1
  config.train.metric = "roc_auc"
  with pytest.raises(ValueError, match="'roc_auc' is not defined on .*Choose 'loss'"):
    fit.train_and_evaluate(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_an_unknown_budget_is_named(tmp_path):
  config = small_config()
  config.data.budgets.faces = 8
  with pytest.raises(ValueError, match=r"config.data.budgets.faces: .*'image'"):
    fit.train_and_evaluate(config, tmp_path / "run")


@pytest.mark.parametrize("policy", ["first", "random"])
def test_truncation_is_counted_in_the_logs(tmp_path, policy, caplog):
  config = small_config(**{"data.overflow": policy, "data.budgets.image": 4})
  with caplog.at_level("WARNING", logger="absl"):
    runs.build_run(config)
  assert "examples cut to 4 'image' elements" in caplog.text
