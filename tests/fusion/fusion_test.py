import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax import fusion
from deepsets_jax.training import sharding
from tests.fusion.every import (
  SETS,
  attention,
  explained,
  fused,
  fused_with,
  pack_all,
  params_of,
)
from tests.fusion.reference import FUSIONS, ROUNDED, SLOW
from tests.sets import BUDGETS, FEATURES, NAMES, NUM_EXAMPLES, shuffled

EVERY_FUSION = pytest.mark.parametrize(
  "name",
  [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in FUSIONS],
)


@EVERY_FUSION
class TestEveryFusion:
  @hypothesis.given(sets=SETS)
  def test_agrees_with_a_loop_over_examples(self, name, sets):
    params = jax.device_get(params_of(name))
    want = [
      FUSIONS[name][1](params, {k: v[i] for k, v in sets.items()})
      for i in range(NUM_EXAMPLES)
    ]
    np.testing.assert_allclose(fused(name, pack_all(sets)), want, 1e-4, 1e-4)

  def test_parameters_and_result_are_float32(self, name):
    lists = [np.ones((2, FEATURES))] * NUM_EXAMPLES
    result = fused(name, pack_all(dict.fromkeys(NAMES, lists)))
    leaves = jax.tree.leaves((params_of(name), result))
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}

  @hypothesis.given(sets=SETS, seed=st.integers(0, 99))
  def test_order_of_elements_does_not_matter(self, name, sets, seed):
    other = {k: shuffled(v, seed) for k, v in sets.items()}
    got, want = fused(name, pack_all(other)), fused(name, pack_all(sets))
    np.testing.assert_allclose(got, want, 1e-4, 1e-5)

  @hypothesis.given(sets=SETS)
  def test_order_of_modalities_does_not_matter(self, name, sets):
    other = dict(reversed(sets.items()))
    np.testing.assert_array_equal(
      fused(name, pack_all(other)), fused(name, pack_all(sets))
    )

  @hypothesis.given(sets=SETS)
  def test_slot_budget_does_not_matter(self, name, sets):
    results = [fused(name, pack_all(sets, budget)) for budget in BUDGETS]
    np.testing.assert_allclose(*results, 1e-5, 1e-6)

  @hypothesis.given(sets=SETS, others=SETS)
  def test_batch_mates_do_not_matter(self, name, sets, others):
    mixed = {k: [sets[k][0], *others[k][1:]] for k in NAMES}
    got, want = fused(name, pack_all(mixed))[0], fused(name, pack_all(sets))[0]
    np.testing.assert_allclose(got, want, 1e-5, 1e-6)

  @hypothesis.given(sets=SETS, gone=st.sampled_from(NAMES))
  def test_an_absent_modality_equals_one_never_declared(self, name, sets, gone):
    absent = sets | {gone: [np.zeros((0, FEATURES), np.float32)] * NUM_EXAMPLES}
    undeclared = {k: v for k, v in sets.items() if k != gone}
    got, want = fused(name, pack_all(absent)), fused(name, pack_all(undeclared))
    if name in ROUNDED:
      # XLA rounds a fused exponential differently in the two programs. The algebra is
      # exact, see the next test.
      np.testing.assert_allclose(got, want, 1e-6, 1e-7)
    else:
      np.testing.assert_array_equal(got, want)

  @hypothesis.settings(max_examples=5)
  @hypothesis.given(sets=SETS, gone=st.sampled_from(NAMES))
  def test_absence_is_exact_operation_by_operation(self, name, sets, gone):
    absent = sets | {gone: [np.zeros((0, FEATURES), np.float32)] * NUM_EXAMPLES}
    undeclared = {k: v for k, v in sets.items() if k != gone}
    with jax.disable_jit():
      got, want = fused(name, pack_all(absent)), fused(name, pack_all(undeclared))
    np.testing.assert_array_equal(got, want)

  @hypothesis.given(sets=SETS)
  def test_gradients_are_finite_and_zero_on_padding(self, name, sets):
    modalities = pack_all(sets)
    for key, gradient in _gradients(name, params_of(name), modalities).items():
      assert np.isfinite(gradient).all()
      np.testing.assert_array_equal(gradient[~np.asarray(modalities[key].mask)], 0)

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


@functools.partial(jax.jit, static_argnums=0)
def _gradients(name, params, modalities):
  def total(values):
    replaced = {k: v.replace(values=values[k]) for k, v in modalities.items()}
    return jnp.sin(fused_with(name, params, replaced)).sum()

  return jax.grad(total)({k: v.values for k, v in modalities.items()})


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
