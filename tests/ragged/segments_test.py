"""Properties of single segment ops; ops_test has those of every op."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax.ragged import Ragged, ordering, pooling, segments
from tests.sets import pack

LENGTHS = (3, 0, 1, 5)
ELEMENTS = Ragged(jnp.zeros((12, 0)), jnp.array([0, 3, 3, 4, 9], jnp.int32))


def lists(values):
  return np.split(np.asarray(values)[:9], [3, 3, 4])


def whole_numbers(dtype):
  values = np.random.default_rng(0).integers(-4, 5, (12, 2))
  if dtype is bool:
    return jnp.asarray(values > 0)
  return jnp.asarray(np.abs(values) if dtype == jnp.uint8 else values, dtype)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.int8, jnp.uint8, bool])
@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "any", "all"])
def test_whole_numbers_and_booleans(name, dtype):
  values = whole_numbers(dtype)
  got = getattr(segments, f"segment_{name}")(values, ELEMENTS)
  limits = jnp.iinfo(jnp.int32 if dtype is bool else dtype)
  none = {"sum": 0, "prod": 1, "max": limits.min, "min": limits.max}
  none |= {"any": False, "all": True}
  for row, x in zip(np.asarray(got), lists(values), strict=True):
    if len(x):
      want = getattr(np, name)(x, axis=0)
      np.testing.assert_array_equal(row, want.astype(got.dtype))
    else:
      np.testing.assert_array_equal(row, none[name])
  kept = jnp.int32 if dtype is bool else dtype
  assert got.dtype == (jnp.bool_ if name in ("any", "all") else kept)


def test_integer_sums_are_exact_on_long_sets():
  values = jnp.full(100_000, 16_777_217 // 1000, jnp.int32)
  got = segments.segment_sum(values, Ragged(values, jnp.array([0, 100_000])))
  assert got[0] == 100_000 * (16_777_217 // 1000)


def test_arguments_are_the_first_and_see_nan():
  values = jnp.array([1.0, 7, 7, jnp.nan, 2, jnp.nan, 9, 2, jnp.nan, 50, 50, 50])
  np.testing.assert_array_equal(
    segments.segment_argmax(values, ELEMENTS), [1, 12, 3, 5]
  )
  np.testing.assert_array_equal(
    segments.segment_argmin(values, ELEMENTS), [0, 12, 3, 5]
  )
  lowest = jnp.full(12, -jnp.inf)
  np.testing.assert_array_equal(
    segments.segment_argmax(lowest, ELEMENTS), [0, 12, 3, 4]
  )
  taken = jnp.take(values, segments.segment_argmax(values, ELEMENTS), mode="fill")
  np.testing.assert_array_equal(taken, [7, np.nan, np.nan, np.nan])


def test_the_gradient_of_a_product_with_zeros():
  values = jnp.array([0.0, 2, 3, 0, 0, 5, 2, 0, 7, 9, 9, 9])

  def total(v):
    return segments.segment_prod(v, ELEMENTS).sum()

  want = [6, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
  np.testing.assert_array_equal(jax.grad(total)(values), want)
  ones = values.at[4].set(4.0)  # A single zero is left in the last example.
  want[7] = 4 * 5 * 2 * 7
  np.testing.assert_array_equal(jax.grad(total)(ones), want)


class TestSoftmax:
  def test_over_several_modalities_is_that_of_the_union(self):
    rng = np.random.default_rng(0)
    a, b = ([rng.normal(size=n) for n in sizes] for sizes in ((2, 0, 1), (3, 0, 0)))
    pad = {"a": pack(a, 6), "b": pack(b, 7)}
    got = segments.segment_softmax({k: v.values for k, v in pad.items()}, pad)
    for i in range(3):
      both = np.exp(np.concatenate([a[i], b[i]]))
      mine = [np.asarray(got[k])[v.segment_ids == i] for k, v in pad.items()]
      np.testing.assert_allclose(np.concatenate(mine), both / both.sum(), 1e-5)

  @pytest.mark.parametrize(
    ("scores", "want"),
    [
      ([1e30, -1e30, 1e30], [0.5, 0, 0.5]),
      ([-np.inf, 0, 0], [0, 0.5, 0.5]),
      ([-np.inf] * 3, [0, 0, 0]),
      ([100.0, 100, 100], [1 / 3] * 3),
    ],
  )
  def test_extreme_scores(self, scores, want):
    # A score of padding would overflow the exponential.
    padded = jnp.asarray([*scores, 1e4, np.inf])
    elements = Ragged(padded, jnp.array([0, 3, 3], jnp.int32))
    got, pull = jax.vjp(lambda s: segments.segment_softmax(s, elements), padded)
    np.testing.assert_allclose(got, [*want, 0, 0], 1e-6)
    (gradient,) = pull(jnp.arange(5.0))
    assert np.isfinite(gradient).all() and not gradient[3:].any()

  def test_pool_of_scores_beyond_the_exponential_on_padding(self):
    # A bias of 100 reaches padding slots, too, and its gradient is shared.
    def loss(bias):
      scores = jnp.zeros(5) + bias
      elements = Ragged(jnp.ones((5, 2)), jnp.array([0, 2, 2], jnp.int32))
      return pooling.pool("softmax", elements, scores=scores).sum()

    for bias in (100.0, 1e30):
      assert loss(bias) == 2 and jax.grad(loss)(bias) == 0


@pytest.mark.parametrize("method", ordering.METHODS)
@pytest.mark.parametrize("q", [0, 0.1, 0.25, 0.3, 0.5, 2 / 3, 0.7, 0.9, 1])
def test_quantiles_are_numpys(q, method):
  rng = np.random.default_rng(0)
  sets = [rng.normal(size=(n, 2)) for n in (0, 1, 2, 3, 4, 5, 10, 11, 21)]
  elements = pack(sets, 64)
  got = ordering.segment_quantile(elements.values, elements, q, method, empty=-7.0)
  for row, x in zip(got, sets, strict=True):
    want = np.quantile(x, q, axis=0, method=method) if len(x) else [-7, -7]
    np.testing.assert_allclose(row, want, 1e-5, 1e-6)


def test_quantiles_between_infinities():
  x = jnp.array([-jnp.inf, 1.0, jnp.inf, jnp.inf])
  for q, want in ((0, -np.inf), (1 / 3, 1.0), (2 / 3, np.inf), (0.9, np.inf)):
    got = ordering.segment_quantile(x, Ragged(x, jnp.array([0, 4])), q)
    np.testing.assert_allclose(got, [want])


def test_errors_of_quantiles_list_legal_values():
  for q in (-1.0, 1.5):
    with pytest.raises(ValueError, match=f"q is {q}; .* between 0 and 1"):
      ordering.segment_quantile(jnp.zeros(12), ELEMENTS, q)
  with pytest.raises(ValueError, match=r"unknown method 'cubic'; one of .*'linear'"):
    ordering.segment_quantile(jnp.zeros(12), ELEMENTS, 0.5, "cubic")


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, bool, jnp.float32])
def test_sorting_either_way(dtype):
  values = whole_numbers(dtype)
  up = ordering.segment_sort(values, ELEMENTS)
  down = ordering.segment_sort(values, ELEMENTS, descending=True)
  assert up.dtype == down.dtype == values.dtype
  for a, b, x in zip(lists(up), lists(down), lists(values), strict=True):
    np.testing.assert_array_equal(a, np.sort(x, 0))
    np.testing.assert_array_equal(b, np.sort(x, 0)[::-1])
  assert not np.any(up[9:]) and not np.any(down[9:])


def test_the_lowest_integer_sorts_last_when_descending():
  values = jnp.array([0, -(2**31), 5, 1, 1, 1, 1, 1, 1, 1, 1, 1], jnp.int32)
  got = ordering.segment_sort(values, ELEMENTS, descending=True)
  np.testing.assert_array_equal(got[:3], [5, 0, -(2**31)])


@pytest.mark.parametrize("k", [1, 2, 6])
def test_top_k_of_every_example(k):
  values = jnp.asarray(whole_numbers(jnp.float32)).at[5, 0].set(jnp.nan)
  got, slots = ordering.segment_top_k(values, ELEMENTS, k)
  assert got.shape == slots.shape == (4, k, 2)
  for row, place, begin, length in zip(got, slots, [0, 3, 3, 4], LENGTHS, strict=True):
    for feature in range(2):
      x = np.asarray(values)[begin : begin + length, feature]
      nan = np.isnan(x)
      order = np.lexsort((np.arange(length), -np.where(nan, np.inf, x), ~nan))[:k]
      np.testing.assert_array_equal(place[: len(order), feature], begin + order)
      np.testing.assert_array_equal(row[: len(order), feature], x[order])
      assert (place[len(order) :, feature] == 12).all()
      assert np.isneginf(row[len(order) :, feature]).all()
