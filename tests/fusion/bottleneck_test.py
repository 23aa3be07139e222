import jax
import numpy as np
import pytest

from deepsets_jax import fusion
from tests.fusion.reference.bottleneck import bottleneck_loop
from tests.sets import FEATURES, NAMES, pack

RNG = np.random.default_rng(0)
NOTHING = np.zeros((0, FEATURES), np.float32)
IMAGE, TEXT = (RNG.normal(size=(n, FEATURES)).astype(np.float32) for n in (3, 2))
# Four examples: both modalities, one of them, the other, none.
SETS = {
  "image": [IMAGE, IMAGE, NOTHING, NOTHING],
  "text": [TEXT, NOTHING, TEXT, NOTHING],
}
MODALITIES = {name: pack(lists, 8) for name, lists in SETS.items()}


def fused(**settings):
  """Parameters, and the result for `MODALITIES`."""
  module = fusion.BottleneckFusion(NAMES, FEATURES, bottlenecks=2, heads=1, **settings)
  params = module.init(jax.random.key(0), MODALITIES, train=False)["params"]
  apply = jax.jit(
    lambda params: module.apply({"params": params}, MODALITIES, train=False)
  )
  return jax.device_get(params), np.asarray(apply(params))


@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, 2])
def test_modalities_exchange_information_from_the_second_layer_on(layers):
  params, got = fused(layers=layers, pool="max")
  want = [
    bottleneck_loop(params, {k: v[i] for k, v in SETS.items()}, layers, "max")
    for i in range(4)
  ]
  np.testing.assert_allclose(got, want, 1e-4, 1e-5)
  apart = np.abs(got[0] - (got[1] + got[2]) / 2).max()
  assert apart < 1e-6 if layers == 1 else apart > 1e-3
  assert not any(name.startswith("class") for name in params)


def test_parameters_do_not_depend_on_the_first_batch():
  module = fusion.BottleneckFusion(NAMES, FEATURES, heads=1)

  def shapes(modalities):
    def init(key):
      return module.init(key, modalities, train=False)["params"]

    return jax.tree.map(lambda x: x.shape, jax.eval_shape(init, jax.random.key(0)))

  every = dict.fromkeys(NAMES, MODALITIES["image"])
  assert shapes({"text": MODALITIES["text"]}) == shapes(every)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(heads=2), "layer_0: 2 heads do not divide the width 3; one of \\[1, 3\\]"),
    (dict(layers=0), "bottleneck: 0 layers"),
    (dict(bottlenecks=0), "bottleneck: 0 bottlenecks"),
  ],
)
def test_bad_settings_are_refused(settings, message):
  module = fusion.BottleneckFusion(NAMES, FEATURES, **{"heads": 1} | settings)
  with pytest.raises(ValueError, match=message):
    module.init(jax.random.key(0), MODALITIES, train=False)
