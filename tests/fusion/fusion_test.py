import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax import fusion
from deepsets_jax.training import sharding
from tests.fusion.reference import (
  ATTENTION,
  FUSIONS,
  ROUNDED,
  SLOW,
  bottleneck,
  transformer,
)
from tests.sets import (
  BUDGETS,
  FEATURES,
  NAMES,
  NUM_EXAMPLES,
  pack,
  set_lists,
  shuffled,
)

EVERY_FUSION = pytest.mark.parametrize(
  "name",
  [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in FUSIONS],
)
EVERY_ATTENTION = pytest.mark.parametrize(
  "name",
  [
    # One transformer is enough of those that take long to compile.
    pytest.param(n, marks=pytest.mark.slow)
    if n in SLOW | {"two stage", "set transformer, ISAB"}
    else n
    for n in ATTENTION
  ],
)
SETS = st.fixed_dictionaries({name: set_lists() for name in NAMES})


def pack_all(sets, budget=BUDGETS[0]):
  """A dictionary of lists as a dictionary of `Ragged`."""
  return {name: pack(lists, budget) for name, lists in sets.items()}


@functools.cache
def params_of(name):
  module, _ = FUSIONS[name]
  rng = np.random.default_rng(0)
  lists = [rng.normal(size=(2, FEATURES))] * NUM_EXAMPLES
  variables = module.init(
    jax.random.key(0), pack_all(dict.fromkeys(NAMES, lists)), train=False
  )
  return variables.get("params", {})


@functools.partial(jax.jit, static_argnums=0)
def _fused(name, params, modalities):
  return FUSIONS[name][0].apply({"params": params}, modalities, train=False)


def fused(name, modalities):
  return np.asarray(_fused(name, params_of(name), modalities))


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
      # The two programs differ, and XLA does not round a fused exponential alike in
      # both; the algebra is exact, see the next test.
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
      return _telling(name, params, jax.tree.map(lambda x: x[0], modalities))

    stacked = jax.tree.map(lambda *x: jnp.stack(x), *shards)
    compiled = jax.jit(on_devices).lower(params_of(name), stacked).compile()
    assert "all-" not in compiled.as_text()  # Pooling talks to no other device.
    got, sown = compiled(params_of(name), stacked)
    want = np.concatenate([fused(name, shard) for shard in shards])
    np.testing.assert_allclose(got, want, 1e-5, 1e-5)
    for key, weights in sown.get("importance", {}).get("attention", {}).items():
      want = np.concatenate([attention(name, shard)[key] for shard in shards])
      np.testing.assert_allclose(weights, want, 1e-5, 1e-6)


@functools.partial(jax.jit, static_argnums=0)
def _gradients(name, params, modalities):
  def total(values):
    replaced = {k: v.replace(values=values[k]) for k, v in modalities.items()}
    return jnp.sin(_fused(name, params, replaced)).sum()

  return jax.grad(total)({k: v.values for k, v in modalities.items()})


@functools.partial(jax.jit, static_argnums=0)
def _telling(name, params, modalities):
  """The fused vectors, and what is sown of importance."""
  return FUSIONS[name][0].apply(
    {"params": params}, modalities, train=False, mutable=["importance"]
  )


def attention(name, modalities):
  """The weights of elements by modality `[n]`."""
  _, sown = _telling(name, params_of(name), modalities)
  return jax.device_get(sown["importance"]["attention"])


def of_lists(weights, sets):
  """Weights by modality `[n]`, of each example, without padding."""
  return {
    k: pack(v, len(weights[k])).replace(values=weights[k]).to_lists()
    for k, v in sets.items()
  }


@EVERY_ATTENTION
class TestAttention:
  @hypothesis.given(sets=SETS)
  def test_agrees_with_a_loop_over_examples(self, name, sets):
    params = jax.device_get(params_of(name))
    got = of_lists(attention(name, pack_all(sets)), sets)
    for i in range(NUM_EXAMPLES):
      want = ATTENTION[name](params, {k: v[i] for k, v in sets.items()})
      for key in NAMES:
        np.testing.assert_allclose(got[key][i], want[key], 1e-4, 1e-5)

  @hypothesis.given(sets=SETS)
  def test_adds_up_to_one_over_what_is_there(self, name, sets):
    modalities = pack_all(sets)
    weights = attention(name, modalities)
    for key, part in modalities.items():
      assert weights[key].dtype == np.float32 and np.all(weights[key] >= 0)
      np.testing.assert_array_equal(weights[key][~np.asarray(part.mask)], 0)
    lists = of_lists(weights, sets)
    for i in range(NUM_EXAMPLES):
      some = any(len(sets[k][i]) for k in NAMES)
      total = sum(lists[k][i].sum() for k in NAMES)
      np.testing.assert_allclose(total, float(some), 1e-5)

  @hypothesis.given(sets=SETS, seed=st.integers(0, 99))
  def test_moves_with_the_elements(self, name, sets, seed):
    other = {k: shuffled(v, seed) for k, v in sets.items()}
    got = of_lists(attention(name, pack_all(other)), other)
    want = of_lists(attention(name, pack_all(sets)), sets)
    for key, lists in sets.items():
      orders = shuffled([np.arange(len(v))[:, None] for v in lists], seed)
      for i, order in enumerate(orders):
        np.testing.assert_array_equal(other[key][i], lists[i][order[:, 0]])
        np.testing.assert_allclose(got[key][i], want[key][i][order[:, 0]], 1e-4, 1e-6)

  @hypothesis.given(sets=SETS, others=SETS)
  def test_batch_mates_do_not_matter(self, name, sets, others):
    mixed = {k: [sets[k][0], *others[k][1:]] for k in NAMES}
    got = of_lists(attention(name, pack_all(mixed)), mixed)
    want = of_lists(attention(name, pack_all(sets)), sets)
    for key in NAMES:
      np.testing.assert_allclose(got[key][0], want[key][0], 1e-5, 1e-6)

  @hypothesis.given(sets=SETS)
  def test_neither_budget_nor_an_absent_modality_matters(self, name, sets):
    absent = sets | {"text": [np.zeros((0, FEATURES), np.float32)] * NUM_EXAMPLES}
    undeclared = {k: v for k, v in sets.items() if k != "text"}
    small = of_lists(attention(name, pack_all(absent, BUDGETS[0])), absent)
    large = of_lists(attention(name, pack_all(undeclared, BUDGETS[1])), undeclared)
    for key in undeclared:
      for got, want in zip(small[key], large[key], strict=True):
        np.testing.assert_allclose(got, want, 1e-5, 1e-6)

  @hypothesis.given(sets=SETS)
  def test_telling_does_not_change_the_result(self, name, sets):
    modalities = pack_all(sets)
    got, _ = _telling(name, params_of(name), modalities)
    np.testing.assert_allclose(got, fused(name, modalities), 1e-5, 1e-6)


