import jax
import numpy as np
import pytest

from deepsets_jax import fusion
from tests.sets import FEATURES, NAMES, pack

RNG = np.random.default_rng(0)
LISTS = [RNG.normal(size=(n, FEATURES)) for n in (3, 0, 1, 2)]
MODALITIES = {"text": pack(LISTS, 8)}


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(heads=2), "encoder_0/attention: 2 heads do not divide the width 3"),
    (dict(inducing=0), "set_transformer: 0 inducing points; at least 1, or None"),
    (dict(seeds=0), "set_transformer: 0 seeds"),
  ],
)
def test_bad_settings_are_refused(settings, message):
  module = fusion.SetTransformerFusion(NAMES, FEATURES, **{"heads": 1} | settings)
  with pytest.raises(ValueError, match=message):
    module.init(jax.random.key(0), MODALITIES, train=False)


def test_gradients_come_only_from_present_elements_and_modalities():
  module = fusion.SetTransformerFusion(NAMES, FEATURES, layers=0, heads=1, hidden=5)
  params = module.init(jax.random.key(0), MODALITIES, train=False)["params"]

  @jax.jit
  def gradient(params, example):
    def one(params):
      return module.apply({"params": params}, MODALITIES, train=False)[example, 0]

    return jax.grad(one)(params)

  of_nothing = gradient(params, 1)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_nothing))
  of_some = gradient(params, 0)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(of_some))
  assert np.any(of_some["seeds"]) and np.any(of_some["code_text"])
  assert not np.any(of_some["code_image"])


def test_with_inducing_points_the_cost_grows_linearly():
  def pairs(inducing, n):
    """FLOPs of the attention in the encoder."""
    module = fusion.SetTransformerFusion(
      NAMES, FEATURES, layers=1, inducing=inducing, heads=1
    )
    lists = {"text": pack([np.ones((n, FEATURES))] * 4, 4 * n)}

    def sown(key):
      return module.init(key, lists, train=False)["cost"]

    costs = jax.device_get(jax.jit(sown)(jax.random.key(0)))
    return sum(
      float(leaf)
      for name, cost in costs.items()
      for leaf in jax.tree.leaves(cost)
      if name.startswith("encoder")
    )

  assert pairs(None, 2048) > 3.9 * pairs(None, 1024)
  assert pairs(4, 2048) < 2.2 * pairs(4, 1024)
