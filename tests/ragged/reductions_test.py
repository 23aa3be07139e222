"""Sums: their accuracy, their independence of the batch, and their form on GPUs."""

import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax.ragged import (
  Ragged,
  offsets_from_lengths,
  pooling,
  reductions,
  tiles,
)
from tests.ragged import ops

SUMS = [name for name, op in ops.OPS.items() if op.sums]


@pytest.mark.parametrize("data", ops.ACCURACY_DATA)
@pytest.mark.parametrize("name", ['pool "mean"', 'pool "var"', "segment_softmax"])
def test_a_hundred_thousand_elements_are_summed_like_float64(name, data):
  assert ops.relative_error(name, data, 10**5) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("size", [10**6, 10**7])
@pytest.mark.parametrize("data", ops.ACCURACY_DATA)
@pytest.mark.parametrize("name", SUMS)
def test_giant_sets_are_summed_like_float64(name, data, size):
  assert ops.relative_error(name, data, size) < 1e-6


@hypothesis.given(
  value=st.floats(1, 2, width=32), size=st.sampled_from([64, 100, 999, 20_000])
)
def test_equal_values_drift_least(value, size):
  # Rounding always errs to one side: the worst case of a sum.
  values = np.zeros(20_000, np.float32)
  values[:size] = value
  got = _sum_of_one(values, np.array([0, size], np.int32))[0]
  np.testing.assert_allclose(got, np.float64(value) * size, 1e-6)


@jax.jit
def _sum_of_one(values, offsets):
  return reductions.segment_sum(values, offsets)


def test_variances_far_from_zero():
  # The mean of these is not a float32 to better than 0.03.
  x = np.random.default_rng(0).normal(1e6, 1, 50_000).astype(np.float32)
  elements = Ragged(jnp.asarray(x), jnp.array([0, 20_000, 50_000]))
  halves = {
    "a": Ragged(x, np.array([0, 30_000])),
    "b": Ragged(x, np.array([0, 50_000])),
  }
  exact = x.astype(np.float64)
  got = pooling.pool("var", elements)
  np.testing.assert_allclose(got, [exact[:20_000].var(), exact[20_000:].var()], 1e-6)
  both = np.concatenate([exact[:30_000], exact])
  np.testing.assert_allclose(pooling.pool("var", halves), [both.var()], 1e-6)


LENGTHS = (
  [3, 0, 64, 65, 1, 100, 0],
  [1000, 0, 5],
  [5000, 1, 70],
  [0, 0],
  [64] * 3,
  [31, 32, 33],
)


def packed(lengths, features=3, seed=0):
  offsets = offsets_from_lengths(lengths).astype(np.int32)
  size = offsets[-1] + 5
  values = np.random.default_rng(seed).normal(size=(size, features))
  return values.astype(np.float32), offsets


def loop(reduce, values, offsets):
  parts = itertools.pairwise(offsets)
  return np.stack([reduce(values[a:z].astype(np.float64), 0) for a, z in parts])


@pytest.mark.parametrize("lengths", LENGTHS)
class TestWithoutAScatter:
  """The form of reductions on GPUs, run on any machine."""

  @pytest.mark.parametrize("name", ["sum", "prod", "max"])
  def test_reductions_are_those_of_a_loop(self, name, lengths):
    values, offsets = packed(lengths)
    reduce, identity = {
      "sum": (jnp.sum, 0),
      "prod": (jnp.prod, 1),
      "max": (functools.partial(jnp.max, initial=-np.inf), -np.inf),
    }[name]
    got = jax.jit(lambda v, o: tiles.reduce_tiles(reduce, identity, v, o))(
      values, offsets
    )
    of_loop = {
      "sum": np.sum,
      "prod": np.prod,
      "max": lambda x, axis: x.max(axis, initial=-np.inf),
    }[name]
    np.testing.assert_allclose(got, loop(of_loop, values, offsets), 1e-4, 1e-5)

  def test_spreading_is_the_transpose(self, lengths):
    values, offsets = packed(lengths)
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(len(lengths), 3)))
    rows = rows.astype(jnp.float32)

    def spread(rows):
      return tiles.spread_tiles(rows, offsets, len(values))

    got, pull = jax.vjp(spread, rows)
    np.testing.assert_array_equal(got, reductions.spread(rows, offsets, len(values)))
    want = loop(np.sum, values, offsets)
    np.testing.assert_allclose(pull(jnp.asarray(values))[0], want, 1e-5, 1e-5)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
  """Trace functions as on a GPU."""
  jax.clear_caches()
  monkeypatch.setattr(reductions, "on_gpu", lambda: True)
  yield
  jax.clear_caches()


@pytest.mark.parametrize("name", ops.OPS)
def test_ops_are_the_loop_as_on_a_gpu(name, as_on_a_gpu):
  values = ops.values_of(7)
  got = ops.OPS[name].call(jnp.asarray(values), ops.elements_of(values))
  for example in (0, 2, 3):
    want = ops.wanted(name, values, example)
    np.testing.assert_allclose(ops.rows(got, example), want, 1e-4, 1e-5)
  if ops.OPS[name].smooth:
    ops.modes(name)


@pytest.mark.parametrize("name", ["sum", "var", "logsumexp", "max", "std", "mean"])
def test_gpus_add_and_compare_floats_in_one_order(name, as_on_a_gpu):
  # The additions of a scatter run in any order there. The remaining scatters are of
  # integers, whose order does not matter, and of rows to places of their own.
  def loss(values, offsets):
    elements = Ragged(values, offsets)
    centered = values - elements.to_elements(pooling.pool("mean", elements))
    return pooling.pool(name, elements.replace(values=centered)).sum()

  values, offsets = packed([100, 0, 7])
  traced = jax.jit(jax.grad(loss)).trace(values, offsets)
  text = traced.lower(lowering_platforms=("cuda",)).as_text()
  bodies = text.split('"stablehlo.scatter"')[1:]
  assert bodies
  for body in bodies:
    block = body[: body.index("}) :")]
    types = body[body.index("}) :") :].split("\n")[0]
    if "f32" in types:
      assert "stablehlo.add" not in block and "stablehlo.maximum" not in block
      assert "unique_indices = true" in block


def test_long_and_short_sets_in_one_compiled_function():
  values, offsets = packed([64, 64, 64, 64])
  other = np.array([0, 250, 251, 252, 255], np.int32)
  function = jax.jit(reductions.segment_sum)
  for bounds in (offsets, other):
    got = function(values, bounds)
    np.testing.assert_allclose(got, loop(np.sum, values, bounds), 1e-5, 1e-5)
  assert function._cache_size() == 1


def test_many_examples_at_once_by_vmap():
  values, offsets = packed([70, 0, 5])
  stacked = np.stack([values, 2 * values])
  bounds = np.stack([offsets, np.array([0, 1, 2, 75], np.int32)])
  got = jax.vmap(reductions.segment_sum)(stacked, bounds)
  for row, v, o in zip(got, stacked, bounds, strict=True):
    np.testing.assert_allclose(row, loop(np.sum, v, o), 1e-5, 1e-5)
