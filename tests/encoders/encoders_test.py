import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax import encoders
from deepsets_jax.ragged import Ragged
from tests.sets import pack


def apply(module, elements, **arguments):
  variables = module.init(jax.random.key(0), elements, train=False)
  return module.apply(variables, elements, **{"train": False} | arguments), variables


def test_dense_encoder_is_an_mlp_of_each_element():
  rng = np.random.default_rng(0)
  lists = [rng.normal(size=(n, 5)) for n in (2, 0, 3, 1)]
  module = encoders.DenseEncoder(4, hidden=(6,), norm=True, activation="tanh")
  got, variables = apply(module, pack(lists))
  params = jax.device_get(variables["params"])
  last, params = params["Dense_0"], params["MLP_0"]
  want = []
  for x in np.concatenate(lists):
    x = x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
    x = np.tanh(x * params["LayerNorm_0"]["scale"] + params["LayerNorm_0"]["bias"])
    want.append(x @ last["kernel"] + last["bias"])
  np.testing.assert_allclose(got.values[:6], want, 1e-4, 1e-4)
  np.testing.assert_array_equal(got.offsets, [0, 2, 2, 5, 6])


def tokens(weights=None):
  ids = jnp.array([2, 0, 2, 0], jnp.int32)
  return Ragged(ids, jnp.array([0, 1, 3], jnp.int32), weights)


def test_token_encoder_looks_up_and_weighs():
  weights = jnp.array([0.5, 2.0, -1.0, 0.0])
  got, variables = apply(encoders.TokenEncoder(3, 4), tokens(weights))
  table = np.asarray(variables["params"]["Embed_0"]["embedding"])
  want = table[[2, 0, 2, 0]] * np.asarray(weights)[:, None]
  np.testing.assert_allclose(got.values, want, 1e-6)
  assert got.weights is None  # Used up: nothing weighs them twice.


def mean_length(elements):
  """The root mean square length of 200 vectors."""
  return np.sqrt(np.mean(np.sum(np.asarray(elements.values) ** 2, axis=1)))


def test_elements_start_at_length_one_in_every_modality():
  # Otherwise a modality of few features would drown the others, or be drowned.
  rng = np.random.default_rng(0)
  for size in (1, 4, 500):
    elements = pack([rng.normal(size=(200, size))] + [np.zeros((0, size))] * 3, 200)
    assert 0.7 < mean_length(apply(encoders.DenseEncoder(256), elements)[0]) < 1.4
  ids = Ragged(jnp.arange(200, dtype=jnp.int32), jnp.array([0, 200]))
  assert 0.7 < mean_length(apply(encoders.TokenEncoder(200, 256), ids)[0]) < 1.4
  cells = ids.replace(weights=jnp.asarray(rng.normal(size=200), jnp.float32))
  for hidden in ((), (128,)):
    fields = encoders.FieldEncoder((1,) * 200, 256, hidden)
    assert 0.7 < mean_length(apply(fields, cells)[0]) < 1.4


def test_token_encoder_takes_hidden_layers():
  got, variables = apply(encoders.TokenEncoder(3, 4, hidden=(5,)), tokens())
  assert got.values.shape == (4, 4)
  assert variables["params"]["MLP_0"]["Dense_0"]["kernel"].shape == (4, 5)


