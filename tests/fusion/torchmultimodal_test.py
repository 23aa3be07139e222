"""torchmultimodal's classes: their results, and corrections of their defects.

Expected results were measured with, or are asserted by, facebookresearch/multimodal at
commit 3c2a85a; peers/parity_torch_test compares with converted weights.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax import encoders
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.encoders.channels import (
  ChannelAttention,
  ChannelConcat,
  ChannelDeepset,
)
from deepsets_jax.encoders.deepset import (
  Deepset,
  Pooling,
  PostNormTransformer,
  p_normalize,
)
from deepsets_jax.fusion import TorchMultimodalFusion
from deepsets_jax.models import set_model
from deepsets_jax.models.config import set_fusion
from deepsets_jax.ragged import Ragged
from deepsets_jax.ragged.ordering import segment_median
from deepsets_jax.tasks import defaults
from tests.sets import pack

A, B = jnp.array([[3.0, 4.0]]), jnp.array([[0.0, 5.0]])
KINDS = ("deepset", "deepset_transformer", "attention", "concat")


def deepset(widths, auto_mapping=False, **settings):
  return ChannelDeepset(widths, Deepset(**settings), auto_mapping)


def run(module, *arguments, params=None, **settings):
  """The module's result, with new parameters or those given; and the parameters."""
  if not isinstance(module, (ChannelAttention, ChannelConcat)):
    settings = {"train": False} | settings
  if params is None:
    variables = module.init(jax.random.key(0), *arguments, **settings)
    params = variables.get("params", {})
  return module.apply({"params": params}, *arguments, **settings), params


def vectors(names="abc", width=8, b=2, seed=0):
  rng = np.random.default_rng(seed)
  return {k: jnp.asarray(rng.normal(size=(b, width)), jnp.float32) for k in names}


@pytest.mark.parametrize("parity", [True, False])
@pytest.mark.parametrize(
  ("settings", "want"),
  [
    (dict(pool="max"), [0.6, 1.0]),
    (dict(pool="sum"), [0.6, 1.8]),
    (dict(pool="median"), [0, 0.8]),
    (dict(pool="sum", modality_normalize=True), [1.0, 1.4056]),
    (dict(pool="mean", norm_factor=1.0), [0.2143, 0.7857]),
  ],
)
def test_deepset_gives_the_measured_numbers(parity, settings, want):
  got, _ = run(deepset({"a": 2, "b": 2}, parity=parity, **settings), {"a": A, "b": B})
  np.testing.assert_allclose(got, [want], 1e-4, 1e-6)
  # The same of flat arrays, one element for each example.
  module = TorchMultimodalFusion(("b", "a"), 2, parity=parity, **settings)
  got, _ = run(module, {"b": pack([B[0][None]], 3), "a": pack([A[0][None]], 3)})
  np.testing.assert_allclose(got, [want], 1e-4, 1e-6)


def with_table(module, table, ids):
  params = {"embedding": {"embedding": jnp.asarray(table)}}
  return run(module, ids, params=params)[0]


TABLE = [[4.0, 3, 2, 5], [2, 5, 6, 7], [1, 2, 0, 1]]
WEIGHTED = [[1.0, 1], [2, 2], [1, 0]]
WEIGHTS = jnp.array([[0.25, 0.75, 0], [0.6, 0, 0.4]])


@pytest.mark.parametrize(
  ("pool", "want"),
  [
    ("sum", [[3, 7, 6, 8], [6, 8, 8, 12]]),
    ("mean", [[1.5, 3.5, 3, 4], [3, 4, 4, 6]]),
    ("max", [[2, 5, 6, 7], [4, 5, 6, 7]]),
  ],
)
def test_embedding_encoder_gives_the_asserted_numbers(pool, want):
  module = encoders.EmbeddingEncoder(3, 4, pool)
  dense = jnp.array([[1, 2], [0, 1]])
  np.testing.assert_array_equal(with_table(module, TABLE, dense), want)
  # Padding slots hold id 0, which is in no bag; the third bag is empty.
  flat = Ragged(jnp.array([1, 2, 0, 1, 0, 0]), jnp.array([0, 2, 4, 4]))
  got = with_table(module, TABLE, flat)
  np.testing.assert_array_equal(got.offsets, [0, 1, 2, 2])
  np.testing.assert_array_equal(got.values, [*want, [0] * 4])


