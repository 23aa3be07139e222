import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax.ragged import attention
from deepsets_jax.training import sharding

HEADS, KEY_FEATURES, VALUE_FEATURES = 2, 4, 3


def segment_loop(
  q, k, query_lengths, key_lengths, causal=False, window=None, bias=None
):
  """Yield, for each segment and head, slices of queries and keys, mask and weights."""
  q, k = np.asarray(q, np.float64), np.asarray(k, np.float64)
  at_q = at_k = 0
  for num_q, num_k in zip(query_lengths, key_lengths, strict=True):
    queries, keys = slice(at_q, at_q + num_q), slice(at_k, at_k + num_k)
    distance = np.arange(num_k)[None] - np.arange(num_q)[:, None]
    sees = np.abs(distance) < (window or np.inf)
    if causal:
      sees &= distance <= 0
    for head in range(q.shape[1]):
      key_head = head // (q.shape[1] // k.shape[1])
      weights = np.zeros((num_q, num_k))
      for row, seen in enumerate(sees):
        if seen.any():
          logits = k[keys, key_head][seen] @ q[at_q + row, head] / np.sqrt(q.shape[2])
          if bias is not None:
            reach = bias.shape[1] // 2
            columns = np.clip(distance[row, seen], -reach, reach) + reach
            logits = logits + np.asarray(bias, np.float64)[head, columns]
          exponentials = np.exp(logits - logits.max())
          weights[row, seen] = exponentials / exponentials.sum()
      yield queries, keys, head, key_head, sees, weights
    at_q, at_k = at_q + num_q, at_k + num_k


def attention_loop(q, k, v, query_lengths, key_lengths, **options):
  """Attention by a loop over segments, heads and queries, in float64."""
  v = np.asarray(v, np.float64)
  out = np.zeros((*q.shape[:2], v.shape[2]))
  found = segment_loop(q, k, query_lengths, key_lengths, **options)
  for queries, keys, head, key_head, sees, weights in found:
    for row, seen in enumerate(sees):
      values = v[keys, key_head][seen]
      out[queries.start + row, head] = weights[row, seen] @ values
  return out


def received_loop(q, k, mass, query_lengths, key_lengths, **options):
  want = np.zeros(len(k))
  found = segment_loop(q, k, query_lengths, key_lengths, **options)
  for queries, keys, *_, weights in found:
    want[keys] += np.asarray(mass, np.float64)[queries] @ weights / q.shape[1]
  return want