@pytest.mark.parametrize("cls", [encoders.DenseEncoder, encoders.TokenEncoder])
def test_bfloat16_computes_in_bfloat16_with_float32_parameters(cls):
  if cls is encoders.TokenEncoder:
    module, elements = cls(3, 4, hidden=(5,), dtype=jnp.bfloat16), tokens()
  else:
    module = cls(4, hidden=(5,), dtype=jnp.bfloat16)
    elements = pack([np.ones((1, 3))] * 4)
  got, variables = apply(module, elements)
  assert got.values.dtype == jnp.bfloat16
  assert {p.dtype for p in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_scaled_vectors_start_unchanged():
  elements = pack([np.arange(6).reshape(2, 3)] + [np.zeros((0, 3))] * 3)
  got, variables = apply(encoders.Scaled(), elements)
  assert jax.tree.map(jnp.shape, variables["params"]) == {
    "_ModalityScale_0": {"factor": ()}
  }
  np.testing.assert_array_equal(got.values, elements.values)
  twice = jax.tree.map(lambda x: 2 * x, variables)
  weighted = elements.replace(weights=jnp.arange(24.0))
  got = encoders.Scaled(jnp.bfloat16).apply(twice, weighted, train=False)
  assert got.values.dtype == jnp.bfloat16
  want = 2 * np.asarray(elements.values) * np.arange(24)[:, None]
  np.testing.assert_allclose(got.values.astype(jnp.float32), want)


def test_dropout_only_in_training():
  module = encoders.DenseEncoder(4, hidden=(64,), dropout=0.5)
  elements = pack([np.ones((2, 3))] * 4)
  still, variables = apply(module, elements)
  rngs = {"dropout": jax.random.key(1)}
  moved = module.apply(variables, elements, train=True, rngs=rngs)
  assert not np.array_equal(moved.values, still.values)


def test_unknown_activation_is_named():
  with pytest.raises(ValueError, match="unknown activation 'swish'.*'silu'"):
    apply(encoders.DenseEncoder(4, hidden=(4,), activation="swish"), pack([[[1.0]]]))


def test_l2_normalize_has_a_gradient_at_zero():
  x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
  np.testing.assert_allclose(encoders.l2_normalize(x), [[0.6, 0.8], [0, 0]], 1e-6)
  gradient = jax.grad(lambda x: encoders.l2_normalize(x).sum())(x)
  assert np.isfinite(gradient).all()
  np.testing.assert_array_equal(gradient[1], 0)


GROUPS = (1, 3, 1)


def cells(budget=8, weights=(0.5, 1.0, -2.0, 1.0, 0.0), order=slice(None)):
  """Two rows of a table: a, b and c of the first, b and c of the other."""
  ids, values = np.zeros(budget, np.int32), np.zeros(budget, np.float32)
  ids[:5], values[:5] = [0, 2, 4, 1, 4], weights
  ids[:3], values[:3] = ids[:3][order], values[:3][order]
  return Ragged(
    jnp.asarray(ids), jnp.array([0, 3, 5, 5], jnp.int32), jnp.asarray(values)
  )


@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)])
def test_field_encoder_is_a_loop_over_cells(hidden):
  module = encoders.FieldEncoder(GROUPS, 4, hidden=hidden, activation="tanh", norm=True)
  got, variables = apply(module, cells())
  params = jax.device_get(variables["params"])
  columns, ids = params["columns"]["embedding"], params["ids"]["embedding"]
  given, factor = cells(), params["_ModalityScale_0"]["factor"]
  for slot in range(5):
    token, value = int(given.values[slot]), float(given.weights[slot])
    column = int(np.searchsorted(np.cumsum(GROUPS), token, side="right"))
    x = columns[column].astype(np.float64) + value * ids[token].astype(np.float64)
    for layer in range(len(hidden)):
      if layer:
        dense = params["MLP_0"][f"Dense_{layer - 1}"]
        x = x @ dense["kernel"] + dense["bias"]
      norm = params["MLP_0"][f"LayerNorm_{layer}"]
      x = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
      x = np.tanh(x * norm["scale"] + norm["bias"])
    if hidden:
      x = x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    else:
      x = np.tanh(x)
    np.testing.assert_allclose(got.values[slot], factor * x, 1e-4, 1e-5)
  assert got.weights is None  # Values are used up: nothing weighs by them.


def test_field_encoder_ignores_order_slots_and_other_cells():
  module = encoders.FieldEncoder(GROUPS, 4, hidden=(6,))
  want, variables = apply(module, cells())
  turned = module.apply(variables, cells(order=slice(None, None, -1)), train=False)
  np.testing.assert_allclose(turned.values[:3][::-1], want.values[:3], 1e-6)
  wider = module.apply(variables, cells(budget=16), train=False)
  np.testing.assert_allclose(wider.values[:5], want.values[:5], 1e-6)
  other = module.apply(variables, cells(weights=(9.0, 1.0, 7.0, 1.0, 0.0)), train=False)
  np.testing.assert_array_equal(other.values[1], want.values[1])
  np.testing.assert_array_equal(other.values[3:5], want.values[3:5])
  junk = cells()
  filled = junk.replace(
    values=junk.values.at[5:].set(3), weights=junk.weights.at[5:].set(1e6)
  )
  got = module.apply(variables, filled, train=False)
  np.testing.assert_array_equal(got.values[:5], want.values[:5])


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_field_encoder_has_finite_gradients_of_present_cells_alone(hidden):
  module = encoders.FieldEncoder(GROUPS, 4, hidden=hidden, activation="tanh")
  _, variables = apply(module, cells())

  def total(params):
    encoded = module.apply({"params": params}, cells(), train=False)
    return jnp.sum(jnp.sin(encoded.values[:5]))

  gradient = jax.grad(total)(variables["params"])
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
  ids = np.asarray(gradient["ids"]["embedding"])
  # No row has 3, the last category of the second column.
  assert not ids[3].any() and all(ids[token].any() for token in (0, 1, 2, 4))


def test_a_model_of_many_columns_is_no_larger_a_program():
  def program(columns):
    module = encoders.FieldEncoder((1,) * columns, 4, hidden=(6,))
    n = 2 * columns
    elements = Ragged(jnp.zeros(n, jnp.int32), jnp.array([0, columns, n]), jnp.zeros(n))
    init = functools.partial(module.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), elements)

    def total(variables, elements):
      return jnp.sum(module.apply(variables, elements, train=False).values)

    traced = jax.make_jaxpr(jax.grad(total))(shapes, elements)
    return len(traced.eqns), len(jax.tree.leaves(shapes))

  assert program(40) == program(400)