def test_embedding_encoder_hashes_and_pools_any_axis():
  ids = jnp.array([[1, 2], [7, 9]])
  want = np.array([[3, 7, 6, 8], [2, 4, 0, 2]])
  module = encoders.EmbeddingEncoder(3, 4, "sum", use_hash=True)
  np.testing.assert_array_equal(with_table(module, TABLE, ids), want)
  flat = Ragged(jnp.array([1, 2, 7, 9, 0]), jnp.array([0, 2, 4]))
  np.testing.assert_array_equal(with_table(module, TABLE, flat).values, want)
  values = np.array(TABLE)[[[1, 2], [0, 1]]]
  for axis in (0, 2, -1):
    module = encoders.EmbeddingEncoder(3, 4, "max", pooling_dim=axis)
    got = with_table(module, TABLE, jnp.array([[1, 2], [0, 1]]))
    np.testing.assert_array_equal(got, values.max(axis=axis))


@pytest.mark.parametrize(
  ("pool", "want"),
  [
    ("sum", [[1.75, 1.75], [1.0, 0.6]]),
    ("mean", [[0.58333, 0.58333], [0.33333, 0.2]]),
    ("max", [[1.5, 1.5], [0.6, 0.6]]),
  ],
)
def test_weighted_embedding_encoder_gives_the_asserted_numbers(pool, want):
  module = encoders.WeightedEmbeddingEncoder(3, 2, pool)
  np.testing.assert_allclose(with_table(module, WEIGHTED, WEIGHTS), want, 1e-4)


def test_weighted_ids_that_are_not_in_the_bag_are_not_pooled():
  ids = jnp.array([0, 1, 2, 0, 0])
  flat = Ragged(ids, jnp.array([0, 2, 3]), jnp.array([0.25, -0.75, -0.4, 9, 9]))
  for pool, want in (
    ("mean", [[-0.625, -0.625], [-0.4, 0]]),
    ("max", [[0.25, 0.25], [-0.4, 0]]),
    ("median", [[-1.5, -1.5], [-0.4, 0]]),
  ):
    module = encoders.WeightedEmbeddingEncoder(3, 2, pool)
    got = with_table(module, WEIGHTED, flat).values[:2]
    np.testing.assert_allclose(got, want, 1e-6)


@pytest.mark.parametrize(
  ("first", "second"),
  [
    (
      [[1, 0, 0.25, 0.75], [0, 1, 0.6, 0.4]],
      [[3, 1, 0.8, 0.9], [0.7, 2, 0.6, 0]],
    ),
    ([[7, 0, 0.65], [88, 5, 0.3]], [[8, 9, 0.8], [0.74, 2, 0]]),
  ],
)
def test_concat_joins_rows_in_sorted_order(first, second):
  inputs = {"c2": jnp.float32(second), "c1": jnp.float32(first)}
  widths = {"c2": len(second[0]), "c1": len(first[0])}
  got, _ = run(ChannelConcat(widths, parity=True), inputs)
  np.testing.assert_array_equal(got, jnp.concatenate([inputs["c1"], inputs["c2"]], 1))
  with pytest.raises(ValueError, match="'c1' is absent: with parity"):
    run(ChannelConcat(widths, parity=True), {"c2": inputs["c2"]})


def deepset_gradient(parity):
  module = deepset(dict.fromkeys("abc", 8), apply_attention=True, parity=parity)
  inputs = vectors()
  got, params = run(module, inputs)
  plain, _ = run(deepset(dict.fromkeys("abc", 8)), inputs)

  @jax.jit
  @jax.grad
  def gradient(params):
    return jnp.sin(run(module, inputs, params=params)[0]).sum()

  largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient(params)))
  return np.abs(got - plain).max(), largest


def test_attention_is_not_cancelled_by_the_scaling():
  effect, gradient = deepset_gradient(parity=False)
  assert effect > 0.05 and gradient > 0.005
  # In the original it is.
  effect, gradient = deepset_gradient(parity=True)
  assert effect < 1e-6 and gradient < 1e-6


def test_attention_acts_in_the_original_where_modalities_are_scaled():
  settings = dict(parity=True, modality_normalize=True)
  widths = dict.fromkeys("abc", 8)
  got, _ = run(deepset(widths, apply_attention=True, **settings), vectors())
  plain, _ = run(deepset(widths, **settings), vectors())
  assert np.abs(got - plain).max() > 0.01


