"""Set functions against the numbers of PyTorch Geometric's tests; see README.md.

Where its tests compare two formulas on random numbers, the expected numbers here come
from a loop over the groups in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax import ragged
from deepsets_jax.ragged import Ragged, pooling
from deepsets_jax.ragged.ordering import (
  segment_cumsum,
  segment_median,
  segment_quantile,
  segment_sort,
)
from deepsets_jax.ragged.segments import (
  segment_argmax,
  segment_max,
  segment_min,
  segment_softmax,
  segment_sum,
)

# Ten rows that hold each digit once in every column.
DIGITS = np.add.outer(3 * np.arange(10), np.arange(3)) % 10.0
DIGITS_INDEX = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
INDEX = [0, 0, 1, 1, 1, 2]
POINTERS = [0, 2, 5, 6]
INDEX_WITH_A_GAP = [0, 0, 1, 1, 1, 3]
TOLERANCES = (1e-5, 1e-6)

LOOPS = {
  "sum": lambda x: x.sum(0),
  "mean": lambda x: x.sum(0) / len(x),
  "max": lambda x: x.max(0),
  "min": lambda x: x.min(0),
  "prod": lambda x: x.prod(0),
  "var": lambda x: ((x - x.sum(0) / len(x)) ** 2).sum(0) / len(x),
  "std": lambda x: np.sqrt(((x - x.sum(0) / len(x)) ** 2).sum(0) / len(x)),
  "logsumexp": lambda x: np.log(np.exp(x).sum(0)),
}


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def grouped(values, index, num_examples):
  return Ragged.from_index(
    jnp.asarray(values, jnp.float32), jnp.asarray(index), num_examples
  )


def loop(function, values, index, num_examples, empty=0.0):
  """`function` of the rows of each group, in float64; `empty` where there are none."""
  values, index = np.asarray(values, np.float64), np.asarray(index)
  groups = [values[index == group] for group in range(num_examples)]
  nothing = np.full(np.shape(function(values[:1])), empty)
  return np.stack([function(x) if len(x) else nothing for x in groups])


class TestBasicAggregations:
  @pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "prod", "var", "std"])
  def test_the_index_and_the_pointers_give_the_loop(self, name):
    values = normal(6, 16)
    want = loop(LOOPS[name], values, INDEX, 3)
    by_index = pooling.pool(name, grouped(values, INDEX, 3))
    by_pointers = pooling.pool(name, Ragged(jnp.asarray(values), jnp.array(POINTERS)))
    np.testing.assert_allclose(by_index, want, *TOLERANCES)
    np.testing.assert_array_equal(by_index, by_pointers)

  def test_no_elements_at_all_give_zeros(self):
    nothing = grouped(np.zeros((0, 6)), np.zeros(0, np.int32), 5)
    pools = [pooling.pool(name, nothing) for name in ("mean", "var", "std")]
    np.testing.assert_array_equal(jnp.concatenate(pools, axis=1), np.zeros((5, 18)))

  @pytest.mark.parametrize(
    "names",
    [
      ("sum", "mean", "min", "max", "prod", "var", "std"),
      ("sum", "min", "max", "prod", "var", "std"),
      ("min", "max", "prod", "var", "std"),
      ("mean", "min", "max", "prod", "var", "std"),
      ("sum", "min", "max", "prod", "std"),
      ("mean", "min", "max", "prod", "std"),
      ("min", "max", "prod", "std"),
    ],
  )
  def test_several_side_by_side_with_their_gradient(self, names):
    values = normal(6, 1)

    def ours(values):
      elements = grouped(values, INDEX_WITH_A_GAP, 4)
      return jnp.concatenate(
        [
          # The product of no elements is 1 there.
          pooling.pool(name, elements, empty=float(name == "prod"))
          for name in names
        ],
        axis=1,
      )

    def loops(values):
      columns = [
        loop(LOOPS[n], values, INDEX_WITH_A_GAP, 4, empty=float(n == "prod"))
        for n in names
      ]
      return np.concatenate(columns, axis=1)

    np.testing.assert_allclose(ours(values), loops(values), *TOLERANCES)
    gradient = jax.grad(lambda x: ours(x).mean())(jnp.asarray(values))
    # Differences say nothing about a root at 0: the last element is alone in its group.
    for slot in range(5):
      step = np.zeros((6, 1))
      step[slot] = 1e-6
      rise = loops(values + step).mean() - loops(values - step).mean()
      np.testing.assert_allclose(gradient[slot, 0], rise / 2e-6, 1e-3, 1e-4)
    alone = ["sum", "mean", "min", "max", "prod"]
    share = sum(name in alone for name in names) / (4 * len(names))
    np.testing.assert_allclose(gradient[5, 0], share, 1e-5)


class TestSoftmaxAggregation:
  @pytest.mark.parametrize("temperature", [1.0, 0.5, -2.0])
  def test_values_are_weighted_by_the_softmax_of_their_multiple(self, temperature):
    values = normal(6, 16)

    def weighted(x):
      weights = np.exp(temperature * x)
      return (weights / weights.sum(0) * x).sum(0)

    elements = grouped(values, INDEX, 3)
    got = pooling.pool("softmax", elements, scores=temperature * elements.values)
    np.testing.assert_allclose(got, loop(weighted, values, INDEX, 3), *TOLERANCES)

  @pytest.mark.parametrize("shape", [(), (16,)])
  def test_the_temperature_can_be_learned(self, shape):
    values = normal(6, 16)
    elements = grouped(values, INDEX, 3)

    @jax.grad
    def gradient(temperature):
      scores = elements.values * jnp.broadcast_to(temperature, (6, 16))
      return pooling.pool("softmax", elements, scores=scores).mean()

    # The derivative of a mean by the factor of its log weights is a variance.
    def variance(x):
      weights = np.exp(x) / np.exp(x).sum(0)
      mean = (weights * x).sum(0)
      return (weights * (x - mean) ** 2).sum(0)

    by_group = loop(variance, values, INDEX, 3) / 48
    want = by_group.sum(0) if shape else by_group.sum()
    np.testing.assert_allclose(gradient(jnp.ones(shape, jnp.float32)), want, 1e-4, 1e-6)

  def test_attention_of_a_gate(self):
    rng = np.random.default_rng(1)
    values, gate, layer = normal(6, 16), rng.normal(size=16), rng.normal(size=(16, 16))

    def attended(x):
      weights = np.exp(x @ gate)
      return weights @ (x @ layer) / weights.sum()

    elements = grouped(values, INDEX, 3)
    scores = elements.values @ jnp.asarray(gate, jnp.float32)
    projected = elements.values @ jnp.asarray(layer, jnp.float32)
    got = pooling.pool("softmax", elements.replace(values=projected), scores=scores)
    np.testing.assert_allclose(got, loop(attended, values, INDEX, 3), 1e-4, 1e-5)
    by_pointers = Ragged(projected, jnp.array(POINTERS))
    np.testing.assert_array_equal(
      got, pooling.pool("softmax", by_pointers, scores=scores)
    )


class TestPowerMeanAggregation:
  @pytest.mark.parametrize("p", [1.0, 3.0, 0.5])
  def test_of_positive_values_is_the_loop(self, p):
    # There values, and the mean of their powers, are clamped to [1e-4, 100]: these are
    # well inside.
    values = np.exp(0.4 * normal(6, 16))
    want = loop(lambda x: ((x**p).sum(0) / len(x)) ** (1 / p), values, INDEX, 3)
    got = pooling.pool(pooling.PowerMean(p), grouped(values, INDEX, 3))
    np.testing.assert_allclose(got, want, 1e-5)

  def test_of_power_one_is_the_mean_of_negative_values_too(self):
    elements = grouped([[-3.0], [-4.0]], [0, 0], 2)
    got = pooling.pool(pooling.PowerMean(1.0), elements)
    np.testing.assert_allclose(got, [[-3.5], [0]], 1e-6)

  @pytest.mark.parametrize("p", [1.0, 3.0])
  def test_gradient(self, p):
    values = np.exp(normal(6, 16))
    elements = grouped(values, INDEX, 3)
    got = jax.grad(
      lambda x: pooling.pool(pooling.PowerMean(p), elements.replace(values=x)).mean()
    )(elements.values)

    def share(x):
      mean = ((x**p).sum(0) / len(x)) ** (1 / p)
      return mean ** (1 - p) / len(x)

    x = np.float64(values)
    want = loop(share, values, INDEX, 3)[INDEX] * x ** (p - 1) / 48
    np.testing.assert_allclose(got, want, 1e-4)


class TestQuantileAggregation:
  @pytest.mark.parametrize("axis", [0, 1])
  @pytest.mark.parametrize(
    "method", ["linear", "lower", "higher", "nearest", "midpoint"]
  )
  def test_ten_quantiles_with_fourteen_empty_groups(self, method, axis):
    x = np.moveaxis(DIGITS, axis, 0)
    for q in np.arange(11) / 10:
      position = q * (len(x) - 1)
      low, high = int(np.floor(position)), int(np.ceil(position))
      ordered = np.sort(x, axis=0)
      want = {
        "linear": ordered[low] + (position - low) * (ordered[high] - ordered[low]),
        "lower": ordered[low],
        "higher": ordered[high],
        "nearest": ordered[round(position)],  # Half to even.
        "midpoint": (ordered[low] + ordered[high]) / 2,
      }[method]
      for num_examples in (1, 15):
        for empty in (0.0, 10.0):
          elements = grouped(x, np.zeros(len(x), np.int32), num_examples)
          got = segment_quantile(
            elements.values, elements, float(q), method=method, empty=empty
          )
          np.testing.assert_allclose(got[0], want, *TOLERANCES)
          np.testing.assert_array_equal(got[1:], empty)

  def test_several_quantiles_of_several_groups(self):
    # Of four, three and three digits.
    want = {
      0.25: [[2.25, 0.75, 1.75], [3.5, 4.5, 2], [2.5, 3.5, 4.5]],
      0.5: [[4.5, 2.5, 3.5], [5, 6, 4], [4, 5, 6]],
      0.75: [[6.75, 4.75, 5.75], [6.5, 7.5, 5.5], [5.5, 6.5, 7.5]],
    }
    elements = grouped(DIGITS, DIGITS_INDEX, 3)
    for q, rows in want.items():
      got = segment_quantile(elements.values, elements, q)
      np.testing.assert_allclose(got, rows, *TOLERANCES)

  def test_a_quantile_above_one_or_an_unknown_method_is_refused(self):
    elements = grouped(DIGITS, DIGITS_INDEX, 3)
    with pytest.raises(ValueError, match="-1"):
      segment_quantile(elements.values, elements, -1.0)
    with pytest.raises(ValueError, match="cubic"):
      segment_quantile(elements.values, elements, 0.5, method="cubic")

  def test_median_is_the_lower_middle(self):
    elements = grouped(DIGITS, DIGITS_INDEX, 4)
    got = segment_median(elements.values, elements)
    np.testing.assert_array_equal(got, [[3, 1, 2], [5, 6, 4], [4, 5, 6], [0, 0, 0]])

  def test_median_along_the_columns(self):
    # Columns 0 and 2 are a group, and column 1 is another.
    elements = grouped(DIGITS.T, [0, 1, 0], 2)
    want = [
      [0, 3, 6, 1, 2, 5, 0, 1, 4, 7],
      [1, 4, 7, 0, 3, 6, 9, 2, 5, 8],
    ]
    got = segment_median(elements.values, elements)
    np.testing.assert_array_equal(got, want)


class TestCompositeAggregations:
  def test_variance_preserving(self):
    values = normal(6, 16)
    elements = grouped(values, INDEX_WITH_A_GAP, 4)
    count = jnp.maximum(elements.lengths, 1).astype(jnp.float32)[:, None]
    total = pooling.pool("sum", elements)
    got = total / jnp.sqrt(count)
    want = loop(lambda x: x.sum(0) / np.sqrt(len(x)), values, INDEX_WITH_A_GAP, 4)
    np.testing.assert_allclose(got, want, *TOLERANCES)
    # The published equivalent: the geometric mean of sum and mean, with their sign.
    mean = pooling.pool("mean", elements)
    same = jnp.sqrt(jnp.abs(mean) * jnp.abs(total)) * jnp.sign(total)
    np.testing.assert_allclose(same, want, 1e-4, 1e-5)

  @pytest.mark.parametrize(
    "mode", ["cat", "sum", "mean", "max", "min", "logsumexp", "var", "std"]
  )
  def test_three_pools_combined(self, mode):
    values, index = normal(7, 16), [0, 0, 1, 1, 1, 2, 3]
    names = ("mean", "sum", "max")
    pools = [pooling.pool(name, grouped(values, index, 4)) for name in names]
    want = np.stack([loop(LOOPS[name], values, index, 4) for name in names], axis=1)
    if mode == "cat":
      got = jnp.concatenate(pools, axis=1)
      np.testing.assert_allclose(got, want.reshape(4, 48), *TOLERANCES)
      return
    # The three vectors of an example are a set again.
    stacked = jnp.stack(pools, axis=1).reshape(12, 16)
    got = pooling.pool(mode, Ragged(stacked, 3 * jnp.arange(5)))
    if mode in ("var", "std"):
      # Theirs divides by one less than the number of vectors, ours by that number.
      got *= {"var": 3 / 2, "std": np.sqrt(3 / 2, dtype=np.float32)}[mode]
      want = getattr(np, mode)(want, axis=1, ddof=1)
    else:
      want = np.stack([LOOPS[mode](rows) for rows in want])
    np.testing.assert_allclose(got, want, 1e-4, 1e-5)

  def test_pools_scaled_by_the_number_of_elements(self):
    values, names = normal(6, 16), ("mean", "sum", "max")
    # A histogram of group sizes in training: three of one, one of three, one of four.
    linear = (3 * 1 + 3 + 4) / 5
    log = float(3 * np.log(2) + np.log(4) + np.log(5)) / 5
    elements = grouped(values, INDEX, 3)
    lengths = elements.lengths.astype(jnp.float32)[:, None]
    scales = [
      jnp.ones((3, 1), jnp.float32),
      jnp.log(lengths + 1) / log,
      log / jnp.log(lengths + 1),
      lengths / linear,
      linear / lengths,
    ]
    pools = jnp.concatenate([pooling.pool(name, elements) for name in names], axis=1)
    got = jnp.concatenate([pools * jnp.float32(s) for s in scales], axis=1)

    def scaled(x):
      whole = np.concatenate([LOOPS[name](x) for name in names])
      n = len(x)
      factors = [1, np.log(n + 1) / log, log / np.log(n + 1), n / linear, linear / n]
      return np.concatenate([whole * factor for factor in factors])

    assert got.shape == (3, 240)
    np.testing.assert_allclose(got, loop(scaled, values, INDEX, 3), *TOLERANCES)

  @pytest.mark.parametrize("k", [5, 10])
  @pytest.mark.parametrize("num_examples", [2, 3])
  def test_the_largest_k_in_order_and_zeros_after_them(self, k, num_examples):
    values, index = normal(10, 1), [0] * 4 + [1] * 6
    elements = grouped(values, index, num_examples)
    falling = elements.replace(values=-segment_sort(-elements.values, elements))
    want = np.zeros((num_examples, k, 1), np.float32)
    want[0, :4, 0] = sorted(values[:4, 0], reverse=True)
    first = sorted(values[4:, 0], reverse=True)[:k]
    want[1, : len(first), 0] = first
    np.testing.assert_array_equal(dense(falling, k), want)


class TestSoftmax:
  @pytest.mark.parametrize("shape", [(4,), (4, 1)])
  def test_equal_values_share_their_group(self, shape):
    elements = grouped(np.ones(shape), [0, 0, 1, 2], 3)
    want = np.reshape([0.5, 0.5, 1, 1], shape)
    np.testing.assert_array_equal(segment_softmax(elements.values, elements), want)
    same = Ragged(elements.values, jnp.array([0, 2, 3, 4]))
    np.testing.assert_array_equal(segment_softmax(same.values, same), want)

  def test_value_and_gradient_equal_those_of_dense_rows(self):
    # A weighted sum: of a plain mean, which is published, every gradient is zero.
    values, weights = normal(4, 8), jnp.asarray(normal(4, 8, seed=1))
    elements = grouped(values, [0, 0, 1, 1], 2)

    def ours(x):
      return segment_softmax(x, elements)

    def theirs(x):
      return jax.nn.softmax(x.reshape(2, 2, 8), axis=1).reshape(4, 8)

    x = jnp.asarray(values)
    np.testing.assert_allclose(ours(x), theirs(x), 1e-6)
    got, want = (
      jax.grad(lambda x, f=f: jnp.vdot(f(x), weights))(x) for f in (ours, theirs)
    )
    np.testing.assert_allclose(got, want, 1e-5, 1e-6)

  @pytest.mark.parametrize(
    ("shape", "axis"), [((4,), 0), ((4, 16), 0), ((4, 4), 1), ((4, 4, 16), 1)]
  )
  def test_along_any_axis_of_one_group(self, shape, axis):
    values = normal(*shape)
    elements = grouped(np.moveaxis(values, axis, 0), [0] * 4, 1)
    got = np.moveaxis(segment_softmax(elements.values, elements), 0, axis)
    weights = np.exp(np.float64(values))
    want = weights / weights.sum(axis, keepdims=True)
    np.testing.assert_allclose(got, want, 1e-5)


class TestScatter:
  @pytest.mark.parametrize("name", ["sum", "mean", "min", "max"])
  def test_rows_of_an_unsorted_index(self, name):
    index = np.random.default_rng(2).integers(0, 8, 100)
    values = normal(100, 16)
    got = pooling.pool(name, grouped(values, index, 8))
    np.testing.assert_allclose(got, loop(LOOPS[name], values, index, 8), 1e-4, 1e-5)

  @pytest.mark.parametrize("name", ["sum", "mean", "min", "max"])
  def test_along_the_middle_axis_with_its_gradient(self, name):
    index = np.random.default_rng(2).integers(0, 8, 100)
    values = normal(8, 100, 16)

    def ours(x):
      elements = Ragged.from_index(jnp.moveaxis(x, 1, 0), jnp.asarray(index), 8)
      if name == "mean":
        total = segment_sum(elements.values, elements)
        return total / elements.lengths.astype(jnp.float32)[:, None, None]
      function = {"sum": segment_sum, "min": segment_min, "max": segment_max}[name]
      return function(elements.values, elements)

    rows = np.moveaxis(values, 1, 0)
    want = loop(LOOPS[name], rows, index, 8)
    np.testing.assert_allclose(ours(jnp.asarray(values)), want, 1e-4, 1e-5)
    gradient = jax.grad(lambda x: ours(x).mean())(jnp.asarray(values))
    counts = np.bincount(index, minlength=8)[index][:, None, None]
    share = {
      "sum": np.ones(rows.shape),
      "mean": np.ones(rows.shape) / counts,
      "min": rows == np.float32(want)[index],
      "max": rows == np.float32(want)[index],
    }[name]
    np.testing.assert_allclose(np.moveaxis(gradient, 1, 0), share / 1024, 1e-5)

  @pytest.mark.parametrize("sign", [1, -1])
  def test_ranks_in_the_group(self, sign):
    values = sign * normal(20)
    index = np.random.default_rng(3).integers(0, 4, 20)
    # The rank of a value is how many of its group are smaller.
    ranks = [
      sum(values[j] < values[i] for j in range(20) if index[j] == index[i])
      for i in range(20)
    ]
    elements = grouped(values, index, 4)
    ordered = segment_sort(elements.values, elements)
    starts = np.asarray(elements.offsets)[index]
    np.testing.assert_array_equal(np.asarray(ordered)[starts + ranks], values)

  def test_ranks_of_nothing(self):
    nothing = grouped(np.zeros(0), np.zeros(0, np.int32), 1)
    assert segment_sort(nothing.values, nothing).shape == (0,)

  def test_argmax_of_integers(self):
    index = [2, 2, 0, 0, 3]
    elements = Ragged.from_index(jnp.arange(5), jnp.array(index), 6)
    slots = segment_argmax(elements.values, elements)
    # From slots to the places before sorting; 5 of an empty group in both.
    places = np.append(np.argsort(index, kind="stable"), 5)
    np.testing.assert_array_equal(places[np.asarray(slots)], [3, 5, 1, 4, 5, 5])

  def test_groups_of_two_sets_joined(self):
    first, second = normal(4, 4), normal(2, 4, seed=1)
    merged, _ = ragged.concatenate(
      [grouped(first, [0, 0, 1, 2], 3), grouped(second, [0, 2], 3)]
    )
    want = [first[:2], second[:1], first[2:], second[1:]]
    np.testing.assert_array_equal(merged.values, np.concatenate(want))
    np.testing.assert_array_equal(merged.segment_ids, [0, 0, 0, 1, 2, 2])


class TestSegment:
  @pytest.mark.parametrize("name", ["sum", "mean", "min", "max"])
  def test_an_empty_group_and_four_of_five(self, name):
    values = normal(20, 16)
    elements = Ragged(jnp.asarray(values), jnp.array([0, 0, 5, 10, 15, 20]))
    got = pooling.pool(name, elements)
    np.testing.assert_array_equal(got[0], 0)
    want = [LOOPS[name](x) for x in np.float64(values).reshape(4, 5, 16)]
    np.testing.assert_allclose(got[1:], want, *TOLERANCES)

  @pytest.mark.parametrize("axis", [0, 1])
  def test_logsumexp_between_empty_groups(self, axis):
    values = np.moveaxis(normal(5, 4), axis, 0)
    n = len(values)
    elements = Ragged(jnp.asarray(values), jnp.array([0, 0, n, n]))
    got = pooling.pool("logsumexp", elements)
    np.testing.assert_array_equal(got[jnp.array([0, 2])], 0)
    want = LOOPS["logsumexp"](np.float64(values))
    np.testing.assert_allclose(got[1], want, *TOLERANCES)


def dense(elements, width, fill=0.0):
  """The elements as `[b, width, d]`; those past the width are left out."""
  shape = (elements.num_examples, width, *elements.values.shape[1:])
  rows, places = elements.segment_ids, elements.positions
  # On padding the row is out of range.
  empty = jnp.full(shape, fill, elements.values.dtype)
  return empty.at[rows, places].set(elements.values, mode="drop")


class TestLayout:
  PAIRS = np.arange(1.0, 13).reshape(6, 2)

  @pytest.mark.parametrize("fill", [70.0, 49.0])
  def test_dense_with_places_to_fill(self, fill):
    index = [0, 0, 1, 2, 2, 2]
    f = [fill, fill]
    want = np.array([[[1, 2], [3, 4], f], [[5, 6], f, f], [[7, 8], [9, 10], [11, 12]]])
    elements = grouped(self.PAIRS, index, 3)
    padded = Ragged(jnp.pad(elements.values, ((0, 3), (0, 0))), elements.offsets)
    for given in (elements, padded):
      np.testing.assert_array_equal(dense(given, 3, fill), want)
      np.testing.assert_array_equal(dense(given, 2, fill), want[:, :2])
      wide = np.asarray(dense(given, 5, fill))
      np.testing.assert_array_equal(wide[:, :3], want)
      np.testing.assert_array_equal(wide[:, 3:], fill)
      mask = dense(given.replace(values=jnp.ones(given.num_slots)), 5)
      np.testing.assert_array_equal(
        mask, [[1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0]]
      )
    more = dense(grouped(self.PAIRS, index, 4), 3, fill)
    np.testing.assert_array_equal(more[:3], want)
    np.testing.assert_array_equal(more[3], fill)

  def test_dense_of_one_group(self):
    elements = grouped(self.PAIRS, [0] * 6, 1)
    np.testing.assert_array_equal(dense(elements, 6)[0], self.PAIRS)
    np.testing.assert_array_equal(dense(elements, 2)[0], self.PAIRS[:2])
    wide = np.asarray(dense(elements, 10, 70.0))[0]
    np.testing.assert_array_equal(wide, [*self.PAIRS, *[[70, 70]] * 4])

  def test_groups_as_lists(self):
    index = [0, 0, 0, 1, 1, 2, 2, 3, 4, 4]
    lists = Ragged.from_index(jnp.arange(10), jnp.array(index), 5).to_lists()
    want = [[0, 1, 2], [3, 4], [5, 6], [7], [8, 9]]
    assert [x.tolist() for x in lists] == want

  def test_groups_of_matrices_and_back(self):
    values = normal(5, 4, 3)
    elements = grouped(values, [0, 0, 1, 1, 1], 2)
    want = np.zeros((2, 3, 4, 3), np.float32)
    want[0, :2], want[1] = values[:2], values[2:]
    np.testing.assert_array_equal(dense(elements, 3), want)
    back = ragged.from_lists(
      [values[:2], values[2:]], dtype=np.float32, feature_shape=(4, 3)
    )
    np.testing.assert_array_equal(back.values, values)
    np.testing.assert_array_equal(back.segment_ids, [0, 0, 1, 1, 1])
    with pytest.raises(ValueError, match="example 1"):
      ragged.from_lists(
        [normal(4, 3), normal(5, 4)], dtype=np.float32, feature_shape=(3,)
      )

  def test_group_sizes(self):
    elements = Ragged.from_index(jnp.arange(5), jnp.array([0, 1, 0, 2, 0]), 3)
    np.testing.assert_array_equal(elements.lengths, [3, 1, 1])

  def test_order_in_a_group_is_the_given_one(self):
    rng = np.random.default_rng(4)
    for _ in range(20):
      index = rng.integers(0, 4, 10)
      elements = Ragged.from_index(jnp.arange(10), jnp.asarray(index), 4)
      want = [
        place for group in range(4) for place in range(10) if index[place] == group
      ]
      np.testing.assert_array_equal(elements.values, want)
      np.testing.assert_array_equal(elements.segment_ids, np.sort(index))

  def test_cumulative_sums(self):
    # With the 0 in front, as offsets have it.
    offsets = ragged.from_lengths(np.zeros(7), np.array([2, 4, 1])).offsets
    np.testing.assert_array_equal(offsets, [0, 2, 6, 7])
    elements = Ragged.from_index(jnp.array([2, 4, 3, 6]), jnp.array([0, 0, 1, 1]), 2)
    got = segment_cumsum(elements.values, elements)
    np.testing.assert_array_equal(got, [2, 6, 3, 9])
