import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base, debian_programs
from deepsets_jax import models
from deepsets_jax.data import debian_programs as programs
from deepsets_jax.ragged import Batch, Ragged, without
from deepsets_jax.schema import Modality, Schema, Target
from tests.sets import FEATURES, NUM_EXAMPLES, pack, set_lists

SCHEMA = Schema(
  {
    "image": Modality("vectors", FEATURES),
    "face": Modality("vectors", FEATURES),
    "word": Modality("tokens", 5),
  },
  Target("multiclass", 4),
)
MODELS = ("set_pool", "concat")
SETS = st.fixed_dictionaries({name: set_lists() for name in SCHEMA.modalities})


def to_batch(sets):
  """Vectors as they are; a token is told by its vector's first feature."""
  modalities = {name: pack(lists) for name, lists in sets.items()}
  word = modalities["word"]
  ids = jnp.abs(word.values[:, 0] * 7).astype(jnp.int32) % 5
  modalities["word"] = Ragged(ids, word.offsets)
  empty = jnp.zeros(NUM_EXAMPLES)
  return Batch(modalities, empty, empty, empty.astype(jnp.int32))


@functools.cache
def built(fusion):
  config = base.get_config().model
  config.update(features=FEATURES, fusion=fusion)
  config.set_pool.pools = ("sum", "max")
  config.head.hidden = (6,)
  config.dense.hidden = (4,)
  model = models.build(config, SCHEMA, np.zeros(4))
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
    np.testing.assert_array_equal(
      apply(variables, batch.modalities),
      apply(variables, without(batch, [gone]).modalities),
    )

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


@functools.partial(jax.jit, static_argnums=0)
def _gradient(fusion, modalities):
  model, variables, _ = built(fusion)
  return jax.grad(lambda v: jnp.sin(model.apply(v, modalities)).sum())(variables)


@pytest.mark.parametrize(
  ("kind", "size"),
  [("multilabel", 3), ("multiclass", 5), ("binary", 1), ("regression", 2)],
)
def test_a_head_of_each_kind_starts_at_its_bias(kind, size):
  schema = Schema(SCHEMA.modalities, Target(kind, size))
  bias = np.arange(size, dtype=np.float32)
  model = models.build(base.get_config().model, schema, bias)
  sets = {
    k: [np.zeros((0, FEATURES), np.float32)] * NUM_EXAMPLES for k in SCHEMA.modalities
  }
  modalities = to_batch(sets).modalities
  variables = model.init(jax.random.key(0), modalities)
  logits = model.apply(variables, modalities)
  np.testing.assert_allclose(logits, np.tile(bias, (NUM_EXAMPLES, 1)), 1e-6)


def test_the_models_compared_on_debian_programs_match_in_parameters():
  schema = programs.load(0, text="bag")["train"].schema
  sizes = {}
  for argument in ("set_pool", "concat", "concat_learned"):
    config = debian_programs.get_config(argument).model
    model = models.build(config, schema, np.zeros(schema.target.size))
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
  assert max(sizes.values()) / min(sizes.values()) < 1.05, sizes
