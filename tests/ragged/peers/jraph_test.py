"""Segment ops and pools against the numbers of jraph's tests; see README.md."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax.ragged import Ragged, from_lengths, pooling
from deepsets_jax.ragged.segments import (
  segment_max,
  segment_min,
  segment_softmax,
  segment_sum,
)

UNSORTED = np.array([0, 1, 2, 0, 4, 0, 1, 1, 0])
SORTED = np.array([0, 0, 0, 1, 1, 2, 2, 2])
ORDER = np.argsort(UNSORTED, kind="stable")


def segments(values, ids, num_segments):
  """The values by segment; those of a negative id, which jraph drops, are padding."""
  values, ids = np.asarray(values), np.asarray(ids)
  kept = ids >= 0
  elements = Ragged.from_index(
    jnp.asarray(values[kept]), jnp.asarray(ids[kept]), num_segments
  )
  padded = jnp.concatenate([elements.values, jnp.asarray(values[~kept])])
  return elements.replace(values=padded)


def floats(n, spoilt):
  values = np.arange(n, dtype=np.float32)
  if spoilt:
    values[0] = np.nan
  return values


@pytest.mark.parametrize("num_segments", [6, 5])
def test_sum_of_integers(num_segments):
  elements = segments(np.arange(9, dtype=np.int32), UNSORTED, num_segments)
  got = segment_sum(elements.values, elements)
  np.testing.assert_array_equal(got, [16, 14, 2, 0, 4, 0][:num_segments])
  assert got.dtype == jnp.int32


@pytest.mark.parametrize("spoilt", [False, True])
def test_mean(spoilt):
  elements = segments(floats(9, spoilt)[:, None], UNSORTED, 6)
  got = pooling.pool("mean", elements)[:, 0]
  first = np.nan if spoilt else 4
  np.testing.assert_allclose(got, [first, 14 / 3, 2, 0, 4, 0], 1e-6)


@pytest.mark.parametrize("spoilt", [False, True])
def test_variance(spoilt):
  elements = segments(floats(8, spoilt)[:, None], SORTED, 3)
  got = pooling.pool("var", elements)[:, 0]
  np.testing.assert_allclose(got, [np.nan if spoilt else 2 / 3, 1 / 4, 2 / 3], 1e-6)


@pytest.mark.parametrize("spoilt", [False, True])
def test_normalization(spoilt):
  elements = segments(floats(8, spoilt)[:, None], SORTED, 3)
  mean = elements.to_elements(pooling.pool("mean", elements))
  variance = elements.to_elements(pooling.pool("var", elements))
  got = (elements.values - mean) / jnp.sqrt(jnp.maximum(variance, 1e-8))
  end = np.sqrt(3 / 2)
  first = [np.nan] * 3 if spoilt else [-end, 0, end]
  np.testing.assert_allclose(got[:, 0], [*first, -1, 1, -end, 0, end], 1e-5, 1e-6)


# (ids, number of segments, largest, smallest) of the numbers from 0 on. None: empty.
EXTREMES = {
  "one each, sorted": ([0, 1, 2, 3, 4, 5], 6, [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]),
  "one each": ([1, 0, 2, 4, 3, -5], 5, [1, 0, 2, 4, 3], [1, 0, 2, 4, 3]),
  "one each, one empty": (
    [0, 1, 2, 3, 4, 5], 7, [0, 1, 2, 3, 4, 5, None], [0, 1, 2, 3, 4, 5, None],
  ),
  "several, sorted": (
    [0, 0, 0, 1, 1, 1, 2, 3, 4], 6, [2, 5, 6, 7, 8, None], [0, 3, 6, 7, 8, None],
  ),
  "several": (
    [0, 1, 2, 0, 4, 0, 1, 1, -6], 6, [5, 7, 2, None, 4, None], [0, 1, 2, None, 4, None],
  ),
  "several, no empty end": (
    [0, 0, 0, 1, 1, 1, 2, 3, 4], 5, [2, 5, 6, 7, 8], [0, 3, 6, 7, 8],
  ),
}  # fmt: skip


def filled(numbers, empty):
  return [empty if number is None else number for number in numbers]


@pytest.mark.parametrize("case", EXTREMES)
def test_extremes_of_integers(case):
  ids, num_segments, largest, smallest = EXTREMES[case]
  elements = segments(np.arange(len(ids), dtype=np.int32), ids, num_segments)
  limits = np.iinfo(np.int32)
  for function, numbers, empty in (
    (segment_max, largest, limits.min),
    (segment_min, smallest, limits.max),
  ):
    got = jax.jit(function)(elements.values, elements)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, filled(numbers, empty))


@pytest.mark.parametrize("case", EXTREMES)
def test_extremes_or_a_constant_with_a_finite_gradient(case):
  ids, num_segments, largest, smallest = EXTREMES[case]
  values = np.arange(len(ids), dtype=np.float32)
  elements = segments(values[:, None], ids, num_segments)
  for name, numbers in (("max", largest), ("min", smallest)):
    for empty in (0.0, -7.0):
      got = pooling.pool(name, elements, empty=empty)[:, 0]
      np.testing.assert_array_equal(got, filled(numbers, empty))
    gradient = jax.grad(
      lambda x, name=name: pooling.pool(name, elements.replace(values=x)).sum()
    )(elements.values)
    # No two are equal: each extreme has all of its segment's gradient.
    attained = np.isin(elements.values, [n for n in numbers if n is not None])
    np.testing.assert_array_equal(gradient, attained)


# Of two columns, the second counting down to 1: its largest and smallest.
SECOND = {
  "one each, sorted": ([6, 5, 4, 3, 2, 1], [6, 5, 4, 3, 2, 1]),
  "one each": ([5, 6, 4, 2, 3], [5, 6, 4, 2, 3]),
  "several, sorted": ([9, 6, 3, 2, 1, 0], [7, 4, 3, 2, 1, 0]),
  "several": ([9, 8, 7, 0, 5, 0], [4, 2, 7, 0, 5, 0]),
}


@pytest.mark.parametrize("case", SECOND)
def test_extremes_of_two_columns(case):
  ids, num_segments, *first = EXTREMES[case]
  n = len(ids)
  columns = np.stack([np.arange(n), np.arange(n, 0, -1)], axis=1)
  elements = segments(np.float32(columns), ids, num_segments)
  for name, numbers, second in zip(("max", "min"), first, SECOND[case], strict=True):
    got = jax.jit(functools.partial(pooling.pool, name))(elements)
    np.testing.assert_array_equal(got, np.stack([filled(numbers, 0), second], axis=1))


@pytest.mark.parametrize("spoilt", [False, True])
def test_softmax(spoilt):
  elements = segments(floats(9, spoilt), UNSORTED, 6)
  got = jax.jit(segment_softmax)(elements.values, elements)
  want = np.array(
    [3.1741429e-4, 1.8088353e-3, 1, 6.3754367e-3, 1, 4.710846e-2, 0.26845494,
     0.72973621, 0.9461987]
  )  # fmt: skip
  if spoilt:
    want[UNSORTED == 0] = np.nan
  np.testing.assert_allclose(got, want[ORDER], 1e-6)


def test_softmax_of_partitions():
  partitions = from_lengths(np.arange(9, dtype=np.float32), np.array([3, 2, 4]))
  elements = Ragged(jnp.asarray(partitions.values), jnp.asarray(partitions.offsets))
  want = [
    *(0.090031, 0.244728, 0.665241),
    *(0.268941, 0.731059),
    *(0.032059, 0.087144, 0.236883, 0.643914),
  ]
  got = segment_softmax(elements.values, elements)
  np.testing.assert_allclose(got, want, 1e-5, 1e-5)


# Graphs of these many nodes and edges, the last three of each being padding.
NODES, EDGES = [1, 3, 1, 0, 2, 0, 0], [2, 5, 0, 0, 1, 0, 0]


@pytest.mark.parametrize(
  ("sizes", "want"),
  [(NODES, [1, 1, 1, 1, 1, 0, 0]), (EDGES, [1, 1, 1, 1, 1, 1, 1, 0])],
)
def test_mask_is_true_on_elements(sizes, want):
  offsets = jnp.asarray(np.cumsum([0, *sizes[:4]]))
  elements = Ragged(jnp.zeros((sum(sizes), 2)), offsets)
  np.testing.assert_array_equal(elements.mask, want)


def test_batch_of_lists_and_back():
  rows = [
    [[0, 1]], [[2, 3], [4, 5], [6, 7]], [[8, 9]], [], [[10, 11], [12, 13]], [], [],
  ]  # fmt: skip
  batch = from_lengths(np.arange(14).reshape(7, 2), np.array(NODES))
  np.testing.assert_array_equal(batch.offsets, [0, 1, 4, 5, 5, 7, 7, 7])
  assert [x.tolist() for x in batch.to_lists()] == rows