def dense(
  q,
  k,
  v,
  query_offsets,
  key_offsets,
  causal=False,
  window=None,
  bias=None,
  factors=None,
):
  """Attention over all pairs of slots with a mask, to be differentiated by JAX."""
  slots = jnp.arange(len(q)), jnp.arange(len(k))
  offsets = query_offsets, key_offsets
  segment_q, segment_k = (
    jnp.searchsorted(o[1:], s, side="right")
    for o, s in zip(offsets, slots, strict=True)
  )
  query, key = (
    s - o[i] for o, s, i in zip(offsets, slots, (segment_q, segment_k), strict=True)
  )
  distance = key[None] - query[:, None]
  same = segment_q[:, None] == segment_k[None]
  mask = same & (segment_q < len(query_offsets) - 1)[:, None]
  if window:
    mask &= jnp.abs(distance) < window
  if causal:
    mask &= distance <= 0
  k, v = (jnp.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
  logits = jnp.einsum("qhd,khd->hqk", q, k) * q.shape[2] ** -0.5
  if bias is not None:
    reach = bias.shape[1] // 2
    logits += bias[:, jnp.clip(distance, -reach, reach) + reach]
  weights = jax.nn.softmax(jnp.where(mask[None], logits, -1e30), where=mask[None])
  if factors is not None:
    weights = weights * factors
  return jnp.einsum("hqk,khd->qhd", weights, v)


def attend(q, k, v, query_offsets, key_offsets, shared=False):
  key_offsets = query_offsets if shared else key_offsets
  plan = attention.plan(query_offsets, key_offsets, len(q), len(k))
  return attention.attend(q, k, v, plan)


@functools.partial(jax.jit, static_argnames=("shared",))
def passes(q, k, v, cotangent, query_offsets, key_offsets, shared):
  """The output and the gradients of q, k and v."""
  offsets = query_offsets, key_offsets
  out, pull = jax.vjp(lambda *x: attend(*x, *offsets, shared), q, k, v)
  return out, *pull(cotangent)


@jax.jit
def dense_gradients(q, k, v, cotangent, *offsets):
  return jax.vjp(lambda *x: dense(*x, *offsets), q, k, v)[1](cotangent)


def inputs(
  query_lengths,
  key_lengths,
  slots=None,
  seed=0,
  dtype=np.float32,
  heads=HEADS,
  key_heads=HEADS,
):
  """Random queries, keys, values, cotangents, and offsets; padding is zeros."""
  rng = np.random.default_rng(seed)
  num_q, num_k = slots or (sum(query_lengths) + 5, sum(key_lengths) + 3)
  widths = (KEY_FEATURES, KEY_FEATURES, VALUE_FEATURES, VALUE_FEATURES)
  counts = (sum(query_lengths), *(sum(key_lengths),) * 2, sum(query_lengths))
  totals = (num_q, num_k, num_k, num_q)
  many = (heads, key_heads, key_heads, heads)
  arrays = []
  for width, count, total, h in zip(widths, counts, totals, many, strict=True):
    array = np.zeros((total, h, width))
    array[:count] = rng.normal(size=(count, h, width))
    arrays.append(jnp.asarray(array, dtype))
  offsets = [
    jnp.asarray(np.cumsum([0, *lengths]), jnp.int32)
    for lengths in (query_lengths, key_lengths)
  ]
  return *arrays, *offsets


SELF = {
  "of every tile, and blocks": [0, 1, 8, 9, 200, 30, 129, 60, 70, 100, 0],
  "of a constant length": [24] * 11,
  "one giant segment": [700],
  "one element each": [1, 1, 1],
  "nothing at all": [0, 0],
}
CROSS = {
  "tiles and blocks": ([3, 0, 150, 2, 6], [5, 4, 0, 300, 9]),
  "long on one side": ([4, 4, 4, 0], [7, 200, 0, 2]),
  "few queries": ([1] * 6, [0, 1, 2, 30, 90, 10]),
}
CASES = {name: (x, x, True) for name, x in SELF.items()} | {
  name: (*x, False) for name, x in CROSS.items()
}


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_equal_the_reference(name):
  queries, keys, shared = CASES[name]
  arrays = inputs(queries, keys)
  out, *gradients = passes(*arrays, shared)
  want = attention_loop(*arrays[:3], queries, keys)
  np.testing.assert_allclose(out, want, 1e-5, 1e-5)
  assert not np.any(out[sum(queries) :])
  for ours, theirs in zip(gradients, dense_gradients(*arrays), strict=True):
    np.testing.assert_allclose(ours, theirs, 1e-5, 1e-5)


@functools.partial(jax.jit, static_argnames=("shared",))
def received(q, k, query_offsets, key_offsets, mass, shared):
  key_offsets = query_offsets if shared else key_offsets
  plan = attention.plan(query_offsets, key_offsets, len(q), len(k))
  return attention.received_mass(q, k, plan, mass)


# It is the gradient of values of width one, which the cases above have tested, too.
@pytest.mark.parametrize(
  ("name", "dtype"),
  [
    ("of every tile, and blocks", jnp.bfloat16),
    ("of every tile, and blocks", jnp.float32),
    ("nothing at all", jnp.float32),
    ("tiles and blocks", jnp.float32),
    ("long on one side", jnp.float32),
  ],
)
def test_received_mass_equals_a_loop(name, dtype):
  queries, keys, shared = CASES[name]
  q, k, *_, query_offsets, key_offsets = inputs(queries, keys, dtype=dtype)
  mass = np.random.default_rng(0).normal(size=len(q)).astype(np.float32)
  got = received(q, k, query_offsets, key_offsets, mass, shared)
  want = received_loop(q, k, mass, queries, keys)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, want, 1e-5, 1e-5)


@pytest.mark.slow
def test_received_mass_takes_memory_linear_in_the_number_of_elements():
  def temporary_bytes(n):
    rows = [jax.ShapeDtypeStruct((n, 4, 32), jnp.float32)] * 2
    offsets = [jax.ShapeDtypeStruct((2,), jnp.int32)] * 2
    mass = jax.ShapeDtypeStruct((n,), jnp.float32)
    compiled = received.lower(*rows, *offsets, mass, True).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert temporary_bytes(16384) < 4.2 * temporary_bytes(4096)


LENGTHS = st.lists(st.integers(0, 12), min_size=5, max_size=5)


@hypothesis.given(queries=LENGTHS, keys=LENGTHS, seed=st.integers(0, 99))
def test_any_lengths_equal_the_reference(queries, keys, seed):
  arrays = inputs(queries, keys, slots=(64, 72), seed=seed)
  out, *gradients = passes(*arrays, False)
  want = attention_loop(*arrays[:3], queries, keys)
  np.testing.assert_allclose(out, want, 1e-5, 1e-5)
  for ours, theirs in zip(gradients, dense_gradients(*arrays), strict=True):
    np.testing.assert_allclose(ours, theirs, 1e-5, 1e-5)


