import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import config_dict

from configs import debian_programs, debian_structures
from deepsets_jax import encoders
from deepsets_jax.analysis.attribution.rollout import attention_weights, read_reports
from deepsets_jax.data.datasets import debian_programs as programs
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.fusion import MILFusion, SetPoolFusion, SingleStreamFusion
from deepsets_jax.models import set_model
from deepsets_jax.models.config import set_fusion
from deepsets_jax.ragged import Batch, Ragged, drop_modalities
from deepsets_jax.tasks import defaults
from deepsets_jax.training import sharding
from tests.fusion.reference.mil import mil_attention
from tests.fusion.reference.transformer import dense, rollout, transformer
from tests.sets import FEATURES, NUM_EXAMPLES, pack, set_lists

SCHEMA = Schema(
  {
    "image": Modality("vectors", FEATURES),
    "face": Modality("vectors", FEATURES),
    "word": Modality("tokens", 5, ordered=True),
  },
  Target("multiclass", 4),
)
SETTINGS = {
  "set_pool": {"set_pool.pools": ("sum", "max")},
  "concat": {"concat.pools": ("sum", "max")},
  "two_stage": {
    "two_stage.heads": 3,
    "sequence.modalities": ("face", "word"),
    "sequence.heads": 1,
    "positions.word": "sinusoidal",
  },
  "single_stream": {
    "single_stream.heads": 3,
    "single_stream.fused": "mean",
    "positions.word": "learned",
  },
}
MODELS = tuple(SETTINGS)
SETS = st.fixed_dictionaries({name: set_lists() for name in SCHEMA.modalities})


def to_batch(sets):
  """A batch of vectors as they are; tokens come from a vector's first feature."""
  modalities = {name: pack(lists) for name, lists in sets.items()}
  word = modalities["word"]
  ids = jnp.abs(word.values[:, 0] * 7).astype(jnp.int32) % 5
  modalities["word"] = Ragged(ids, word.offsets)
  empty = jnp.zeros(NUM_EXAMPLES)
  return Batch(modalities, empty, empty, empty.astype(jnp.int32))


@functools.cache
def built(fusion):
  config = defaults.supervised().model
  config.features = FEATURES
  set_fusion(config, fusion)
  for name in SCHEMA.modalities:
    config.positions[name] = config_dict.placeholder(str)
  config.update_from_flattened_dict(SETTINGS[fusion])
  config.head.hidden = (6,)
  config.dense.hidden = (4,)
  model = set_model.build_set_model(config, SCHEMA, np.zeros(4))
  sets = {k: [np.ones((1, FEATURES))] * NUM_EXAMPLES for k in SCHEMA.modalities}
  variables = model.init(jax.random.key(0), to_batch(sets).modalities)
  return model, variables, jax.jit(model.apply)


@pytest.mark.parametrize("fusion", MODELS)
class TestEveryModel:
  @hypothesis.given(sets=SETS, gone=st.sampled_from(sorted(SCHEMA.modalities)))
  def test_an_absent_modality_equals_one_never_declared(self, fusion, sets, gone):
    _, variables, apply = built(fusion)
    absent = sets | {gone: [np.zeros((0, FEATURES), np.float32)] * NUM_EXAMPLES}
    batch = to_batch(absent)
    got = apply(variables, batch.modalities)
    want = apply(variables, drop_modalities(batch, [gone]).modalities)
    if fusion in ("set_pool", "concat"):
      np.testing.assert_array_equal(got, want)
    else:  # XLA's rounding depends on the program, see `fusion_test`.
      np.testing.assert_allclose(got, want, 1e-5, 1e-6)

  @hypothesis.given(sets=SETS)
  def test_gradients_are_finite(self, fusion, sets):
    gradient = _gradient(fusion, to_batch(sets).modalities)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))

  def test_an_unknown_modality_is_named(self, fusion):
    model, variables, _ = built(fusion)
    sound = {"sound": pack([np.ones((1, FEATURES))] * NUM_EXAMPLES)}
    with pytest.raises(ValueError, match="unknown modality 'sound'; the model has"):
      model.apply(variables, sound)

  def test_a_batch_without_any_modality_is_refused(self, fusion):
    model, variables, _ = built(fusion)
    with pytest.raises(ValueError, match="a batch without any modality"):
      model.apply(variables, {})


def of_sequences(fusion, layers=2):
  """A model whose faces go through a transformer with remat; images do not."""
  sequence = encoders.SequenceEncoder(
    encoders.DenseEncoder(FEATURES),
    FEATURES,
    layers=layers,
    heads=3,
    hidden=5,
    remat=True,
  )
  return set_model.SetModel(
    encoders={"face": sequence, "image": encoders.DenseEncoder(FEATURES)},
    fusion=fusion,
    head=set_model.Head((0.0,)),
  )


def random_sets(seed):
  rng = np.random.default_rng(seed)
  sizes = {"face": (3, 0, 1, 4), "image": (2, 3, 0, 0)}
  lists = {k: [rng.normal(size=(n, FEATURES)) for n in v] for k, v in sizes.items()}
  return {k: [x.astype(np.float32) for x in v] for k, v in lists.items()}


