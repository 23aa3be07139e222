"""Nothing to attend to, NaN and infinities, and other types and transformations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from deepsets_jax.ragged import attention
from deepsets_jax.ragged.attention import plans
from tests.ragged.attention_test import HEADS, attention_loop, dense, inputs


@pytest.fixture(autouse=True)
def one_kind_of_tile(monkeypatch):
  """One kind of tile compiles faster; longer segments are cut into blocks."""
  monkeypatch.setattr(plans, "_SIZES", (16,))
  monkeypatch.setattr(plans, "_COARSE_SIZES", (16,))


STATIC = ("causal", "window", "mode")


@functools.partial(jax.jit, static_argnames=STATIC)
def passes(q, k, v, cotangent, offsets, **chosen):
  """The output and the gradients of q, k and v."""
  plan = attention.plan(offsets, offsets, 200, 200)
  out, pull = jax.vjp(lambda *x: attention.attend(*x, plan, **chosen), q, k, v)
  return out, *pull(cotangent)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize(
  ("offsets", "queries", "keys"),
  [([0], 0, 0), ([0], 5, 4), ([0, 0, 0], 0, 0), ([0, 0], 3, 0), ([0, 0], 0, 3)],
)
def test_no_examples_and_no_slots(offsets, queries, keys, mode):
  offsets = jnp.asarray(offsets, jnp.int32)
  plan = attention.plan(offsets, offsets, queries, keys)
  arrays = jnp.ones((queries, 2, 4)), jnp.ones((keys, 2, 4)), jnp.ones((keys, 2, 3))
  bias = jnp.ones((2, 5))

  def attended(q, k, v, bias):
    return attention.attend(q, k, v, plan, bias=bias, mode=mode)

  out, pull = jax.vjp(attended, *arrays, bias)
  gradients = pull(jnp.ones_like(out))
  tangent = jax.jvp(attended, (*arrays, bias), (*arrays, bias))[1]
  received = attention.received_mass(*arrays[:2], plan, jnp.ones(queries))
  assert out.shape == tangent.shape == (queries, 2, 3)
  assert received.shape == (keys,)
  for x, gradient in zip((*arrays, bias), gradients, strict=True):
    assert gradient.shape == x.shape
  assert not any(x.any() for x in (out, tangent, received, *gradients))
  if len(offsets) == 1:
    assert float(attention.uncounted_flops(plan, 2, 4, 3)) == 0


LENGTHS = [5, 12, 140, 3, 150]
MASKS = {"all keys": {}, "causal window": dict(causal=True, window=30)}
# The second segment is in a tile with others, the third in blocks.
PLACES = {"in a tile": 5 + 6, "in a block": 17 + 70}


def spoil(arrays, which, place, value):
  """The arrays with one number of one of them replaced."""
  arrays = list(arrays)
  arrays[which] = arrays[which].at[place, 1, 2].set(value)
  return arrays


def dependence(which, place, masks):
  """Where out, of_q, of_k and of_v depend on row `place` of an array, `[slots, 4]`.

  By the pairs that see each other: an output depends on its query and the keys and
  values that it sees; a gradient on all of the softmaxes it comes through.
  """
  ends = np.cumsum([0, *LENGTHS])
  segment = np.searchsorted(ends[1:], np.arange(ends[-1] + 5), side="right")
  position = np.arange(ends[-1] + 5) - ends[segment]
  distance = position[None] - position[:, None]
  sees = (segment[:, None] == segment[None]) & (segment < len(LENGTHS))[:, None]
  sees &= np.abs(distance) < masks.get("window", np.inf)
  if masks.get("causal"):
    sees &= distance <= 0
  row = np.arange(len(segment)) == place
  queries = {0: row, 1: sees[:, place], 2: sees[:, place], 3: row}[which]
  keys = sees[queries].any(axis=0)
  out = queries if which < 3 else np.zeros_like(row)
  of_v = keys if which in (0, 1) else (keys if which == 3 else np.zeros_like(row))
  return np.stack([out, queries, keys, of_v], axis=1)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("which", range(4), ids=["query", "key", "value", "cotangent"])
def test_a_nan_reaches_what_depends_on_it_and_nothing_else(which, masks, place):
  masks, place = MASKS[masks], PLACES[place]
  *arrays, offsets, _ = inputs(LENGTHS, LENGTHS, slots=(315, 315))
  clean = passes(*arrays, offsets, **masks)
  got = passes(*spoil(arrays, which, place, jnp.nan), offsets, **masks)
  want = dependence(which, place, masks)
  for index, (x, y) in enumerate(zip(got, clean, strict=True)):
    # Of head 0 nothing depends on head 1.
    np.testing.assert_array_equal(x[:, 0], y[:, 0])
    rows = np.isnan(x[:, 1]).any(axis=1)
    np.testing.assert_array_equal(rows, want[:, index])
    np.testing.assert_allclose(x[~rows], y[~rows], 1e-6, 1e-6)


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_contents_of_padding_do_not_matter(value, masks):
  *arrays, offsets, _ = inputs(LENGTHS, LENGTHS, slots=(315, 315))
  total = sum(LENGTHS)
  spoilt = [x.at[total:].set(value) for x in arrays]
  got = passes(*spoilt, offsets, **MASKS[masks])
  want = passes(*arrays, offsets, **MASKS[masks])
  for x, y in zip(got, want, strict=True):
    np.testing.assert_array_equal(x, y)
    assert not x[total:].any()


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("masks", MASKS)
def test_infinite_values_are_as_in_a_dense_softmax(masks, value):
  *arrays, offsets, _ = inputs(LENGTHS, LENGTHS, slots=(315, 315))
  for place in PLACES.values():
    q, k, v, g = spoil(arrays, 2, place, value)
    got, *_ = passes(q, k, v, g, offsets, **MASKS[masks])
    want = attention_loop(q, k, v, LENGTHS, LENGTHS, **MASKS[masks])
    np.testing.assert_allclose(got, want, 1e-5, 1e-5)
    assert np.isinf(got).any() and not np.isnan(got).any()


@pytest.mark.parametrize("case", ["+inf", "one -inf", "a block of -inf", "all -inf"])
def test_infinite_logits_are_as_in_a_dense_softmax(case):
  *arrays, offsets, _ = inputs(LENGTHS, LENGTHS, slots=(315, 315))
  q, k, v, g = arrays
  q = jnp.abs(q) + 0.1  # So that the sign of a logit is that of an infinite key.
  ends = np.cumsum([0, *LENGTHS])
  for segment in (1, 2):
    a, z = int(ends[segment]), int(ends[segment + 1])
    last = {"a block of -inf": min(a + 128, z - 2), "all -inf": z}.get(case, a + 1)
    value = np.inf if case == "+inf" else -np.inf
    k = k.at[a:last, 1, 2].set(value)
  out, of_q, of_k, of_v = passes(q, k, v, g, offsets)
  for a, z in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
    here = slice(a, z)

    def attended(q, k, v):
      weights = jax.nn.softmax(jnp.einsum("qhd,khd->hqk", q, k) / 2)
      return jnp.einsum("hqk,khd->qhd", weights, v)

    want, pull = jax.vjp(attended, q[here], k[here], v[here])
    np.testing.assert_allclose(out[here], want, 1e-5, 1e-5)
    _, want_k, want_v = pull(g[here])
    np.testing.assert_allclose(of_k[here], want_k, 1e-4, 1e-5)
    np.testing.assert_allclose(of_v[here], want_v, 1e-4, 1e-5)
  assert np.isfinite(of_q[:, 0]).all()
  assert np.isnan(out[5:, 1]).any() == (case in ("+inf", "all -inf"))


CHOSEN = dict(causal=True, window=20)


@functools.partial(jax.jit, static_argnames=STATIC)
def forward(primals, tangents, offsets, **chosen):
  plan = attention.plan(offsets, offsets, 200, 200)

  def attended(q, k, v, bias):
    return attention.attend(q, k, v, plan, bias=bias, mode="forward", **chosen)

  return jax.jvp(attended, primals, tangents)


class TestForwardMode:
  lengths = (3, 20, 140)

  def arrays(self, seed):
    bias = np.random.default_rng(seed).normal(size=(HEADS, 9)).astype(np.float32)
    *arrays, g, offsets, _ = inputs(self.lengths, self.lengths, seed=seed)
    return (*arrays, jnp.asarray(bias)), g, offsets

  @pytest.mark.parametrize("chosen", [{}, CHOSEN], ids=["all keys", "causal window"])
  def test_equals_the_dense_one_and_reverse_mode(self, chosen):
    primals, g, offsets = self.arrays(0)
    tangents, *_ = self.arrays(1)
    out, tangent = forward(primals, tangents, offsets, **chosen)

    @jax.jit
    def reference(primals, tangents):
      def attended(q, k, v, bias):
        return dense(q, k, v, offsets, offsets, bias=bias, **chosen)

      return jax.jvp(attended, primals, tangents)

    total = sum(self.lengths)
    want_out, want = (x[:total] for x in reference(primals, tangents))
    np.testing.assert_allclose(out[:total], want_out, 1e-5, 1e-5)
    np.testing.assert_allclose(tangent[:total], want, 1e-4, 1e-5)
    assert not tangent[total:].any()

    @jax.jit
    def reverse(primals):
      plan = attention.plan(offsets, offsets, 200, 200)
      out, pull = jax.vjp(
        lambda q, k, v, bias: attention.attend(q, k, v, plan, bias=bias, **chosen),
        *primals,
      )
      return out, pull(g)

    same, gradients = reverse(primals)
    np.testing.assert_array_equal(out, same)
    contracted = sum(np.vdot(x, y) for x, y in zip(gradients, tangents, strict=True))
    np.testing.assert_allclose(np.vdot(g, tangent), contracted, 1e-4)

  def test_jacfwd_and_linearize(self):
    lengths = [2, 3]
    *arrays, offsets, _ = inputs(lengths, lengths, slots=(6, 6))
    q, k, v, step = arrays
    plan = attention.plan(offsets, offsets, 3, 3)

    def attended(v):
      return attention.attend(q, k, v, plan, mode="forward")

    out, linear = jax.linearize(attended, v)
    jacobian = jax.jacfwd(attended)(v)
    contracted = np.einsum("abcdef,def->abc", jacobian, step)
    np.testing.assert_allclose(linear(step), contracted, 1e-5, 1e-6)
    # Linear in the values.
    np.testing.assert_allclose(linear(v), out, 1e-5, 1e-6)

  def test_hessian_vector_products_go_forward_over_reverse(self):
    with jax.enable_x64(True):
      arrays = inputs(self.lengths, self.lengths, dtype=np.float64)
      steps = inputs(self.lengths, self.lengths, seed=1, dtype=np.float64)[:3]
      plan = attention.plan(arrays[4], arrays[4], 140, 140)

      def loss(q, k, v):
        return (attention.attend(q, k, v, plan, **CHOSEN) ** 2).sum()

      gradient = jax.jit(jax.grad(loss, (0, 1, 2)))
      got = jax.jit(lambda x, t: jax.jvp(gradient, x, t)[1])(arrays[:3], steps)
      up, down = (
        gradient(*(x + size * step for x, step in zip(arrays[:3], steps, strict=True)))
        for size in (1e-5, -1e-5)
      )
      for ours, x, y in zip(got, up, down, strict=True):
        np.testing.assert_allclose(ours, (x - y) / 2e-5, 1e-5, 1e-7)


@pytest.mark.slow
def test_float64_stays_float64():
  with jax.enable_x64(True):
    q, k, v, g, offsets, _ = inputs(LENGTHS, LENGTHS, dtype=np.float64)
    offsets = offsets.astype(jnp.int64)
    bias = jnp.asarray(np.random.default_rng(0).normal(size=(HEADS, 9)))
    got = passes(q, k, v, g, offsets, bias=bias, **CHOSEN)
    assert all(x.dtype == jnp.float64 for x in got)
    want = attention_loop(q, k, v, LENGTHS, LENGTHS, bias=bias, **CHOSEN)
    np.testing.assert_allclose(got[0], want, 1e-12, 1e-12)
    _, pull = jax.vjp(
      lambda *x: dense(*x, offsets, offsets, bias=bias, **CHOSEN), q, k, v
    )
    for ours, theirs in zip(got[1:], pull(g), strict=True):
      np.testing.assert_allclose(ours, theirs, 1e-11, 1e-11)
    plan = attention.plan(offsets, offsets, 200, 200)
    assert attention.received_mass(q, k, plan, g[:, 0, 0]).dtype == jnp.float64


@pytest.mark.slow
def test_one_export_serves_all_sizes():
  @jax.jit
  def step(q, k, v, cotangent, offsets, bias):
    plan = attention.plan(offsets, offsets, 200, 200)
    out, pull = jax.vjp(
      lambda *x: attention.attend(*x[:3], plan, bias=x[3], **CHOSEN), q, k, v, bias
    )
    return out, pull(cotangent), attention.received_mass(q, k, plan, q[:, 0, 0])

  slots, examples = export.symbolic_shape("n, b")
  bias = jnp.asarray(np.random.default_rng(0).normal(size=(HEADS, 5)), jnp.float32)
  shapes = [
    jax.ShapeDtypeStruct((slots, *x.shape[1:]), x.dtype) for x in inputs([1], [1])[:4]
  ]
  offsets = jax.ShapeDtypeStruct((examples + 1,), jnp.int32)
  platforms = ["cpu", "cuda", "tpu"]
  exported = export.export(step, platforms=platforms)(*shapes, offsets, bias)
  for lengths in ([3, 20, 150], [5, 0, 70, 1]):
    slots = (sum(lengths) + 4,) * 2
    *arrays, offsets, _ = inputs(lengths, lengths, slots=slots)
    got, want = (f(*arrays, offsets, bias) for f in (exported.call, step))
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
      np.testing.assert_allclose(x, y, 1e-5, 1e-6)
    assert jax.tree.leaves(got)[0].any()
