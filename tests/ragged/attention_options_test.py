"""Masks, bias by position, dropout and shared key heads of attention in segments."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax.ragged import attention
from deepsets_jax.ragged.attention import blocks, options, plans
from deepsets_jax.training import sharding
from tests.ragged.attention_test import attention_loop, dense, inputs, received_loop

HEADS = 4
STATIC = ("causal", "window", "dropout_rate", "shared", "most")


@pytest.fixture(autouse=True)
def one_kind_of_tile(monkeypatch):
  """One kind of tile compiles faster; longer segments are cut into blocks."""
  monkeypatch.setattr(plans, "_SIZES", (16,))
  monkeypatch.setattr(plans, "_COARSE_SIZES", (16,))


def planned(query_offsets, key_offsets, shared, most=400):
  key_offsets = query_offsets if shared else key_offsets
  return attention.plan(query_offsets, key_offsets, most, most)


@functools.partial(jax.jit, static_argnames=STATIC)
def attend(q, k, v, query_offsets, key_offsets, shared=True, most=400, **chosen):
  plan = planned(query_offsets, key_offsets, shared, most)
  return attention.attend(q, k, v, plan, **chosen)


@functools.partial(jax.jit, static_argnames=STATIC)
def passes(q, k, v, bias, cotangent, query_offsets, key_offsets, shared=True, **chosen):
  """The output and the gradients of q, k, v and bias."""
  plan = planned(query_offsets, key_offsets, shared)

  def attended(q, k, v, bias):
    return attention.attend(q, k, v, plan, bias=bias, **chosen)

  out, pull = jax.vjp(attended, q, k, v, bias)
  return out, *pull(cotangent)


@functools.partial(jax.jit, static_argnames=STATIC)
def dense_passes(q, k, v, bias, cotangent, *offsets, factors=None, **chosen):
  def attended(q, k, v, bias):
    return dense(q, k, v, *offsets, bias=bias, factors=factors, **chosen)

  out, pull = jax.vjp(attended, q, k, v, bias)
  return out, *pull(cotangent)


@functools.partial(jax.jit, static_argnames=STATIC)
def received(q, k, mass, query_offsets, key_offsets, shared, **chosen):
  plan = planned(query_offsets, key_offsets, shared)
  return attention.received_mass(q, k, plan, mass, **chosen)


def random_bias(reach):
  rng = np.random.default_rng(7)
  return jnp.asarray(rng.normal(size=(HEADS, 2 * reach + 1)), jnp.float32)


SELF = [0, 1, 9, 200, 30, 130, 0, 16]
CASES = {
  "inside": (SELF, SELF, True),
  "across": ([3, 0, 150, 2, 12], [5, 4, 0, 300, 9], False),
}
# Options, the reach of the bias, and the number of key heads.
OPTIONS = {
  "causal, grouped heads": (dict(causal=True), None, 2),
  "window": (dict(window=5), None, HEADS),
  "bias": ({}, 3, HEADS),
  "all": (dict(causal=True, window=140), 200, 1),
}


@pytest.mark.parametrize(
  ("name", "case"),
  [*((name, "inside") for name in OPTIONS), ("window", "across"), ("all", "across")],
)
def test_outputs_gradients_and_received_equal_the_reference(name, case):
  queries, keys, shared = CASES[case]
  chosen, reach, key_heads = OPTIONS[name]
  bias = None if reach is None else random_bias(reach)
  q, k, v, g, *offsets = inputs(queries, keys, heads=HEADS, key_heads=key_heads)
  out, *grads = passes(q, k, v, bias, g, *offsets, shared=shared, **chosen)
  want = attention_loop(q, k, v, queries, keys, bias=bias, **chosen)
  np.testing.assert_allclose(out, want, 1e-5, 1e-5)
  _, *want = dense_passes(q, k, v, bias, g, *offsets, **chosen)
  for ours, theirs in zip(grads, want, strict=True):
    if theirs is not None:
      np.testing.assert_allclose(ours, theirs, 1e-4, 3e-5)
  mass = np.random.default_rng(0).normal(size=len(q)).astype(np.float32)
  got = received(q, k, mass, *offsets, shared=shared, bias=bias, **chosen)
  want = received_loop(q, k, mass, queries, keys, bias=bias, **chosen)
  np.testing.assert_allclose(got, want, 1e-5, 1e-5)


@pytest.mark.parametrize("chosen", [dict(window=150), dict(causal=True, window=64)])
def test_a_window_over_a_long_segment(chosen):
  q, k, v, _, *offsets = inputs([700], [700])
  got = attend(q, k, v, *offsets, most=700, **chosen)
  want = attention_loop(q, k, v, [700], [700], **chosen)
  np.testing.assert_allclose(got, want, 1e-5, 1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 1, 2, 64, 128, 129, 130, 400])
def test_only_blocks_that_have_a_pair_are_visited(causal, window):
  side, queries, keys = plans.BLOCK, 6 * plans.BLOCK, 4 * plans.BLOCK
  plan = attention.plan(
    jnp.asarray([0, queries]), jnp.asarray([0, keys]), queries, keys
  )
  chosen = options.make_options(1, causal=causal, window=window)
  distance = np.arange(keys)[None] - np.arange(queries)[:, None]
  sees = np.abs(distance) < (window or np.inf)
  if causal:
    sees &= distance <= 0
  for block in range(queries // side):
    columns = np.nonzero(sees[block * side : (block + 1) * side].any(axis=0))[0]
    want = sorted({column // side for column in columns.tolist()})
    first, end = blocks._key_blocks(plan, chosen, 0, jnp.asarray(block))
    assert list(range(int(first), int(end))) == want


def test_a_query_that_sees_no_key_gives_zero():
  # Queries from 12 on are 3 and more past the last of 10 keys; in tiles and in blocks.
  queries, keys = [14, 200], [10, 130]
  chosen = dict(window=3)
  q, k, v, g, *offsets = inputs(queries, keys, heads=HEADS, key_heads=HEADS)
  out, of_q, *_ = passes(q, k, v, None, g, *offsets, shared=False, **chosen)
  for blind in (slice(12, 14), slice(14 + 132, 214)):
    assert not out[blind].any() and not of_q[blind].any()
  assert out[11].any() and out[14 + 131].any()
  others = np.r_[0:12, 14 : 14 + 132]
  changed = g.at[others].set(0.0)
  for gradient in passes(q, k, v, None, changed, *offsets, shared=False, **chosen)[1:4]:
    assert not gradient.any()


@pytest.mark.parametrize("window", [None, 6])
def test_a_mask_equals_absence_of_the_hidden_keys(window):
  # Each query of a segment is compared with a segment of that query and its keys alone.
  length = 40
  q, k, v, _, *offsets = inputs([length], [length])
  got = attend(q, k, v, *offsets, causal=True, window=window)
  first = [max(0, i + 1 - (window or i + 1)) for i in range(length)]
  rows = [np.arange(first[i], i + 1) for i in range(length)]
  alone = attend(
    q,
    k[np.concatenate(rows)],
    v[np.concatenate(rows)],
    jnp.arange(length + 1),
    jnp.asarray(np.cumsum([0, *map(len, rows)])),
    shared=False,
  )
  np.testing.assert_allclose(got[:length], alone[:length], 1e-5, 1e-6)


def test_batch_mates_their_order_and_the_slots_do_not_matter():
  lengths, chosen, bias = [5, 40, 150], dict(causal=True, window=20), random_bias(9)
  q, k, v, _, offsets, _ = inputs(lengths, lengths, heads=HEADS, key_heads=2)
  together = attend(q, k, v, offsets, offsets, bias=bias, **chosen)
  total, slots = sum(lengths), 260
  parts = [slice(int(a), int(z)) for a, z in itertools.pairwise(offsets)]

  def placed(order):
    """The outputs of segments put in this order, each, in more slots."""
    rows = np.concatenate([np.arange(total)[parts[i]] for i in order])
    arrays = [
      jnp.full((slots, *x.shape[1:]), 9.0).at[: len(rows)].set(x[rows])
      for x in (q, k, v)
    ]
    ends = np.cumsum([0, *(lengths[i] for i in order)])
    at = jnp.asarray([*ends, *[ends[-1]] * (4 - len(ends))], jnp.int32)
    out = attend(*arrays, at, at, bias=bias, **chosen)
    return {i: out[a : a + lengths[i]] for i, a in zip(order, ends, strict=False)}

  reversed_order = placed([2, 1, 0])
  for index, part in enumerate(parts):
    alone = placed([index])[index]
    np.testing.assert_allclose(reversed_order[index], together[part], 1e-5, 1e-6)
    np.testing.assert_allclose(alone, together[part], 1e-5, 1e-6)


class TestDropout:
  rate, lengths = 0.3, [3, 20, 150]

  def arrays(self):
    return inputs(self.lengths, self.lengths, heads=HEADS, key_heads=2)

  def weights(self, rate, key):
    """All weights `[n, h, m]`: the outputs of values that are one each."""
    q, k, *_, offsets, _ = self.arrays()
    ones = jnp.broadcast_to(jnp.eye(len(k))[:, None], (len(k), 2, len(k)))
    chosen = dict(dropout_rate=rate, causal=True, key=key)
    return np.asarray(attend(q, k, ones, offsets, offsets, **chosen))

  def test_weights_are_dropped_or_scaled(self):
    full, key = self.weights(0.0, None), jax.random.key(3)
    some = self.weights(self.rate, key)
    np.testing.assert_array_equal(some, self.weights(self.rate, key))
    kept = some > 0
    np.testing.assert_allclose(some[kept], full[kept] / (1 - self.rate), 1e-5)
    count = (full > 0).sum()
    dropped = 1 - kept.sum() / count
    deviation = np.sqrt(self.rate * (1 - self.rate) / count)
    assert abs(dropped - self.rate) < 4 * deviation
    # Independent between heads, and between random keys.
    for other in (np.roll(kept, 1, 1), self.weights(self.rate, jax.random.key(4)) > 0):
      both = (kept & other).sum() / count
      assert abs(both - (1 - self.rate) ** 2) < 6 * deviation

  def test_the_mean_over_keys_is_that_without(self):
    full, keys = self.weights(0.0, None), jax.random.split(jax.random.key(0), 64)
    mean = np.mean([self.weights(self.rate, key) for key in keys], axis=0)
    deviation = np.sqrt(self.rate / (1 - self.rate) / len(keys))
    error = (mean / np.where(full > 0, full, 1) - (full > 0)) / deviation
    # Tens of thousands of errors, each about normally distributed.
    assert np.abs(error).max() < 6
    np.testing.assert_allclose(error[full > 0].std(), 1, 0.05)

  def test_gradients_are_those_of_the_weights_that_the_key_keeps(self):
    key, bias = jax.random.key(3), random_bias(4)
    q, k, v, g, *offsets = self.arrays()
    chosen = dict(causal=True)
    # Which weights are kept does not depend on their size, nor on the bias.
    kept = jnp.swapaxes(jnp.asarray(self.weights(self.rate, key) > 0), 0, 1)
    got = passes(q, k, v, bias, g, *offsets, dropout_rate=self.rate, key=key, **chosen)
    factors = kept.astype(jnp.float32) / (1 - self.rate)
    want = dense_passes(q, k, v, bias, g, *offsets, factors=factors, **chosen)
    for ours, theirs in zip(got, want, strict=True):
      np.testing.assert_allclose(ours, theirs, 1e-4, 5e-5)

  def test_gradients_are_finite_differences_with_the_same_key(self):
    with jax.enable_x64(True):
      q, k, v, g, offsets, _ = inputs([3, 20, 80], [3, 20, 80], dtype=np.float64)
      plan = attention.plan(offsets, offsets, 80, 80)

      @jax.jit
      def loss(q, k, v):
        key = jax.random.key(5)
        return jnp.vdot(attention.attend(q, k, v, plan, dropout_rate=0.4, key=key), g)

      steps = inputs([3, 20, 80], [3, 20, 80], seed=1, dtype=np.float64)[:3]
      gradients = jax.grad(loss, (0, 1, 2))(q, k, v)
      got = sum(jnp.vdot(x, step) for x, step in zip(gradients, steps, strict=True))
      up, down = (
        loss(
          *(x + sign * 1e-5 * step for x, step in zip((q, k, v), steps, strict=True))
        )
        for sign in (1, -1)
      )
      np.testing.assert_allclose(got, (up - down) / 2e-5, 1e-7)

  def test_a_rate_of_one_drops_all(self):
    q, k, v, g, *offsets = self.arrays()
    found = passes(q, k, v, None, g, *offsets, dropout_rate=1.0, key=jax.random.key(0))
    assert not any(x.any() for x in found[:4])


@pytest.mark.slow
def test_under_vmap_over_values_and_keys_of_dropout():
  q, k, v, _, offsets, _ = inputs([3, 20, 80], [3, 20, 80])
  values, keys = jnp.stack([v, -2 * v, v**2]), jax.random.split(jax.random.key(0), 3)
  chosen = dict(causal=True, dropout_rate=0.5)

  def loss(v, key):
    return (attend(q, k, v, offsets, offsets, key=key, **chosen) ** 2).sum()

  got = jax.vmap(jax.value_and_grad(loss))(values, keys)
  for index in range(3):
    alone = jax.value_and_grad(loss)(values[index], keys[index])
    for ours, theirs in zip(got, alone, strict=True):
      np.testing.assert_allclose(ours[index], theirs, 1e-5, 1e-5)


def test_inside_shard_map_the_gradient_of_a_shared_bias_is_the_sum():
  lengths, bias, key = [3, 40, 140], random_bias(4), jax.random.key(0)
  q, k, v, g, offsets, _ = inputs(lengths, lengths, heads=HEADS, key_heads=2)
  mesh, axis, devices = sharding.make_mesh(), sharding.AXIS, jax.device_count()
  scales = jnp.arange(1.0, devices + 1)
  stacked = [jnp.stack([x] * devices) for x in (q, k, v, g, offsets)]
  chosen = dict(causal=True, dropout_rate=0.2)

  def on_device(bias, scale, *arrays):
    q, k, v, g, offsets = (x[0] for x in arrays)

    def attended(q, bias):
      return attend(q, k, v, offsets, offsets, bias=bias, key=key, **chosen)

    out, pull = jax.vjp(attended, q, bias)
    of_q, of_bias = pull(g * scale[0])
    return out[None], of_q[None], of_bias

  mapped = jax.shard_map(
    on_device,
    mesh=mesh,
    in_specs=(jax.P(), *(jax.P(axis),) * 6),
    out_specs=(jax.P(axis), jax.P(axis), jax.P()),
  )
  out, of_q, of_bias = jax.jit(mapped)(bias, scales, *stacked)
  want = passes(q, k, v, bias, g, offsets, offsets, key=key, **chosen)
  np.testing.assert_allclose(out[3], want[0], 1e-5, 1e-5)
  np.testing.assert_allclose(of_q[3], 4 * want[1], 1e-4, 1e-4)
  np.testing.assert_allclose(of_bias, scales.sum() * want[4], 1e-4, 1e-3)


def test_memory_is_linear_with_all_options():
  def temporary_bytes(n):
    heads = (4, 2, 2, 4)
    q, k, v, g = (jax.ShapeDtypeStruct((n, h, 32), jnp.float32) for h in heads)
    bias = jax.ShapeDtypeStruct((4, 129), jnp.float32)
    offsets = [jax.ShapeDtypeStruct((2,), jnp.int32)] * 2
    key = jax.eval_shape(lambda: jax.random.key(0))
    chosen = dict(causal=True, window=1000, dropout_rate=0.1, key=key)
    lowered = passes.lower(q, k, v, bias, g, *offsets, **chosen)
    return lowered.compile().memory_analysis().temp_size_in_bytes

  assert temporary_bytes(65536) < 4.2 * temporary_bytes(16384)


@pytest.mark.parametrize(
  ("message", "heads", "chosen"),
  [
    ("4 query heads over 3 key heads", (4, 3), {}),
    ("window=0: .* give 1 or more", (2, 2), dict(window=0)),
    (r"shape \[2, 4\]: give \[2, 2 r \+ 1\]", (2, 2), dict(bias=jnp.zeros((2, 4)))),
    (r"shape \[3, 5\]: give \[2,", (2, 2), dict(bias=jnp.zeros((3, 5)))),
    ("dropout_rate=0.1 needs a random key", (2, 2), dict(dropout_rate=0.1)),
    ("dropout_rate=1.5: give a probability", (2, 2), dict(dropout_rate=1.5)),
    ("mode='both': give \"reverse\"", (2, 2), dict(mode="both")),
  ],
)
def test_bad_arguments_are_refused(message, heads, chosen):
  q, k, v, _, offsets, _ = inputs([3], [3], heads=heads[0], key_heads=heads[1])
  plan = attention.plan(offsets, offsets, 3, 3)
  with pytest.raises(ValueError, match=message):
    attention.attend(q, k, v, plan, **chosen)
