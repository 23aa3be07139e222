"""Set functions against the numbers of PyTorch Geometric's tests; see README.md."""

import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax import ragged
from deepsets_jax.ragged import Ragged, pooling
from deepsets_jax.ragged.ordering import (
  segment_cumsum,
  segment_median,
  segment_quantile,
)
from deepsets_jax.ragged.segments import (
  segment_argmax,
  segment_softmax,
)

# Ten rows that hold each digit once in every column.
DIGITS = np.add.outer(3 * np.arange(10), np.arange(3)) % 10.0
DIGITS_INDEX = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
TOLERANCES = (1e-5, 1e-6)


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def grouped(values, index, num_examples):
  return Ragged.from_index(
    jnp.asarray(values, jnp.float32), jnp.asarray(index), num_examples
  )


class TestPowerMeanAggregation:
  def test_of_power_one_is_the_mean_of_negative_values_too(self):
    elements = grouped([[-3.0], [-4.0]], [0, 0], 2)
    got = pooling.pool(pooling.PowerMean(1.0), elements)
    np.testing.assert_allclose(got, [[-3.5], [0]], 1e-6)


class TestQuantileAggregation:
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


class TestSoftmax:
  @pytest.mark.parametrize("shape", [(4,), (4, 1)])
  def test_equal_values_share_their_group(self, shape):
    elements = grouped(np.ones(shape), [0, 0, 1, 2], 3)
    want = np.reshape([0.5, 0.5, 1, 1], shape)
    np.testing.assert_array_equal(segment_softmax(elements.values, elements), want)
    same = Ragged(elements.values, jnp.array([0, 2, 3, 4]))
    np.testing.assert_array_equal(segment_softmax(same.values, same), want)


class TestScatter:
  def test_argmax_of_integers(self):
    index = [2, 2, 0, 0, 3]
    elements = Ragged.from_index(jnp.arange(5), jnp.array(index), 6)
    slots = segment_argmax(elements.values, elements)
    # From slots to the places before sorting; 5 of an empty group in both.
    places = np.append(np.argsort(index, kind="stable"), 5)
    np.testing.assert_array_equal(places[np.asarray(slots)], [3, 5, 1, 4, 5, 5])


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
      np.testing.assert_array_equal(given.to_padded(3, fill), want)
      np.testing.assert_array_equal(given.to_padded(2, fill), want[:, :2])
      wide = np.asarray(given.to_padded(5, fill))
      np.testing.assert_array_equal(wide[:, :3], want)
      np.testing.assert_array_equal(wide[:, 3:], fill)
      mask = given.replace(values=jnp.ones(given.num_slots)).to_padded(5)
      np.testing.assert_array_equal(
        mask, [[1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0]]
      )
    more = grouped(self.PAIRS, index, 4).to_padded(3, fill)
    np.testing.assert_array_equal(more[:3], want)
    np.testing.assert_array_equal(more[3], fill)

  def test_dense_of_one_group(self):
    elements = grouped(self.PAIRS, [0] * 6, 1)
    np.testing.assert_array_equal(elements.to_padded(6)[0], self.PAIRS)
    np.testing.assert_array_equal(elements.to_padded(2)[0], self.PAIRS[:2])
    wide = np.asarray(elements.to_padded(10, 70.0))[0]
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
    np.testing.assert_array_equal(elements.to_padded(3), want)
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

  def test_cumulative_sums(self):
    # With the 0 in front, as offsets have it.
    offsets = ragged.from_lengths(np.zeros(7), np.array([2, 4, 1])).offsets
    np.testing.assert_array_equal(offsets, [0, 2, 6, 7])
    elements = Ragged.from_index(jnp.array([2, 4, 3, 6]), jnp.array([0, 0, 1, 1]), 2)
    got = segment_cumsum(elements.values, elements)
    np.testing.assert_array_equal(got, [2, 6, 3, 9])