@pytest.mark.parametrize("parity", [True, False])
def test_the_transformer_readout_treats_all_channels_equally(parity):
  module = deepset(
    dict.fromkeys("abc", 8), transformer=PostNormTransformer(2, ffn=16), parity=parity
  )
  inputs = vectors()
  got, params = run(module, inputs)
  swapped, _ = run(module, inputs | {"a": inputs["b"], "b": inputs["a"]}, params=params)
  if parity:  # The original reads the first.
    assert np.abs(got - swapped).max() > 0.1
  else:
    np.testing.assert_allclose(got, swapped, 1e-5, 1e-5)


ABSENCE = {
  "deepset": functools.partial(deepset, apply_attention=True, auto_mapping=True),
  "modality normalize": functools.partial(
    deepset, pool="max", modality_normalize=True, auto_mapping=True
  ),
  "transformer": functools.partial(deepset, transformer=PostNormTransformer(2, ffn=4)),
  "concat": functools.partial(ChannelConcat, projection_dim=3),
}


@pytest.mark.parametrize("name", ABSENCE)
def test_an_absent_channel_equals_one_never_declared(name):
  inputs = vectors()
  whole = ABSENCE[name](dict.fromkeys("abc", 8))
  _, params = run(whole, inputs)
  # A bias of zero would hide a placeholder.
  params = jax.tree.map(lambda leaf: leaf + 0.1, params)
  two = {"a": inputs["a"], "c": inputs["c"]}
  without, _ = run(whole, two, params=params)
  here = {"a": jnp.ones(2, bool), "b": jnp.zeros(2, bool), "c": jnp.ones(2, bool)}
  empty, _ = run(whole, inputs | {"b": jnp.full((2, 8), jnp.nan)}, here, params=params)
  np.testing.assert_array_equal(without, empty)
  # A model of two channels; the concatenation's kernel without the rows of the third.
  if name == "concat":
    kernel = params["projection"]["kernel"]
    kernel = jnp.concatenate([kernel[:8], kernel[16:]])
    params = {"projection": params["projection"] | {"kernel": kernel}}
  undeclared, _ = run(ABSENCE[name](dict.fromkeys("ac", 8)), two, params=params)
  np.testing.assert_allclose(without, undeclared, 1e-5, 1e-6)


def test_an_absent_channel_has_no_weight_in_the_attention():
  inputs, widths = vectors(), dict.fromkeys("abc", 8)
  module = ChannelAttention(widths, projection_dim=3)
  _, params = run(module, inputs)
  got, _ = run(module, {"b": inputs["b"]}, params=params)
  alone = params["projection_b"]
  want = np.asarray(inputs["b"] @ alone["kernel"]) + np.asarray(alone["bias"])
  np.testing.assert_allclose(got, want, 1e-5, 1e-6)


def test_nan_stays_in_its_own_example():
  inputs = vectors()
  module = deepset(dict.fromkeys("abc", 8), pool="max", apply_attention=True)
  want, params = run(module, inputs)
  spoilt = inputs | {"a": inputs["a"].at[0, 3].set(jnp.nan)}
  got, _ = run(module, spoilt, params=params)
  np.testing.assert_array_equal(got[1], want[1])
  assert np.isnan(got[0]).any()  # Not hidden: a table refuses it when it is written.
  absent = {k: jnp.array([k != "a", True]) for k in inputs}
  assert np.isfinite(run(module, spoilt, absent, params=params)[0]).all()


