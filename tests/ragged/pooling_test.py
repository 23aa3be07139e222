import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import pooling as benchmark
from deepsets_jax import ragged
from deepsets_jax.fusion import SetPoolFusion
from deepsets_jax.ragged import pooling, segments
from deepsets_jax.training import sharding
from tests.sets import BUDGETS, FEATURES, NUM_EXAMPLES, pack, set_lists, shuffled

# Each pool of one non-empty set `[n, d]`, given its scores `[n, 1]`, by numpy.
LOOPS = {
  "sum": lambda x, s: x.sum(0),
  "mean": lambda x, s: x.mean(0),
  "max": lambda x, s: x.max(0),
  "min": lambda x, s: x.min(0),
  "logsumexp": lambda x, s: np.log(np.exp(x).sum(0)),
  "softmax": lambda x, s: (x * np.exp(s)).sum(0) / np.exp(s).sum(0),
  "var": lambda x, s: x.var(0),
  "std": lambda x, s: x.std(0),
  "prod": lambda x, s: x.prod(0),
  "rms": lambda x, s: np.sqrt((x**2).mean(0)),
  "median": lambda x, s: np.quantile(x, 0.5, axis=0, method="lower"),
}
EVERY_POOL = pytest.mark.parametrize("name", LOOPS)


def merges(name):
  """Return the pool, or skip the test for a pool that does not merge."""
  if name in pooling.WHOLE_SET_POOLS:
    with pytest.raises(ValueError, match="'median' does not merge partial states"):
      pooling.get(name)
    pytest.skip("does not merge")
  return pooling.get(name)


def loop(name, lists, empty=0.0):
  """Pool the sets by a loop in float64, `[b, d]`."""
  rows = []
  for elements in lists:
    x = np.asarray(elements, np.float64)
    row = (
      LOOPS[name](x, x.sum(1, keepdims=True)) if len(x) else np.full(FEATURES, empty)
    )
    rows.append(row)
  return np.stack(rows)


def scores_of(name, elements):
  """Return scores for the softmax pool, the sum of an element's features."""
  return elements.values.astype(jnp.float32).sum(-1) if name == "softmax" else None


@functools.partial(jax.jit, static_argnames=("name", "empty"))
def pooled(name, elements, empty=0.0):
  """Pool a `Ragged`, or a dictionary of them."""
  if isinstance(elements, ragged.Ragged):
    return pooling.pool(name, elements, scores=scores_of(name, elements), empty=empty)
  scores = {k: scores_of(name, v) for k, v in elements.items()}
  scores = scores if name == "softmax" else None
  return pooling.pool(name, elements, scores=scores, empty=empty)


@functools.partial(jax.jit, static_argnames="name")
def gradients(name, elements):
  """Return the gradients of a weighted sum of the pooled features, by modality."""

  def weighted(values):
    modalities = {k: v.replace(values=values[k]) for k, v in elements.items()}
    result = pooled(name, modalities)
    return jnp.vdot(result, jnp.cos(jnp.arange(result.size, dtype=jnp.float32)))

  return jax.grad(weighted)({k: v.values for k, v in elements.items()})


def joined(*lists_of_modalities):
  """Join the modalities' sets, example by example."""
  return [np.concatenate(parts) for parts in zip(*lists_of_modalities, strict=True)]


