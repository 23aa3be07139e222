import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax import fusion
from deepsets_jax.testing.fusions import FUSION_PROPERTIES, Fused, check_property
from deepsets_jax.training import sharding
from tests.fusion.every import (
  attention,
  explained,
  fused,
  pack_all,
  params_of,
)
from tests.fusion.reference import FUSIONS, ROUNDED, SLOW
from tests.sets import FEATURES, NAMES, NUM_EXAMPLES

EVERY_FUSION = pytest.mark.parametrize(
  "name",
  [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in FUSIONS],
)


@functools.cache
def built(name):
  module, loop = FUSIONS[name]
  return Fused(module, loop, exact=name not in ROUNDED)


@EVERY_FUSION
class TestEveryFusion:
  @pytest.mark.parametrize("check", FUSION_PROPERTIES, ids=lambda check: check.__name__)
  def test_has_the_properties_of_fusions(self, name, check):
    check_property(check, built(name))

  def test_devices_do_not_matter(self, name):
    rng = np.random.default_rng(0)
    shards = [
      pack_all(
        {
          k: [rng.normal(size=(rng.integers(0, 4), FEATURES)) for _ in range(4)]
          for k in NAMES
        }
      )
      for _ in range(jax.device_count())
    ]

    @functools.partial(
      jax.shard_map,
      mesh=sharding.make_mesh(),
      in_specs=(jax.P(), jax.P(sharding.AXIS)),
      out_specs=jax.P(sharding.AXIS),
    )
    def on_devices(params, modalities):
      return explained(name, params, jax.tree.map(lambda x: x[0], modalities))

    stacked = jax.tree.map(lambda *x: jnp.stack(x), *shards)
    compiled = jax.jit(on_devices).lower(params_of(name), stacked).compile()
    assert "all-" not in compiled.as_text()  # Fusion needs no other device.
    got, weights = compiled(params_of(name), stacked)
    want = np.concatenate([fused(name, shard) for shard in shards])
    np.testing.assert_allclose(got, want, 1e-5, 1e-5)
    for key, one in (weights or {}).items():
      want = np.concatenate([attention(name, shard)[key] for shard in shards])
      np.testing.assert_allclose(one, want, 1e-5, 1e-6)

  def test_reports_nothing_while_parameters_are_initialised(self, name):
    lists = [np.ones((2, FEATURES))] * NUM_EXAMPLES
    modalities = pack_all(dict.fromkeys(NAMES, lists))
    init = functools.partial(FUSIONS[name][0].init, train=False)
    assert "importance" not in jax.eval_shape(init, jax.random.key(0), modalities)


def test_a_learned_placeholder_learns_only_from_absence():
  module, _ = FUSIONS["concat, learned"]
  present = [np.ones((1, FEATURES))] * NUM_EXAMPLES
  absent = [np.zeros((0, FEATURES))] * NUM_EXAMPLES
  modalities = pack_all({"image": present, "text": absent, "words": absent})
  gradient = jax.grad(
    lambda params: module.apply({"params": params}, modalities, train=False).sum()
  )(params_of("concat, learned"))
  assert not np.any(gradient["placeholder_image"])
  assert np.all(gradient["placeholder_text"] == NUM_EXAMPLES)


def test_bad_arguments_are_refused():
  modalities = pack_all(dict.fromkeys(NAMES, [np.ones((1, FEATURES))] * NUM_EXAMPLES))
  module = fusion.ConcatFusion(NAMES, FEATURES, placeholder="mean")
  with pytest.raises(ValueError, match="unknown placeholder 'mean'.*'learned'"):
    module.init(jax.random.key(0), modalities, train=False)
  with pytest.raises(ValueError, match="a batch without any modality"):
    fusion.SetPoolFusion(NAMES, FEATURES).apply({}, {}, train=False)


class _SumOfSlots(fusion.Fusion):
  """A fusion that adds up padding and counts slots: wrong in every way."""

  def __call__(self, modalities, *, train):
    ones = [jnp.ones_like(part.values).sum() for part in modalities.values()]
    first = next(iter(modalities.values()))
    return jnp.zeros((first.num_examples, 2)) + sum(ones) + first.values[:1, :1]


@pytest.mark.parametrize(
  ("check", "message"),
  [
    ("agrees_with_the_reference", "the result is not that of the reference"),
    ("ignores_the_order_of_elements", "the order of elements matters"),
    ("ignores_the_order_of_modalities", "the order of modalities matters"),
    ("ignores_the_number_of_slots", "the number of slots matters"),
    ("ignores_batch_mates", "the other examples of the batch matter"),
    ("takes_absence_as_absence", "a modality without elements differs"),
  ],
)
def test_a_fusion_that_breaks_a_promise_is_caught(check, message):
  wrong = Fused(_SumOfSlots(NAMES, FEATURES), lambda params, example: np.zeros(2))
  (check,) = (one for one in FUSION_PROPERTIES if one.__name__ == check)
  with pytest.raises(AssertionError, match=message):
    check_property(check, wrong)