@pytest.mark.slow
def test_bfloat16_in_bfloat16_out_with_a_float32_softmax():
  lengths = [3, 20, 150]
  arrays = inputs(lengths, lengths, dtype=jnp.bfloat16)
  got, *gradients = passes(*arrays, True)
  assert got.dtype == jnp.bfloat16
  want = attention_loop(*arrays[:3], lengths, lengths)
  # Two roundings to 8 bits: of the weights and of the result.
  np.testing.assert_allclose(np.asarray(got, np.float64), want, 2e-2, 2e-2)
  for gradient in gradients:
    assert gradient.dtype == jnp.bfloat16
    assert np.isfinite(np.asarray(gradient, np.float32)).all()


def test_large_logits_stay_finite():
  lengths = [4, 140]
  q, *others = inputs(lengths, lengths)
  assert all(np.isfinite(x).all() for x in passes(1e4 * q, *others, True))


def test_other_segments_do_not_matter_even_if_they_are_nan():
  lengths = [5, 3, 130]
  q, k, v, g, *offsets = inputs(lengths, lengths)
  spoilt = [x.at[5:8].set(jnp.nan) for x in (q, k, v)]
  got, want = passes(*spoilt, g, *offsets, True), passes(q, k, v, g, *offsets, True)
  others = np.r_[0:5, 8 : len(q)]
  assert np.isnan(got[0][5:8]).all()
  for x, y in zip(got, want, strict=True):
    np.testing.assert_array_equal(x[others], y[others])


@pytest.mark.slow
def test_memory_is_linear_in_the_number_of_elements():
  def temporary_bytes(n):
    shapes = [jax.ShapeDtypeStruct((n, 4, 32), jnp.float32)] * 4
    offsets = [jax.ShapeDtypeStruct((2,), jnp.int32)] * 2
    lowered = passes.lower(*shapes, *offsets, True)
    return lowered.compile().memory_analysis().temp_size_in_bytes

  small, large = temporary_bytes(4096), temporary_bytes(16384)
  assert large < 4.2 * small
  assert large < 16 * 16384 * 4 * 32 * 4  # Sixteen such arrays; the pairs are 128.


def test_one_compilation_serves_all_batches():
  traces = []

  @jax.jit
  def traced(q, k, v, offsets):
    traces.append(1)
    return attention.attend(q, k, v, attention.plan(offsets, offsets, len(q), len(k)))

  for lengths in ([3, 9, 20], [30, 1, 1], [0, 0, 0]):
    q, k, v, _, offsets, _ = inputs(lengths, lengths, slots=(40, 40))
    traced(q, k, v, offsets)
  assert len(traces) == 1


@pytest.mark.slow
def test_inside_shard_map_nothing_is_communicated():
  lengths = [3, 140, 0, 7]
  q, k, v, g, offsets, _ = inputs(lengths, lengths)
  mesh, axis = sharding.make_mesh(), sharding.AXIS
  stacked = [jnp.stack([x] * jax.device_count()) for x in (q, k, v, g, offsets)]

  def on_device(*arrays):
    q, k, v, g, offsets = (x[0] for x in arrays)
    out, pull = jax.vjp(lambda *x: attend(*x, offsets, offsets, True), q, k, v)
    return [x[None] for x in (out, *pull(g))]

  mapped = jax.jit(
    jax.shard_map(
      on_device, mesh=mesh, in_specs=(jax.P(axis),) * 5, out_specs=jax.P(axis)
    )
  )
  assert "all-" not in mapped.lower(*stacked).compile().as_text()
  want = passes(q, k, v, g, offsets, offsets, True)
  for got, alone in zip(mapped(*stacked), want, strict=True):
    np.testing.assert_allclose(got[3], alone, 1e-5, 1e-5)


def test_flops_beyond_one_body_of_each_loop():
  lengths = [24] * 20 + [300]
  offsets = jnp.asarray(np.cumsum([0, *lengths]), jnp.int32)
  plan = attention.plan(offsets, offsets, 2000, 2000)
  group = 384 // 24
  tiles = (-(-20 // group)) * group * 24 * 24
  blocks = 3 * 3 * 128 * 128
  bodies = sum((384 // size) * size * size for size in (8, 16, 24, 32, 48, 64, 96, 128))
  want = (tiles + blocks - bodies - 128 * 128) * 2 * HEADS * (4 + 3)
  assert float(attention.uncounted_flops(plan, HEADS, 4, 3)) == want


def test_too_many_rows_are_refused():
  rows = jax.ShapeDtypeStruct((2**30 + 1, 1, 1), jnp.bfloat16)
  offsets = jax.ShapeDtypeStruct((3,), jnp.int32)
  with pytest.raises(ValueError, match="1073741825 queries .* at most 1073741824"):
    jax.eval_shape(attend, rows, rows, rows, offsets, offsets)