@EVERY_POOL
class TestEveryPool:
  @hypothesis.given(first=set_lists(), second=set_lists())
  def test_agrees_with_a_loop_over_sets(self, name, first, second):
    got = pooled(name, {"a": pack(first), "b": pack(second)})
    np.testing.assert_allclose(got, loop(name, joined(first, second)), 1e-4, 1e-5)

  @hypothesis.given(lists=set_lists(), seed=st.integers(0, 99))
  def test_order_of_elements_does_not_matter(self, name, lists, seed):
    got, want = pooled(name, pack(shuffled(lists, seed))), pooled(name, pack(lists))
    np.testing.assert_allclose(got, want, 1e-4, 1e-5)

  @hypothesis.given(first=set_lists(), second=set_lists())
  def test_order_of_modalities_does_not_change_a_bit(self, name, first, second):
    a, b = pack(first), pack(second)
    np.testing.assert_array_equal(
      pooled(name, {"a": a, "b": b}), pooled(name, {"b": b, "a": a})
    )
    np.testing.assert_allclose(
      pooled(name, {"a": a, "b": b}), pooled(name, {"a": b, "b": a}), 1e-4, 1e-5
    )

  @hypothesis.given(lists=set_lists())
  def test_slot_budget_does_not_matter(self, name, lists):
    results = [pooled(name, pack(lists, budget)) for budget in BUDGETS]
    np.testing.assert_allclose(*results, 1e-6, 1e-6)

  @hypothesis.given(lists=set_lists())
  def test_an_absent_modality_equals_one_never_declared(self, name, lists):
    absent = [np.zeros((0, FEATURES), np.float32)] * NUM_EXAMPLES
    want = pooled(name, {"b": pack(lists)})
    for other in ("a", "c"):  # Merged before and after.
      got = pooled(name, {"b": pack(lists), other: pack(absent)})
      np.testing.assert_array_equal(got, want)

  @hypothesis.given(lists=set_lists(), cut=st.integers(0, 6))
  def test_chunks_merge_to_the_whole(self, name, lists, cut):
    pool = merges(name)
    chunks = [pack([x[:cut] for x in lists]), pack([x[cut:] for x in lists])]
    lifted = [pool.lift(chunk, scores_of(name, chunk)) for chunk in chunks]
    got = pool.finish(pool.merge(*lifted))
    np.testing.assert_allclose(got, pooled(name, pack(lists)), 1e-4, 1e-5)

  @hypothesis.given(first=set_lists(ties=True), second=set_lists(ties=True))
  def test_gradients_are_finite_and_zero_on_padding(self, name, first, second):
    elements = {"a": pack(first), "b": pack(second)}
    for key, gradient in gradients(name, elements).items():
      assert np.isfinite(gradient).all()
      np.testing.assert_array_equal(gradient[~np.asarray(elements[key].mask)], 0)

  def test_gradients_agree_with_differences(self, name):
    rng = np.random.default_rng(0)
    lists = [rng.normal(size=(n, FEATURES)) for n in (3, 0, 1, 5)]
    elements = {"a": pack(lists), "b": pack(lists[::-1])}
    gradient = gradients(name, elements)["a"]
    weights = np.cos(np.arange(NUM_EXAMPLES * FEATURES)).reshape(-1, FEATURES)

    def value(lists_a):
      return (loop(name, joined(lists_a, lists[::-1])) * weights).sum()

    flat = np.concatenate(lists)
    for slot, feature in np.ndindex(flat.shape):
      sides = []
      for sign in (1, -1):
        moved = flat.copy()
        moved[slot, feature] += sign * 1e-5
        sides.append(value(np.split(moved, np.cumsum([3, 0, 1]))))
      want = (sides[0] - sides[1]) / 2e-5
      np.testing.assert_allclose(gradient[slot, feature], want, 1e-3, 1e-4)

  def test_sets_without_elements_give_the_empty_value(self, name):
    nothing = pack([np.zeros((0, FEATURES), np.float32)] * NUM_EXAMPLES)
    np.testing.assert_array_equal(pooled(name, nothing), 0)
    np.testing.assert_array_equal(pooled(name, nothing, -7.0), -7)
    assert not np.any(gradients(name, {"a": nothing})["a"])

  def test_bfloat16_elements_are_reduced_in_float32(self, name):
    # 300 equal elements: a bfloat16 sum would stop at 256.
    elements = pack([np.full((300, FEATURES), 1.0)] * 4, 1200, jnp.bfloat16)
    got = pooled(name, elements)
    assert got.dtype == jnp.float32
    want = loop(name, [np.full((300, FEATURES), 1.0)] * 4)
    np.testing.assert_allclose(got, want, 1e-5, 1e-6)

  def test_devices_merge_to_the_whole(self, name):
    rng = np.random.default_rng(1)
    mesh, pool = sharding.make_mesh(), merges(name)
    per_device = [
      [rng.normal(size=(rng.integers(0, 4), FEATURES)) for _ in range(NUM_EXAMPLES)]
      for _ in range(jax.device_count())
    ]
    shards = jax.tree.map(lambda *x: jnp.stack(x), *(pack(x) for x in per_device))

    @functools.partial(
      jax.shard_map, mesh=mesh, in_specs=jax.P(sharding.AXIS), out_specs=jax.P()
    )
    def across(elements):
      elements = jax.tree.map(lambda x: x[0], elements)
      state = pool.lift(elements, scores_of(name, elements))
      return pool.finish(pooling.merge_across(pool, state, sharding.AXIS))

    got = jax.jit(across)(shards)
    np.testing.assert_allclose(got, loop(name, joined(*per_device)), 1e-4, 1e-5)

  def test_one_trace_for_many_batches(self, name):
    traces = []

    @jax.jit
    def traced(elements):
      traces.append(None)
      return pooling.pool(name, elements, scores=scores_of(name, elements))

    for sizes in ((1, 2, 3, 4), (0, 0, 0, 0), (6, 6, 6, 6)):
      traced(pack([np.ones((n, FEATURES)) for n in sizes]))
    assert len(traces) == 1


