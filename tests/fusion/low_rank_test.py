import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax.fusion import LowRankFusion
from deepsets_jax.ragged import Ragged
from tests.sets import FEATURES, NAMES, NUM_EXAMPLES, pack

RNG = np.random.default_rng(0)


def one_each(names, features):
  """One element of length 1 per modality and example, as arrays and as `Ragged`."""
  vectors = RNG.normal(size=(len(names), NUM_EXAMPLES, features)).astype(np.float32)
  vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
  offsets = jnp.arange(NUM_EXAMPLES + 1, dtype=jnp.int32)
  modalities = {
    name: Ragged(jnp.asarray(v), offsets)
    for name, v in zip(names, vectors, strict=True)
  }
  return vectors, modalities


def test_it_is_a_linear_map_of_the_outer_product_of_all_modalities():
  rank = 3
  vectors, modalities = one_each(NAMES, FEATURES)
  module = LowRankFusion(NAMES, FEATURES, rank=rank)
  params = module.init(jax.random.key(0), modalities, train=False)["params"]
  # Biases start at 0; random ones test more.
  params = jax.tree.map(lambda x: x + RNG.normal(size=x.shape).astype(x.dtype), params)
  factors = []
  for name in NAMES:
    layer = params[f"factor_{name}"]
    rows = np.concatenate([layer["kernel"], layer["bias"][None] + 1])
    factors.append(rows.reshape(FEATURES + 1, rank, FEATURES))
  tensor = np.einsum("r,irf,jrf,krf->ijkf", params["weights"], *factors)
  with_one = np.concatenate([vectors, np.ones((len(NAMES), NUM_EXAMPLES, 1))], axis=-1)
  want = np.einsum("ijkf,bi,bj,bk->bf", tensor, *with_one)
  want -= np.sum(np.asarray(params["weights"]))
  got = module.apply({"params": params}, modalities, train=False)
  np.testing.assert_allclose(got, want, 1e-4, 1e-5)


@pytest.mark.parametrize("count", [1, 4, 32])
def test_at_first_a_product_of_many_modalities_is_about_as_long_as_their_sum(count):
  features = 256
  names = [f"modality {index}" for index in range(count)]
  _, modalities = one_each(names, features)
  module = LowRankFusion(names, features)
  fused, _ = module.init_with_output(jax.random.key(0), modalities, train=False)
  lengths = np.linalg.norm(fused, axis=-1) / np.sqrt(count)
  assert (lengths > 0.7).all() and (lengths < 1.5).all()


@pytest.mark.parametrize(
  ("setting", "message"),
  [({"rank": 0}, "low_rank: rank is 0"), ({"pool": "mode"}, "unknown pool 'mode'")],
)
def test_bad_settings_are_refused(setting, message):
  modalities = {"image": pack([np.ones((1, FEATURES))] * NUM_EXAMPLES)}
  with pytest.raises(ValueError, match=message):
    LowRankFusion(NAMES, FEATURES, **setting).init(
      jax.random.key(0), modalities, train=False
    )
