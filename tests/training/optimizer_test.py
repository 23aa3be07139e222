import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax.tasks import defaults
from deepsets_jax.training import optimizer


def config(**changes):
  optim = defaults.supervised().optim
  optim.update(changes)
  return optim


def test_schedule_warms_up_and_decays():
  schedule = optimizer.schedule(config(learning_rate=0.2, warmup_steps=10), 110)
  rates = [float(schedule(step)) for step in (0, 5, 10, 60, 110)]
  np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.1, 0], atol=1e-7)
  constant = config(learning_rate=0.2, warmup_steps=10, schedule="constant")
  assert float(optimizer.schedule(constant, 110)(109)) == pytest.approx(0.2)


def test_decay_spares_vectors():
  params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
  changes = dict(weight_decay=0.5, warmup_steps=0, schedule="constant")
  tx = optimizer.build_optimizer(config(learning_rate=0.1, **changes), 10)
  zeros = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
  with jax.numpy_dtype_promotion("standard"):
    updates, _ = tx.update(zeros, tx.init(params), params)
  np.testing.assert_allclose(updates["kernel"], -0.05, 1e-6)
  np.testing.assert_array_equal(updates["bias"], 0)


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_clipping_bounds_the_gradient(clip):
  # Adam is blind to scale; its first moment is not.
  tx = optimizer.build_optimizer(config(clip_norm=clip), 100)
  params = {"kernel": jnp.zeros((2, 2))}
  with jax.numpy_dtype_promotion("standard"):
    _, state = tx.update({"kernel": jnp.full((2, 2), 50.0)}, tx.init(params), params)
  moment = jax.tree.leaves(state[1][0].mu)[0]
  norm = float(jnp.linalg.norm(moment)) / 0.1
  assert norm == pytest.approx(100.0 if clip is None else clip, rel=1e-4)


def test_factors_multiply_the_updates_of_a_part():
  params = {"encoder": {"transformer": jnp.ones((2, 2)), "table": jnp.ones((2, 2))}}
  updates = {}
  for factor in (1.0, 0.1):
    tx = optimizer.build_optimizer(
      config(factors={"transformer": factor}, warmup_steps=0, schedule="constant"), 10
    )
    with jax.numpy_dtype_promotion("standard"):
      updates[factor], _ = tx.update(params, tx.init(params), params)
  plain, scaled = (updates[factor]["encoder"] for factor in (1.0, 0.1))
  np.testing.assert_allclose(scaled["transformer"], plain["transformer"] * 0.1, 1e-5)
  np.testing.assert_array_equal(scaled["table"], plain["table"])
  tx = optimizer.build_optimizer(config(factors={"fussion": 0.1}), 100)
  with pytest.raises(ValueError, match="factors.fussion: no parameter.*'transformer'"):
    tx.init(params)


def test_unknown_schedule_and_long_warmup_are_named():
  with pytest.raises(ValueError, match="schedule 'step'; choose one of .*'cosine'"):
    optimizer.build_optimizer(config(schedule="step"), 100)
  with pytest.raises(ValueError, match="warmup_steps 50 is not below .* 50"):
    optimizer.build_optimizer(config(warmup_steps=50), 50)