@pytest.mark.parametrize("name", ["max", "min"])
class TestExtremes:
  def test_ties_share_the_gradient_equally_within_and_across_modalities(self, name):
    # Of feature 0, all three are equal; of feature 1, the first of each modality.
    sign = 1.0 if name == "max" else -1.0
    a = pack([[[1, 2, 0], [1, 0, 0]]] + [np.zeros((0, 3))] * 3).replace()
    b = pack([[[1, 2, 9]]] + [np.zeros((0, 3))] * 3)
    elements = {k: v.replace(values=sign * v.values) for k, v in (("a", a), ("b", b))}
    got = jax.grad(
      lambda values: pooling.pool(
        name, {k: v.replace(values=values[k]) for k, v in elements.items()}
      ).sum()
    )({k: v.values for k, v in elements.items()})
    third, half = 1 / 3, 1 / 2
    np.testing.assert_allclose(got["a"][:2], [[third, half, 0], [third, 0, 0]], 1e-6)
    np.testing.assert_allclose(got["b"][:1], [[third, half, 1]], 1e-6)

  def test_an_element_of_minus_infinity_is_not_an_empty_set(self, name):
    elements = pack([[[-np.inf] * 3]] + [np.zeros((0, 3))] * 3)
    assert np.isneginf(pooled(name, elements)[0]).all()