class TestAttention:
  @pytest.mark.slow
  def test_goes_back_through_an_encoder_that_mixes(self):
    model = of_sequences(MILFusion(("face", "image"), FEATURES, hidden=5))
    sets = random_sets(0)
    modalities = {name: pack(lists, 9) for name, lists in sets.items()}
    params = model.init(jax.random.key(0), modalities)["params"]
    weights = jax.jit(functools.partial(attention_weights, model))(
      {"params": params}, modalities
    )
    got = {
      name: part.replace(values=weights[name]).to_lists()
      for name, part in modalities.items()
    }
    params = jax.device_get(params)
    for i in range(NUM_EXAMPLES):
      face, image = (
        dense(p["Dense_0"], sets[name][i]) * p["_ModalityScale_0"]["factor"]
        for name, p in (
          ("face", params["encoders_face"]["elements"]),
          ("image", params["encoders_image"]),
        )
      )
      read = params["encoders_face"]["transformer"]
      encoded = {"face": transformer(read, face), "image": image}
      want = mil_attention(params["fusion"], encoded)
      want["face"] = want["face"] @ rollout(read, face)
      for name in sets:
        np.testing.assert_allclose(got[name][i], want[name], 1e-4, 1e-5)

  @pytest.mark.parametrize("pools", [("max",), ("max", "softmax")])
  def test_is_there_only_if_the_fusion_attends(self, pools):
    model = of_sequences(SetPoolFusion(("face", "image"), FEATURES, pools=pools))
    modalities = {name: pack(lists, 9) for name, lists in random_sets(0).items()}

    def shapes(key):
      variables = model.init(key, modalities)
      assert "importance" not in variables
      reports = read_reports(model, variables, modalities)
      weights = attention_weights(model, variables, modalities)
      return reports["fusion"]["argmax"], weights

    shares, weights = jax.eval_shape(shapes, jax.random.key(0))
    assert {k: v.shape for k, v in shares.items()} == {"face": (9,), "image": (9,)}
    assert (weights is not None) == ("softmax" in pools)

  @pytest.mark.slow
  def test_is_the_same_shard_by_shard_on_many_devices(self):
    names = ("face", "image")
    fusion = SingleStreamFusion(names, FEATURES, heads=3, hidden=5)
    model = of_sequences(fusion, layers=1)
    shards = [
      {name: pack(lists, 9) for name, lists in random_sets(seed).items()}
      for seed in range(2 * jax.device_count())
    ]
    params = model.init(jax.random.key(0), shards[0])["params"]
    weights = functools.partial(attention_weights, model, {"params": params})
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *shards)
    on_devices = jax.shard_map(
      lambda modalities: jax.lax.map(weights, modalities),
      mesh=sharding.make_mesh(),
      in_specs=jax.P(sharding.AXIS),
      out_specs=jax.P(sharding.AXIS),
    )
    got = jax.jit(on_devices)(stacked)
    alone = jax.jit(weights)
    for index, shard in enumerate(shards):
      want = alone(shard)
      for name in names:
        np.testing.assert_allclose(got[name][index], want[name], 1e-5, 1e-6)


@functools.partial(jax.jit, static_argnums=0)
def _gradient(fusion, modalities):
  model, variables, _ = built(fusion)
  return jax.grad(lambda v: jnp.sin(model.apply(v, modalities)).sum())(variables)


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    ({"positions.image": "learned"}, "positions.image is 'learned'.*unordered"),
    ({"positions.word": "rotary"}, "'rotary', which turns.*sequence.modalities"),
    ({"positions.word": "waves"}, "positions.word 'waves'; one of"),
    ({"positions.smell": "learned"}, "positions: no modality 'smell'; the data has"),
    ({"sequence.modalities": ("smell",)}, "sequence.modalities: no modality 'smell'"),
    ({"fading": ("smell",)}, "fading: no modality 'smell'; the data has"),
    ({"fading": ("image",)}, "fading: 'image' is declared unordered"),
  ],
)
def test_bad_positions_and_sequences_are_refused(overrides, message):
  config = defaults.supervised().model
  for name in (*SCHEMA.modalities, "smell"):
    config.positions[name] = config_dict.placeholder(str)
  config.update_from_flattened_dict(overrides)
  with pytest.raises(ValueError, match=message):
    set_model.build_set_model(config, SCHEMA, np.zeros(4))


@pytest.mark.parametrize("fusion", ["two_stage", "single_stream"])
def test_heads_that_do_not_divide_the_width_are_refused(fusion):
  config = defaults.supervised().model
  config.features = FEATURES
  set_fusion(config, fusion)
  model = set_model.build_set_model(config, SCHEMA, np.zeros(4))
  sets = {k: [np.ones((1, FEATURES))] * NUM_EXAMPLES for k in SCHEMA.modalities}
  with pytest.raises(ValueError, match="fusion/transformer.*4 heads do not divide"):
    jax.eval_shape(model.init, jax.random.key(0), to_batch(sets).modalities)


