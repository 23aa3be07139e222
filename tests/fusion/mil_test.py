import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax.fusion import MILFusion, SetPoolFusion
from deepsets_jax.ragged import pooling
from tests.sets import FEATURES, NAMES, NUM_EXAMPLES, pack

RNG = np.random.default_rng(0)
# The last example has no element.
LENGTHS = {"image": (2, 0, 1, 0), "text": (3, 1, 0, 0), "words": (0, 0, 0, 0)}
MODALITIES = {
  name: pack([RNG.normal(size=(n, FEATURES)) for n in lengths])
  for name, lengths in LENGTHS.items()
}


def test_the_reported_attention_is_the_weight_of_each_element():
  module = MILFusion(NAMES, FEATURES, jnp.bfloat16, hidden=4, gated=True)
  params = module.init(jax.random.key(0), MODALITIES, train=False)["params"]
  fused, sown = module.apply(
    {"params": params}, MODALITIES, train=False, mutable=["importance"]
  )
  weights = sown["importance"]["attention"]
  total, weighted = np.zeros(NUM_EXAMPLES), np.zeros((NUM_EXAMPLES, FEATURES))
  for name, ragged in MODALITIES.items():
    assert weights[name].dtype == jnp.float32
    np.testing.assert_array_equal(weights[name][~ragged.mask], 0)
    column = ragged.replace(values=weights[name][:, None])
    total += np.asarray(pooling.pool("sum", column))[:, 0]
    product = ragged.replace(values=column.values * ragged.values)
    weighted += np.asarray(pooling.pool("sum", product))
  np.testing.assert_allclose(total, [1, 1, 1, 0], 1e-6)
  np.testing.assert_allclose(fused, weighted, 1e-5, 1e-6)
  assert len(np.unique(weights["image"][:2])) == 2  # Not a plain mean.


def test_the_plain_form_is_the_softmax_of_the_set_pool():
  plain = MILFusion(NAMES, FEATURES, hidden=FEATURES)
  set_pool = SetPoolFusion(NAMES, FEATURES, pools=("softmax",))
  params = plain.init(jax.random.key(0), MODALITIES, train=False)["params"]
  np.testing.assert_array_equal(
    plain.apply({"params": params}, MODALITIES, train=False),
    set_pool.apply({"params": params}, MODALITIES, train=False),
  )


def test_a_hidden_layer_without_width_is_refused():
  with pytest.raises(ValueError, match="mil: hidden is 0"):
    MILFusion(NAMES, FEATURES, hidden=0).init(
      jax.random.key(0), MODALITIES, train=False
    )