@pytest.mark.parametrize("p", [-2, -1, -0.5, 0.5, 1, 3])  # p = 2 is "rms".
class TestPowerMean:
  """Compared with the definition in float64; gradients with differences."""

  def sets(self, p):
    lists = [np.random.default_rng(0).normal(size=(n, FEATURES)) for n in (3, 0, 1, 5)]
    return lists if float(p).is_integer() else [np.abs(x) for x in lists]

  def loop(self, p, x):
    mean = (x**p).mean(0)
    return np.sign(mean) * np.abs(mean) ** (1 / p) if p % 2 == 1 else mean ** (1 / p)

  def test_is_the_definition(self, p):
    lists = self.sets(p)
    got = pooling.pool(pooling.PowerMean(p), pack(lists), empty=-7.0)
    for row, x in zip(got, lists, strict=True):
      want = self.loop(p, x) if len(x) else np.full(FEATURES, -7.0)
      np.testing.assert_allclose(row, want, 1e-4)

  def test_modalities_merge(self, p):
    a, b = self.sets(p), self.sets(p)[::-1]
    got = pooling.pool(pooling.PowerMean(p), {"a": pack(a), "b": pack(b)})
    for row, x in zip(got, joined(a, b), strict=True):
      np.testing.assert_allclose(row, self.loop(p, x), 1e-4)

  def test_gradient(self, p):
    x = self.sets(p)[3]
    pool = pooling.PowerMean(p)
    got = jax.grad(
      lambda v: pooling.pool(pool, ragged.Ragged(v, jnp.array([0, 5]))).sum()
    )(jnp.asarray(x, jnp.float32))
    for place in np.ndindex(x.shape):
      step = np.zeros_like(x)
      step[place] = 1e-6
      want = (self.loop(p, x + step) - self.loop(p, x - step)).sum() / 2e-6
      np.testing.assert_allclose(got[place], want, 2e-3, 1e-4)

  def test_large_and_small_values_do_not_overflow(self, p):
    for scale in (1e30, 1e-30):
      x = np.full((4, FEATURES), scale)
      got = pooling.pool(pooling.PowerMean(p), pack([x] + [x[:0]] * 3))[0]
      np.testing.assert_allclose(got, x[0], 1e-5)

  def test_zeros(self, p):
    x = np.array([[0.0, 0, 1], [0, 2, 3]])
    pool = pooling.PowerMean(p)
    got, gradient = jax.value_and_grad(
      lambda v: pooling.pool(pool, ragged.Ragged(v, jnp.array([0, 2])))[0, 0]
    )(jnp.asarray(x, jnp.float32))
    assert got == 0 and not np.isnan(gradient).any()


@pytest.mark.parametrize("p", [0, np.inf, np.nan])
def test_a_power_mean_refuses_other_exponents(p):
  with pytest.raises(ValueError, match="p must be finite and not 0"):
    pooling.PowerMean(p)


def test_second_derivatives():
  # The variance has 2 (delta_ij - 1 / n) / n; a constant mean would lose 1 / n.
  offsets = jnp.array([0, 4])

  def var(v):
    return pooling.pool("var", ragged.Ragged(v, offsets))[0]

  got = jax.hessian(var)(jnp.array([1.0, 2.0, 4.0, -3.0]))
  np.testing.assert_allclose(got, (np.eye(4) - 0.25) / 2, atol=1e-6)

  def logsumexp(v):
    return pooling.pool("logsumexp", ragged.Ragged(v, offsets))[0]

  x = jnp.array([1.0, 2.0, 4.0, -3.0])
  want = jax.hessian(jax.nn.logsumexp)(x)
  np.testing.assert_allclose(jax.hessian(logsumexp)(x), want, atol=1e-6)


def test_equal_elements_vary_by_nothing():
  # Their mean is rounded, and differs from them; the deviation must be 0 nevertheless.
  elements = pack([np.full((3, FEATURES), 0.1)] + [np.zeros((0, FEATURES))] * 3)
  for name in ("var", "std"):
    got, gradient = jax.value_and_grad(
      lambda v, name=name: pooling.pool(name, elements.replace(values=v)).sum()
    )(elements.values)
    assert got == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("masked", [(0,), (0, 1)])
def test_an_element_of_score_minus_infinity_takes_no_part(masked):
  values = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
  elements = ragged.Ragged(values, jnp.array([0, 2, 3], jnp.int32))
  scores = jnp.zeros(3).at[jnp.array(masked)].set(-jnp.inf)

  def pool(values, scores):
    halves = [
      elements.replace(values=values),
      ragged.Ragged(jnp.zeros((2, 3)), jnp.array([0, 0, 0], jnp.int32)),
    ]
    both = {"a": scores, "b": jnp.zeros(2)}
    return pooling.pool("softmax", dict(zip("ab", halves, strict=True)), scores=both)

  want = values[1] if masked == (0,) else jnp.zeros(3)
  np.testing.assert_array_equal(pool(values, scores), [want, values[2]])
  for gradient in jax.grad(lambda *x: pool(*x).sum(), (0, 1))(values, scores):
    assert np.isfinite(gradient).all()
  lowest = elements.replace(values=jnp.full((3, 3), -jnp.inf))
  assert np.isneginf(pooling.pool("logsumexp", lowest)).all()