def test_occurrences_are_pooled_in_their_modality_first():
  repeated = vectors(width=3, b=4)["a"]
  with pytest.raises(ValueError, match=r"'b' has shape \(1, 4, 3\), expected \(1, 3\)"):
    run(deepset({"a": 3, "b": 3}), {"a": repeated[:1], "b": repeated[None]})
  module = TorchMultimodalFusion(("a", "b"), 3, element_pool="max", pool="sum")
  one = np.asarray(repeated[:1])
  got, _ = run(module, {"a": pack([one], 9), "b": pack([repeated], 9)})
  want, _ = run(
    deepset({"a": 3, "b": 3}, pool="sum"), {"a": one, "b": repeated.max(0)[None]}
  )
  np.testing.assert_allclose(got, want, 1e-6)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_an_empty_example_has_zeros_and_no_gradient(kind):
  module = TorchMultimodalFusion(
    ("a", "b"), 4, kind=kind, auto_mapping=True, apply_attention=True, hidden=(5,),
    projection_dim=3, heads=2, ffn=4, element_pool="softmax", pool="softmax",
  )  # fmt: skip
  full = {k: pack([np.ones((1, 4))] * 2, 5) for k in "ab"}
  _, params = run(module, full)
  params = jax.tree.map(lambda leaf: leaf + 1, params)
  half = {k: pack([np.ones((2, 4)), np.zeros((0, 4))], 5) for k in "ab"}
  got, _ = run(module, half, params=params)
  assert np.any(got[0])
  np.testing.assert_array_equal(got[1], 0)
  none = {k: pack([np.zeros((0, 4))] * 2, 5) for k in "ab"}
  gradient = jax.jit(jax.grad(lambda p: run(module, none, params=p)[0].sum()))(params)
  for leaf in jax.tree.leaves(gradient):
    np.testing.assert_array_equal(leaf, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_parity_needs_every_modality(kind):
  module = TorchMultimodalFusion(("a", "b"), 4, kind=kind, heads=2, parity=True)
  one = pack([np.ones((1, 4))] * 3, 5)
  with pytest.raises(ValueError, match="modality 'b' is absent"):
    run(module, {"a": one})
  few = Ragged(one.values[:2], jnp.array([0, 1, 2, 2]))
  with pytest.raises(ValueError, match="'b' has 2 slots for 3 examples"):
    run(module, {"a": one, "b": few})
  # An example without elements is the vector of zeros that one would give there.
  gap = pack([np.ones((1, 4)), np.zeros((0, 4)), np.ones((1, 4))], 5)
  zero = pack([np.ones((1, 4)), np.zeros((1, 4)), np.ones((1, 4))], 5)
  want, params = run(module, {"a": one, "b": zero})
  got, _ = run(module, {"a": one, "b": gap}, params=params)
  np.testing.assert_allclose(got, want, 1e-6)


def bags(sizes, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.normal(size=(n, 5)).astype(np.float32) for n in sizes]


def mil(encoder=None, **settings):
  return encoders.MILEncoder(encoder or encoders.DenseEncoder(6), 6, **settings)


def test_mil_takes_bags_of_any_size():
  module = mil(
    deepset=Deepset("median", apply_attention=True, modality_normalize=True),
    mlp=encoders.MLP((7,)),
  )
  lists = bags((2, 0, 3))
  got, params = run(module, pack(lists))
  np.testing.assert_array_equal(got.offsets, [0, 1, 1, 2])
  np.testing.assert_array_equal(got.values[2:], 0)
  alone, _ = run(module, pack([lists[0], lists[1], lists[1]]), params=params)
  np.testing.assert_allclose(got.values[0], alone.values[0], 1e-5, 1e-6)
  # The same as the dense form of the bag with the corrected attention.
  dense = mil(deepset=module.deepset, mlp=module.mlp, partition_sizes=[1] * 3)
  want, _ = run(dense, jnp.asarray(lists[2])[None], params=params)
  np.testing.assert_allclose(got.values[1], want[0], 1e-5, 1e-6)


def test_mil_with_a_transformer_ignores_the_order_of_instances():
  mixing = encoders.SequenceEncoder(encoders.DenseEncoder(6), 6, heads=2)
  module = mil(mixing, deepset=Deepset("max"))
  bag = bags((4,))
  got, params = run(module, pack(bag))
  turned, _ = run(module, pack([bag[0][::-1]]), params=params)
  np.testing.assert_allclose(got.values, turned.values, 1e-5, 1e-6)
  other, _ = run(module, pack([bag[0] * 2]), params=params)
  assert np.abs(other.values - got.values).max() > 1e-3


@pytest.mark.parametrize(
  ("module", "x", "named"),
  [
    (mil(deepset=Deepset(), partition_sizes=[2, 2]), jnp.ones((1, 5)), "axis 1.*5"),
    (mil(deepset=Deepset()), jnp.ones((1, 5)), "partition_sizes None"),
    (mil(deepset=Deepset(), partition_sizes=[2]), jnp.ones((1, 2, 5)), "one vector"),
    (mil(deepset=Deepset(), auto_mapping=True), pack(bags((1,))), "no positions"),
    (mil(deepset=Deepset(transformer=PostNormTransformer(2))), pack(bags((2,))),
     "SequenceEncoder"),
    (mil(deepset=Deepset("mode")), pack(bags((1,))), "'mode'; one of.*'median'"),
    (encoders.EmbeddingEncoder(3, 4, "random"), jnp.ones((1, 2), int),
     "'random'; one of"),
    (encoders.WeightedEmbeddingEncoder(3, 4), jnp.ones((1, 2)), "each of 3 ids"),
    (encoders.WeightedEmbeddingEncoder(3, 4),
     Ragged(jnp.array([0]), jnp.array([0, 1])), "no weights"),
    (deepset({"a": 8, "b": 3}), vectors("a"), "widths.*auto_mapping"),
    (deepset({"a": 8}), vectors("ab"), "unknown channel 'b'"),
    (deepset({"a": 8}), {}, "no channel"),
    (deepset({"a": 8}, transformer=PostNormTransformer(3)), vectors("a"),
     "3 heads do not divide the width 8"),
    (deepset({"a": 8}, norm_factor=0.5), vectors("a"), "at least 1"),
    (TorchMultimodalFusion(("a",), 5, kind="sum"), {"a": pack(bags((1,)))},
     "unknown kind 'sum'; one of"),
    (TorchMultimodalFusion(("a",), 5, element_pool="mode"), {"a": pack(bags((1,)))},
     "'mode'; one of"),
  ],
)  # fmt: skip
def test_bad_arguments_are_refused(module, x, named):
  with pytest.raises(ValueError, match=named):
    run(module, x)


@pytest.mark.parametrize("ties", [True, False])
def test_median_is_the_lower_middle_with_its_gradient(ties):
  rng = np.random.default_rng(0)
  lists = [rng.normal(size=(n, 3)) for n in (4, 0, 5, 1)]
  if ties:
    lists = [np.round(x) for x in lists]
  elements = pack(lists)

  def total(values):
    factors = jnp.arange(1, 4, dtype=jnp.float32)
    return (segment_median(values, elements) @ factors).sum()

  got = Pooling("median").apply({}, elements)
  gradient = np.asarray(jax.grad(total)(elements.values))
  for row, x in enumerate(lists):
    want = np.sort(x, axis=0)[(len(x) - 1) // 2] if len(x) else np.zeros(3)
    np.testing.assert_allclose(got[row], want, 1e-6)
    here = gradient[int(elements.offsets[row]) : int(elements.offsets[row + 1])]
    attained = np.float32(x) == np.float32(want)
    share = attained / np.maximum(attained.sum(0), 1) * np.arange(1, 4)
    np.testing.assert_allclose(here, share, 1e-6)
  np.testing.assert_array_equal(gradient[10:], 0)


@pytest.mark.parametrize("p", [1.0, 1.5, np.inf])
def test_p_normalize_gives_length_one_and_a_gradient_at_zero(p):
  x = jnp.array([[3, -4, 0], [0, 0, 0], [1e-3, 2e-3, 0]], jnp.float32)
  got = p_normalize(x, p)
  np.testing.assert_allclose(np.linalg.norm(got, p, axis=1), [1, 0, 1], 1e-5)
  sets = Ragged(x, jnp.array([0, 2, 3]))
  along = p_normalize(x, p, sets)
  np.testing.assert_allclose(along[0], [1, -1, 0], 1e-5)
  for over in (None, sets):
    gradient = jax.grad(lambda x, o=over: jnp.sin(p_normalize(x, p, o)).sum())(x)
    assert np.isfinite(gradient).all()


def test_bfloat16_computes_with_float32_parameters_and_results():
  for kind in KINDS:
    module = TorchMultimodalFusion(
      ("a", "b"), 4, jnp.bfloat16, kind=kind, heads=2, apply_attention=True,
      auto_mapping=True, projection_dim=3, hidden=(4,),
    )  # fmt: skip
    inputs = {k: pack([np.ones((2, 4))] * 2, 5, jnp.bfloat16) for k in "ab"}
    got, params = run(module, inputs)
    assert got.dtype == jnp.float32 and np.isfinite(got).all()
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_dropout_of_the_transformer_is_on_only_in_training():
  module = deepset({"a": 8}, transformer=PostNormTransformer(2, dropout=0.5))
  still, params = run(module, vectors("a"))
  key = {"dropout": jax.random.key(1)}
  moved, _ = run(module, vectors("a"), params=params, train=True, rngs=key)
  assert np.abs(moved - still).max() > 0.01
  np.testing.assert_array_equal(run(module, vectors("a"), params=params)[0], still)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_built_from_a_config(kind):
  config = defaults.supervised().model
  config.features = 8
  settings = dict(kind=kind, ffn=4, apply_attention=True, hidden=(3,))
  set_fusion(config, "torchmultimodal", **settings)
  schema = Schema({"a": Modality("vectors", 5)}, Target("regression", 1))
  model = set_model.build_set_model(config, schema, [0.0])
  got, _ = run(model, {"a": pack(bags((2, 0)))})
  assert got.shape == (2, 1)
