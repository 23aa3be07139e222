"""Which checkpoints are kept, and how an unreadable one is reported."""

import gc
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from orbax.checkpoint import v1 as ocp

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.training import step as train_step
from deepsets_jax.training.checkpoints import Checkpoints, LoopState

TX = optax.adamw(1e-3)
PARAMS = {"layer": {"kernel": jnp.ones((3, 2))}, "bias": jnp.zeros(2)}


def state_at(step, params=PARAMS):
  state = train_step.init_state(params, TX, jax.random.key(0), average=True)
  return state.replace(step=jnp.array(step))


class TestLoopState:
  def test_best_is_the_first_of_equals(self):
    loop_state = LoopState(data={})
    for step, value in enumerate([0.3, 0.5, 0.5, 0.4], 1):
      loop_state = loop_state.evaluated(step, value, higher_is_better=True)
    assert (loop_state.best_step, loop_state.best_value) == (2, 0.5)
    assert loop_state.evaluations_since_best == 2
    assert loop_state.is_out_of_patience(2) and not loop_state.is_out_of_patience(3)
    assert not loop_state.is_out_of_patience(None)

  def test_lower_may_be_better(self):
    loop_state = LoopState(data={})
    for step, value in enumerate([0.3, 0.5, 0.2], 1):
      loop_state = loop_state.evaluated(step, value, higher_is_better=False)
    assert (loop_state.best_step, loop_state.evaluations_since_best) == (3, 0)

  def test_nan_is_never_the_best_of_several(self):
    loop_state = LoopState(data={})
    for step, value in enumerate([np.nan, np.nan, 0.1, np.nan], 1):
      loop_state = loop_state.evaluated(step, value, higher_is_better=True)
      # Patience ends, even if the metric is never defined.
      assert loop_state.evaluations_since_best == (step + 1) % 2
    assert (loop_state.best_step, loop_state.best_value) == (3, 0.1)


def test_the_two_latest_and_the_best_are_kept(tmp_path):
  with Checkpoints(tmp_path, higher_is_better=False) as checkpoints:
    assert checkpoints.latest is None
    for step, value in enumerate([0.5, 0.1, None, None, None], 1):
      loop_state = LoopState(data={"next_index": step}, seconds=step / 2)
      checkpoints.save(state_at(step), loop_state, value)
    assert checkpoints.latest == 5
  assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4", "5"]
  with Checkpoints(tmp_path, higher_is_better=False) as checkpoints:
    state, loop_state = checkpoints.restore(state_at(0))
    assert int(state.step) == 5 and loop_state.data == {"next_index": 5}
    state, loop_state = checkpoints.restore(state_at(0), 2)
    assert int(state.step) == 2 and loop_state.seconds == 1.0
    assert state.key == jax.random.key(0)


def test_another_model_is_named_by_its_parameter(tmp_path):
  with Checkpoints(tmp_path, higher_is_better=True) as checkpoints:
    checkpoints.save(state_at(1), LoopState(data={}), 0.5)
    other = state_at(0, PARAMS | {"bias": jnp.zeros(3)})
    with pytest.raises(ValueError, match=r"\['bias'\] is \(2,\), .* is \(3,\)"):
      checkpoints.restore(other)
    more = state_at(0, PARAMS | {"scale": jnp.zeros(3)})
    with pytest.raises(ValueError, match=r"\['scale'\] is absent, "):
      checkpoints.restore(more)


# Orbax leaves coroutines behind when loading fails.
leaves_coroutines = pytest.mark.filterwarnings(
  "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def _coroutines_are_collected_here():
  """Not in another test, where their warnings would be errors."""
  yield
  gc.collect()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """A folder with a checkpoint of step 1."""
  folder = tmp_path_factory.mktemp("checkpoints")
  with Checkpoints(folder, higher_is_better=True) as checkpoints:
    checkpoints.save(state_at(1), LoopState(data={"next_index": 1}), 0.5)
  return folder


def restore(folder, step=None):
  with Checkpoints(folder, higher_is_better=True) as checkpoints:
    return checkpoints.restore(state_at(0), step)


def _truncate(path: pathlib.Path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@leaves_coroutines
@pytest.mark.parametrize("spoil", [pathlib.Path.unlink, _truncate])
@pytest.mark.parametrize(
  "file", ["state/_METADATA", "state/manifest.ocdbt", "state/d/*", "position/d/*"]
)
def test_a_missing_or_truncated_file_is_damage(saved, tmp_path, file, spoil):
  shutil.copytree(saved, tmp_path / "run")
  (path,) = (tmp_path / "run" / "1").glob(file)
  spoil(path)
  with pytest.raises(ConfigError, match="checkpoint 1 in .* is damaged.*Delete the fo"):
    restore(tmp_path / "run")


@leaves_coroutines
def test_damaged_metrics_of_a_checkpoint_are_named(saved, tmp_path):
  shutil.copytree(saved, tmp_path / "run")
  _truncate(tmp_path / "run" / "1" / "metrics" / "metrics")
  with pytest.raises(ConfigError, match="metrics of a checkpoint is damaged"):
    restore(tmp_path / "run")


def test_a_checkpoint_that_was_deleted_is_missing(saved):
  with pytest.raises(ConfigError, match="has no checkpoint of step 2; put it back"):
    restore(saved, 2)


@leaves_coroutines
@pytest.mark.parametrize(
  ("error", "reported"),
  [
    (PermissionError(13, "Permission denied"), "cannot be read .*Permission denied"),
    (ValueError("PERMISSION_DENIED: Error opening"), "cannot be read .*PERMISSION"),
    (ValueError("RESOURCE_EXHAUSTED: out of memory"), "cannot be read .*memory"),
  ],
)
def test_an_error_of_the_system_is_not_called_damage(
  saved, monkeypatch, error, reported
):
  _fail_with(error, monkeypatch)
  with pytest.raises(ConfigError, match=reported) as raised:
    restore(saved)
  assert "damaged" not in str(raised.value) and "elete" not in str(raised.value)


@leaves_coroutines
def test_a_defect_of_the_code_keeps_its_own_error(saved, monkeypatch):
  error = TypeError("unexpected keyword")
  _fail_with(error, monkeypatch)
  with pytest.raises(TypeError) as raised:
    restore(saved)
  assert raised.value is error
  assert raised.value.__notes__ == [f"while reading checkpoint 1 in {saved}"]


def _fail_with(error, monkeypatch):
  """Makes Orbax raise an error from inside another one, as its handlers do."""

  def load(*_):
    try:
      raise error
    except type(error) as cause:
      if isinstance(cause, TypeError):
        raise
      raise KeyError("no handler") from cause

  monkeypatch.setattr(ocp.training.Checkpointer, "load_checkpointables", load)