def test_max_gradient_equals_the_default_one():
  elements = benchmark.sets(32, 8, 5, "geometric")
  cotangent = jnp.asarray(np.random.default_rng(0).normal(size=(32, 8)), jnp.float32)
  default = benchmark.both_passes(benchmark.default_max)(elements, cotangent)
  own = benchmark.both_passes(lambda e: pooling.pool("max", e))(elements, cotangent)
  np.testing.assert_allclose(own[1], default[1], 1e-6, 1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() == "cpu", reason="needs a GPU")
@EVERY_POOL
def test_gpu_and_cpu_agree(name):
  elements = benchmark.sets(64, 128, 16, "geometric")
  results = []
  for device in (jax.devices()[0], jax.devices("cpu")[0]):
    placed = jax.device_put({"a": elements}, device)
    results.append((pooled(name, placed), gradients(name, placed)["a"]))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-4), *results)


@pytest.mark.slow
def test_max_is_faster_than_the_default_gradient():
  # In one process, medians of shuffled rounds; see the benchmark for more shapes.
  result = benchmark.measure((1024, 256, 16, "geometric"))
  assert result["default_over_own"] >= 1.25, result


def test_errors_list_legal_values():
  elements = pack([np.ones((1, FEATURES))] * NUM_EXAMPLES)
  with pytest.raises(ValueError, match="unknown pool 'middle'.*'max'.*'median'"):
    pooling.pool("middle", elements)
  with pytest.raises(ValueError, match="softmax pool needs scores"):
    pooling.pool("softmax", elements)
  with pytest.raises(ValueError, match="Sum takes no scores"):
    pooling.pool("sum", elements, scores=jnp.ones(24))
  with pytest.raises(ValueError, match="no modality to pool"):
    pooling.pool("sum", {})


class Range(pooling.Pool):
  """A pool from outside of the package: the largest minus the smallest value."""

  def lift(self, elements, scores=None):
    largest = segments.segment_max(elements.values, elements)
    smallest = segments.segment_min(elements.values, elements)
    return elements.lengths[:, None], largest, smallest

  def merge(self, a, b):
    return a[0] + b[0], jnp.maximum(a[1], b[1]), jnp.minimum(a[2], b[2])

  def finish(self, state, empty=0.0):
    return jnp.where(state[0] > 0, state[1] - state[2], empty)


RANGE = Range()


@hypothesis.given(first=set_lists(), second=set_lists())
def test_a_pool_may_be_an_instance_of_a_class_of_ones_own(first, second):
  got = pooled(RANGE, {"a": pack(first), "b": pack(second)}, -7.0)
  for row, x in zip(got, joined(first, second), strict=True):
    want = np.ptp(x, axis=0) if len(x) else np.full(FEATURES, -7.0)
    np.testing.assert_allclose(row, want, 1e-6)
  with pytest.raises(ValueError, match="Range'> is not a pool; pass .* an instance"):
    pooling.pool(Range, pack(first))


def test_a_set_pool_needs_pools_that_merge():
  # Its states are merged when modalities are explained, long after training.
  elements = {"a": pack([np.ones((1, FEATURES))] * NUM_EXAMPLES)}
  module = SetPoolFusion(("a",), FEATURES, pools=("max", "median"))
  with pytest.raises(ValueError, match="'median' does not merge partial states"):
    module.init(jax.random.key(0), elements, train=False)
