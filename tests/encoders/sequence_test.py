import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax.encoders import DenseEncoder, FieldEncoder, SequenceEncoder
from deepsets_jax.encoders.transformer import rotate, sinusoids
from deepsets_jax.ragged import Ragged
from tests.fusion.reference.transformer import dense, transformer
from tests.sets import FEATURES, NUM_EXAMPLES, pack

WIDTH = 6
LENGTHS = (3, 0, 1, 5)


def sets(seed=0):
  rng = np.random.default_rng(seed)
  return [rng.normal(size=(n, FEATURES)).astype(np.float32) for n in LENGTHS]


def encoder(positions=None, **settings):
  return SequenceEncoder(
    DenseEncoder(WIDTH), WIDTH, positions, heads=3, hidden=5, **settings
  )


@functools.cache
def built(positions=None, layers=1):
  module = encoder(positions, layers=layers)
  variables = module.init(jax.random.key(0), pack(sets()), train=False)
  return variables, jax.jit(functools.partial(module.apply, train=False))


def encoded(lists, positions=None, layers=1, **fields):
  variables, apply = built(positions, layers)
  return apply(variables, pack(lists).replace(**fields)).to_lists()


def test_equals_a_loop_over_examples():
  params = jax.device_get(built(layers=2)[0]["params"])
  factor = params["elements"]["_ModalityScale_0"]["factor"]
  for got, elements in zip(encoded(sets(), layers=2), sets(), strict=True):
    embedded = dense(params["elements"]["Dense_0"], elements) * factor
    want = transformer(params["transformer"], embedded)
    np.testing.assert_allclose(got, want, 1e-4, 1e-5)


@pytest.mark.parametrize("positions", [None, "rotary", "sinusoidal", "learned"])
def test_order_matters_with_positions_only(positions):
  lists = sets()
  turned = [elements[::-1] for elements in lists]
  want, got = encoded(lists, positions), encoded(turned, positions)
  same = [np.allclose(a, b[::-1], 1e-4, 1e-5) for a, b in zip(want, got, strict=True)]
  # An order of nothing or of one element is no order.
  ordered = positions is not None
  assert same == [not ordered, True, True, not ordered]


@pytest.mark.parametrize("positions", ["rotary", "sinusoidal", "learned"])
def test_times_take_the_place_of_places(positions):
  places = pack(sets()).positions
  at_places = encoded(sets(), positions)
  timed = encoded(sets(), positions, times=places.astype(jnp.float32))
  np.testing.assert_allclose(
    np.concatenate(at_places), np.concatenate(timed), 1e-5, 1e-6
  )
  later = encoded(sets(), positions, times=places.astype(jnp.float32) * 2)
  assert not np.allclose(np.concatenate(at_places), np.concatenate(later), 1e-3)


def test_rotary_positions_depend_on_differences_only():
  rng = np.random.default_rng(0)
  q, k = (jnp.asarray(rng.normal(size=(5, 2, 4)), jnp.float32) for _ in range(2))
  places = jnp.arange(5.0)
  products = [
    jnp.einsum("qhd,khd->hqk", rotate(q, places + s), rotate(k, places + s))
    for s in (0.0, 7.5)
  ]
  np.testing.assert_allclose(*products, 1e-4, 1e-5)
  np.testing.assert_allclose(
    jnp.linalg.norm(rotate(q, places), axis=-1), jnp.linalg.norm(q, axis=-1), 1e-5
  )


def test_sinusoids_have_length_one():
  waves = sinusoids(jnp.array([0.0, 3.0, 1e4]), WIDTH)
  np.testing.assert_allclose(jnp.linalg.norm(waves, axis=1), 1, 1e-5)
  assert sinusoids(jnp.zeros(2), 5).shape == (2, 5)


def test_learned_positions_are_clipped_to_their_table():
  module = encoder("learned", layers=0, max_positions=2)
  elements = pack(sets())
  variables = module.init(jax.random.key(0), elements, train=False)
  added = module.apply(variables, elements, train=False).to_lists()[3]
  plain = module.apply(
    jax.tree.map_with_path(
      lambda path, x: x * 0 if "positions" in str(path) else x, variables
    ),
    elements,
    train=False,
  ).to_lists()[3]
  rows = np.asarray(variables["params"]["positions"]["embedding"])
  np.testing.assert_allclose(added - plain, rows[[0, 1, 1, 1, 1]], 1e-4, 1e-5)


