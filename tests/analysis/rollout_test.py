"""Attention rollout of every fusion, beside loops over examples in numpy."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from deepsets_jax import fusion
from deepsets_jax.analysis.attribution import rollout
from tests.fusion.every import (
  SETS,
  attention,
  explained,
  fused,
  of_lists,
  pack_all,
  params_of,
)
from tests.fusion.reference import ATTENTION, FUSIONS, SLOW, bottleneck, transformer
from tests.sets import BUDGETS, FEATURES, NAMES, NUM_EXAMPLES, shuffled

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
  def test_reporting_does_not_change_the_result(self, name, sets):
    modalities = pack_all(sets)
    got, _ = explained(name, params_of(name), modalities)
    np.testing.assert_allclose(got, fused(name, modalities), 1e-5, 1e-6)


SIZES = {"image": (2, 3, 0, 1), "text": (1, 0, 0, 4), "words": (0, 2, 0, 3)}
# More settings on which the weights depend, beside those of FUSIONS.
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
  weights = jax.jit(functools.partial(rollout.attention_weights, module))
  got = of_lists(weights({"params": params}, modalities), sets)
  for i in range(NUM_EXAMPLES):
    example = {k: v[i] for k, v in sets.items()}
    want = loop(jax.device_get(params), example, **settings)
    for key in NAMES:
      np.testing.assert_allclose(got[key][i], want[key], 1e-4, 1e-5)


def test_with_parity_absent_modalities_have_no_weight():
  module = fusion.TorchMultimodalFusion(
    NAMES, FEATURES, kind="attention", projection_dim=2, parity=True
  )
  sets = {k: [np.ones((n, FEATURES)) for n in v] for k, v in SIZES.items()}
  modalities = pack_all(sets)
  params = module.init(jax.random.key(0), modalities, train=False)["params"]
  weights = rollout.attention_weights(module, {"params": params}, modalities)
  lists = of_lists(weights, sets)
  totals = [sum(lists[k][i].sum() for k in NAMES) for i in range(NUM_EXAMPLES)]
  np.testing.assert_allclose(totals, [1, 1, 0, 1], 1e-5)


@pytest.mark.parametrize("name", FUSIONS)
def test_only_fusions_that_attend_have_weights(name):
  lists = [np.ones((2, FEATURES))] * NUM_EXAMPLES
  modalities = pack_all(dict.fromkeys(NAMES, lists))
  found = jax.eval_shape(
    functools.partial(explained, name), params_of(name), modalities
  )
  assert (found[1] is not None) == (name in ATTENTION)