SIZES = {"image": (2, 3, 0, 1), "text": (1, 0, 0, 4), "words": (0, 2, 0, 3)}
# Settings that what is sown depends on, beside those of FUSIONS.
OTHERS = {
  "single stream, elements": (
    fusion.SingleStreamFusion,
    transformer.single_stream_attention,
    dict(fused="mean", readout="elements", pools=("mean",)),
  ),
  "single stream, all and fused": (
    fusion.SingleStreamFusion,
    transformer.single_stream_attention,
    dict(fused="max", readout="all", pools=("mean",)),
  ),
  "bottleneck, pooled": (
    fusion.BottleneckFusion,
    bottleneck.bottleneck_attention,
    dict(layers=3, pool="mean"),
  ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_attention_of_other_settings_agrees_with_a_loop_over_examples(name):
  kind, loop, settings = OTHERS[name]
  module = kind(NAMES, FEATURES, heads=3, hidden=5, **settings)
  rng = np.random.default_rng(0)
  sets = {k: [rng.normal(size=(n, FEATURES)) for n in v] for k, v in SIZES.items()}
  modalities = pack_all(sets)
  variables = module.init(jax.random.key(0), modalities, train=False)
  params = variables["params"]
  apply = functools.partial(module.apply, train=False, mutable=["importance"])
  _, sown = jax.jit(apply)({"params": params}, modalities)
  got = of_lists(sown["importance"]["attention"], sets)
  for i in range(NUM_EXAMPLES):
    example = {k: v[i] for k, v in sets.items()}
    want = loop(jax.device_get(params), example, **settings)
    for key in NAMES:
      np.testing.assert_allclose(got[key][i], want[key], 1e-4, 1e-5)


def test_with_parity_weights_are_of_the_modalities_that_are_there():
  module = fusion.TorchMultimodalFusion(
    NAMES, FEATURES, kind="attention", projection_dim=2, parity=True
  )
  sets = {k: [np.ones((n, FEATURES)) for n in v] for k, v in SIZES.items()}
  modalities = pack_all(sets)
  params = module.init(jax.random.key(0), modalities, train=False)["params"]
  _, sown = module.apply(
    {"params": params}, modalities, train=False, mutable=["importance"]
  )
  lists = of_lists(sown["importance"]["attention"], sets)
  totals = [sum(lists[k][i].sum() for k in NAMES) for i in range(NUM_EXAMPLES)]
  np.testing.assert_allclose(totals, [1, 1, 0, 1], 1e-5)


@pytest.mark.parametrize("name", FUSIONS)
def test_those_that_attend_and_no_others_sow_attention_and_nothing_large(name):
  lists = [np.ones((2, FEATURES))] * NUM_EXAMPLES
  modalities = pack_all(dict.fromkeys(NAMES, lists))
  shapes = functools.partial(jax.eval_shape, functools.partial(_telling, name))
  sown = shapes(params_of(name), modalities)[1].get("importance", {})
  assert ("attention" in sown) == (name in ATTENTION)
  # Queries and keys have gone: there are weights of elements, and of modalities.
  assert all(leaf.ndim < 3 for leaf in jax.tree.leaves(sown))
  # When parameters are made nothing is told.
  made = jax.eval_shape(
    functools.partial(FUSIONS[name][0].init, train=False), jax.random.key(0), modalities
  )
  assert "importance" not in made


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


def test_bad_arguments_say_what_is_possible():
  modalities = pack_all(dict.fromkeys(NAMES, [np.ones((1, FEATURES))] * NUM_EXAMPLES))
  module = fusion.ConcatFusion(NAMES, FEATURES, placeholder="mean")
  with pytest.raises(ValueError, match="unknown placeholder 'mean'.*'learned'"):
    module.init(jax.random.key(0), modalities, train=False)
  with pytest.raises(ValueError, match="a batch without any modality"):
    fusion.SetPoolFusion(NAMES, FEATURES).apply({}, {}, train=False)