def fading(lists, logs=None, **settings):
  """What comes out with the learned logarithms, those of the start for None."""
  module = encoder(fading=True, layers=0, max_positions=3, **settings)
  variables = module.init(jax.random.key(0), pack(lists), train=False)
  start = variables["params"]["fading"]
  if logs is not None:
    variables["params"]["fading"] = logs
  out = module.apply(variables, pack(lists), train=False)
  elements = module.bind(variables).elements(pack(lists), train=False)
  return out.to_lists(), elements.to_lists(), start


@pytest.mark.parametrize("learned", [False, True])
def test_elements_fade_by_the_number_that_come_after_them(learned):
  logs = np.random.default_rng(0).normal(size=(3, WIDTH)).astype(np.float32)
  faded, plain, start = fading(sets(), logs if learned else None)
  np.testing.assert_allclose(start, np.repeat([[0], [-0.1], [-0.2]], WIDTH, 1), 1e-6)
  logs = logs if learned else start
  for got, elements in zip(faded, plain, strict=True):
    last = len(elements) - 1
    # What is further back than the table is as far back as it goes.
    want = [x * np.exp(logs[min(last - i, 2)]) for i, x in enumerate(elements)]
    np.testing.assert_allclose(got, np.reshape(want, (-1, WIDTH)), 1e-5, 1e-6)


def test_fading_starts_at_one_for_the_last_element():
  faded, plain, _ = fading(sets())
  for got, elements in zip(faded, plain, strict=True):
    np.testing.assert_allclose(got[-1:], elements[-1:], 1e-6)


def test_recency_is_the_number_of_later_elements_and_ignores_times():
  module = encoder("recency", layers=0, max_positions=2)
  elements = pack(sets())
  timed = elements.replace(times=jnp.arange(elements.num_slots, dtype=jnp.float32))
  variables = module.init(jax.random.key(0), elements, train=False)
  rows = np.asarray(variables["params"]["positions"]["embedding"])
  plain = module.bind(variables).elements(elements, train=False).to_lists()[3]
  for given in (elements, timed):
    added = module.apply(variables, given, train=False).to_lists()[3] - plain
    np.testing.assert_allclose(added, rows[[1, 1, 1, 1, 0]], 1e-4, 1e-5)


def test_weights_multiply_outputs():
  weights = jnp.arange(pack(sets()).num_slots, dtype=jnp.float32)
  plain, weighted = encoded(sets()), encoded(sets(), weights=weights)
  want = np.concatenate(plain) * np.arange(sum(LENGTHS))[:, None]
  np.testing.assert_allclose(np.concatenate(weighted), want, 1e-5, 1e-6)


@pytest.mark.slow
def test_remat_changes_memory_not_results():
  elements = pack(sets())
  variables, _ = built("rotary")

  def loss(variables, remat):
    module = encoder("rotary", remat=remat)
    return jnp.sin(module.apply(variables, elements, train=True).values).sum()

  both = [
    jax.jit(jax.grad(functools.partial(loss, remat=r)))(variables) for r in (0, 1)
  ]
  for a, b in zip(*map(jax.tree.leaves, both), strict=True):
    np.testing.assert_allclose(a, b, 1e-5, 1e-6)


def test_dropout_is_on_in_training_only():
  module = encoder(dropout=0.5)
  variables, elements = built()[0], pack(sets())
  np.testing.assert_array_equal(
    module.apply(variables, elements, train=False).values,
    encoder().apply(variables, elements, train=False).values,
  )
  noisy = [
    module.apply(variables, elements, train=True, rngs={"dropout": jax.random.key(i)})
    for i in range(2)
  ]
  assert not np.allclose(noisy[0].values, noisy[1].values)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (
      dict(heads=4),
      r"transformer/block_0.*: 4 heads do not divide the width 6; one of",
    ),
    (dict(heads=2, positions="rotary"), "rotary positions turn pairs.* a head has 3"),
  ],
)
def test_bad_heads_are_named(settings, message):
  module = SequenceEncoder(DenseEncoder(WIDTH), WIDTH, **settings)
  lists = [np.ones((1, FEATURES))] * NUM_EXAMPLES
  with pytest.raises(ValueError, match=message):
    module.init(jax.random.key(0), pack(lists), train=False)


def test_values_are_read_with_their_tokens_and_weigh_nothing():
  elements = FieldEncoder((1, 2), WIDTH)
  module = SequenceEncoder(elements, WIDTH, layers=0, valued=True)
  tokens = Ragged(
    jnp.array([0, 2, 0], jnp.int32), jnp.array([0, 2, 3]), jnp.array([0.5, 1.0, -2.0])
  )
  variables = module.init(jax.random.key(0), tokens, train=False)
  got = module.apply(variables, tokens, train=False)
  inner = {"params": variables["params"]["elements"]}
  want = elements.apply(inner, tokens, train=False)
  np.testing.assert_array_equal(got.values, want.values)