def test_a_readout_of_fused_tokens_needs_them():
  config = defaults.supervised().model
  set_fusion(config, "single_stream", fused=None, readout="fused")
  model = set_model.build_set_model(config, SCHEMA, np.zeros(4))
  sets = {k: [np.ones((1, FEATURES))] * NUM_EXAMPLES for k in SCHEMA.modalities}
  with pytest.raises(ValueError, match="readout 'fused' without fused tokens"):
    jax.eval_shape(model.init, jax.random.key(0), to_batch(sets).modalities)


@pytest.mark.parametrize(
  ("kind", "size"),
  [("multilabel", 3), ("multiclass", 5), ("binary", 1), ("regression", 2)],
)
def test_a_head_of_each_kind_starts_at_its_bias(kind, size):
  schema = Schema(SCHEMA.modalities, Target(kind, size))
  bias = np.arange(size, dtype=np.float32)
  model = set_model.build_set_model(defaults.supervised().model, schema, bias)
  sets = {
    k: [np.zeros((0, FEATURES), np.float32)] * NUM_EXAMPLES for k in SCHEMA.modalities
  }
  modalities = to_batch(sets).modalities
  variables = model.init(jax.random.key(0), modalities)
  logits = model.apply(variables, modalities)
  np.testing.assert_allclose(logits, np.tile(bias, (NUM_EXAMPLES, 1)), 1e-6)


@pytest.mark.parametrize(
  ("get_config", "names", "most"),
  [
    (debian_programs.get_config, debian_programs.MODELS, 1.05),
    (debian_structures.get_config, debian_structures.STRUCTURES, 1.06),
  ],
)
def test_the_models_compared_on_debian_programs_match_in_parameters(
  get_config, names, most
):
  sizes = {}
  for argument in names:
    config = get_config(argument)
    schema = _schema(config.data.debian_programs.text)
    model = set_model.build_set_model(
      config.model, schema, np.zeros(schema.target.size)
    )
    modalities = {
      name: Ragged(
        jax.ShapeDtypeStruct(
          (8,) if m.kind == "tokens" else (8, m.size),
          jnp.int32 if m.kind == "tokens" else jnp.float32,
        ),
        jax.ShapeDtypeStruct((3,), jnp.int32),
      )
      for name, m in schema.modalities.items()
    }
    shapes = jax.eval_shape(model.init, jax.random.key(0), modalities)
    sizes[argument] = sum(x.size for x in jax.tree.leaves(shapes))
  assert max(sizes.values()) / min(sizes.values()) < most, sizes


class TestHead:
  x = jnp.arange(12.0).reshape(3, 4)

  def test_without_a_projection_the_vector_and_a_bias_come_out(self):
    head = set_model.Head((0.5, 0.0, -1.0, 2.0), project=False)
    variables = head.init(jax.random.key(0), self.x, train=False)
    assert jax.tree.map(jnp.shape, variables["params"]) == {"bias": (4,)}
    got = head.apply(variables, self.x, train=False)
    np.testing.assert_array_equal(got, self.x + jnp.array([[0.5, 0.0, -1.0, 2.0]]))

  def test_without_a_projection_the_last_hidden_layer_comes_out(self):
    head = set_model.Head((0.0,) * 3, hidden=(3,), activation="tanh", project=False)
    variables = head.init(jax.random.key(0), self.x, train=False)
    got = head.apply(variables, self.x, train=False)
    layer = jax.device_get(variables["params"]["MLP_0"]["Dense_0"])
    want = np.tanh(dense(layer, np.asarray(self.x)))
    np.testing.assert_allclose(got, want, 1e-5)

  def test_without_a_projection_another_width_is_refused(self):
    head = set_model.Head((0.0,) * 3, project=False)
    with pytest.raises(ValueError, match="project is False.* is 4 wide, not 3"):
      head.init(jax.random.key(0), self.x, train=False)


@pytest.mark.parametrize(
  ("encoded", "width", "kind"),
  [
    (True, FEATURES, encoders.Scaled),
    (True, FEATURES + 1, encoders.DenseEncoder),
    (False, FEATURES, encoders.DenseEncoder),
  ],
)
def test_encoded_vectors_of_the_common_width_are_not_projected(encoded, width, kind):
  config = defaults.supervised().model
  config.features = width
  schema = Schema(
    {"face": Modality("vectors", FEATURES, ordered=True, encoded=encoded)},
    SCHEMA.target,
  )
  assert isinstance(
    set_model.build_set_model(config, schema, np.zeros(4)).encoders["face"], kind
  )
  config.fading = ("face",)
  faded = set_model.build_set_model(config, schema, np.zeros(4)).encoders["face"]
  assert faded.fading and faded.layers == 0 and isinstance(faded.elements, kind)


@functools.cache
def _schema(text):
  return programs.load_debian_programs(0, text=text)["train"].schema
