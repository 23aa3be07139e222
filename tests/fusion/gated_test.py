import jax
import numpy as np
import pytest

from deepsets_jax.fusion import GatedFusion
from tests.sets import FEATURES, NAMES, NUM_EXAMPLES, pack

VECTORS = np.random.default_rng(0).normal(size=(len(NAMES), NUM_EXAMPLES, 1, FEATURES))
MODALITIES = {k: pack(list(v)) for k, v in zip(NAMES, VECTORS, strict=True)}


def test_a_closed_gate_gives_zero_and_an_open_gate_the_whole_vector():
  module = GatedFusion(NAMES, FEATURES)
  variables = module.init(jax.random.key(0), MODALITIES, train=False)
  params = jax.device_get(variables["params"])
  said = {
    name: np.tanh(VECTORS[index, :, 0] @ params[f"hidden_{name}"]["kernel"])
    for index, name in enumerate(NAMES)
  }
  # The gates of "image" open if its first feature is positive; the others close.
  kernel = np.zeros((len(NAMES) * FEATURES, len(NAMES), FEATURES), np.float32)
  kernel[0] = np.array([1e3, -1e3, -1e3])[:, None]
  params = params | {"gates": {"kernel": kernel.reshape(len(kernel), -1)}}
  fused = module.apply({"params": params}, MODALITIES, train=False)
  first = VECTORS[0, :, 0, :1] > 0
  assert first.any() and not first.all()
  want = np.where(first, said["image"], said["text"] + said["words"])
  np.testing.assert_allclose(fused, want, 1e-5, 1e-6)


@pytest.mark.parametrize(
  ("pool", "message"),
  [("mode", "unknown pool 'mode'"), ("softmax", "needs scores")],
)
def test_bad_pools_are_refused(pool, message):
  with pytest.raises(ValueError, match=message):
    GatedFusion(NAMES, FEATURES, pool=pool).init(
      jax.random.key(0), MODALITIES, train=False
    )
