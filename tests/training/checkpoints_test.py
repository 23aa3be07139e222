import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deepsets_jax.training import step as train_step
from deepsets_jax.training.checkpoints import Checkpoints, LoopState

TX = optax.adamw(1e-3)
PARAMS = {"layer": {"kernel": jnp.ones((3, 2))}, "bias": jnp.zeros(2)}


def state_at(step, params=PARAMS):
  state = train_step.init_state(params, TX, jax.random.key(0), average=True)
  return state.replace(step=jnp.array(step))


class TestPosition:
  def test_best_is_the_first_of_equals(self):
    position = LoopState(data={})
    for step, value in enumerate([0.3, 0.5, 0.5, 0.4], 1):
      position = position.evaluated(step, value, higher_is_better=True)
    assert (position.best_step, position.best_value) == (2, 0.5)
    assert position.evaluations_since_best == 2

  def test_lower_may_be_better(self):
    position = LoopState(data={})
    for step, value in enumerate([0.3, 0.5, 0.2], 1):
      position = position.evaluated(step, value, higher_is_better=False)
    assert (position.best_step, position.evaluations_since_best) == (3, 0)

  def test_nan_is_never_the_best_of_several(self):
    position = LoopState(data={})
    for step, value in enumerate([np.nan, np.nan, 0.1, np.nan], 1):
      position = position.evaluated(step, value, higher_is_better=True)
      # Patience ends, also where the metric is never defined.
      assert position.evaluations_since_best == (step + 1) % 2
    assert (position.best_step, position.best_value) == (3, 0.1)


def test_the_two_latest_and_the_best_are_kept(tmp_path):
  with Checkpoints(tmp_path, higher_is_better=False) as checkpoints:
    assert checkpoints.latest is None
    for step, value in enumerate([0.5, 0.1, None, None, None], 1):
      position = LoopState(data={"next_index": step}, seconds=step / 2)
      checkpoints.save(state_at(step), position, value)
    assert checkpoints.latest == 5
  assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4", "5"]
  with Checkpoints(tmp_path, higher_is_better=False) as checkpoints:
    state, position = checkpoints.restore(state_at(0))
    assert int(state.step) == 5 and position.data == {"next_index": 5}
    state, position = checkpoints.restore(state_at(0), 2)
    assert int(state.step) == 2 and position.seconds == 1.0
    assert state.key == jax.random.key(0)


def test_another_model_is_named_by_its_parameter(tmp_path):
  with Checkpoints(tmp_path, higher_is_better=True) as checkpoints:
    checkpoints.save(state_at(1), LoopState(data={}), 0.5)
    other = state_at(0, PARAMS | {"bias": jnp.zeros(3)})
    with pytest.raises(ValueError, match=r"\['bias'\] is \(2,\) there and \(3,\) here"):
      checkpoints.restore(other)
    more = state_at(0, PARAMS | {"scale": jnp.zeros(3)})
    with pytest.raises(ValueError, match=r"\['scale'\] is absent there"):
      checkpoints.restore(more)
