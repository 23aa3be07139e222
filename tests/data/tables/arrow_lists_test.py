import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest

from deepsets_jax.data.tables.arrow_lists import (
  from_arrow,
  vectors_from_arrow,
  vectors_to_arrow,
)
from deepsets_jax.foundation.errors import DataError


def rows_of(got):
  return [elements.tolist() for elements in got.to_lists()]


class TestVectors:
  @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
  @pytest.mark.parametrize("shape", [(0, 3), (5, 2), (4, 1)])
  def test_there_and_back_keeps_every_number(self, dtype, shape):
    values = np.random.default_rng(0).normal(size=shape).astype(dtype)
    column = vectors_to_arrow(values)
    assert column.type == pa.list_(pa.from_numpy_dtype(dtype), shape[1])
    for given in (column, pa.chunked_array([column[:2], column[2:]])):
      got = vectors_from_arrow(given)
      assert got.dtype == values.dtype
      np.testing.assert_array_equal(got, values)

  def test_the_number_type_can_be_chosen_and_memory_may_be_strided(self):
    values = np.arange(12.0).reshape(3, 4)[:, ::2]
    column = vectors_to_arrow(values, np.float32)
    assert column.to_pylist() == values.tolist()
    assert column.type == pa.list_(pa.float32(), 2)

  def test_a_null_vector_is_refused(self):
    column = pa.array([[1.0], None], pa.list_(pa.float32(), 1))
    with pytest.raises(DataError, match="1 null elements"):
      vectors_from_arrow(column)


class TestFromArrow:
  ROWS = ([1, 2], None, [], [3], None)
  WANT = ([1, 2], [], [], [3], [])

  @pytest.mark.parametrize("make", [pa.list_, pa.large_list])
  @pytest.mark.parametrize("name", ["int32", "int64", "float16", "float32"])
  def test_keeps_the_number_type_and_null_is_absent(self, make, name):
    rows = [
      None if row is None else [np.dtype(name).type(x) for x in row]
      for row in self.ROWS
    ]
    got = from_arrow(pa.array(rows, make(pa.from_numpy_dtype(name))))
    assert got.values.dtype == np.dtype(name)
    assert rows_of(got) == list(self.WANT)

  def test_chunks_and_slices(self):
    rows = list(self.ROWS)
    parts = [pa.array(part, pa.list_(pa.int32())) for part in (rows[:2], [], rows[2:])]
    whole = pa.chunked_array(parts)
    assert rows_of(from_arrow(whole)) == list(self.WANT)
    for start in range(5):
      for length in range(6 - start):
        got = from_arrow(whole.slice(start, length))
        assert rows_of(got) == list(self.WANT[start : start + length])
        got = from_arrow(pa.array(rows, whole.type).slice(start, length))
        assert rows_of(got) == list(self.WANT[start : start + length])

  def test_values_behind_a_null_are_left_out(self):
    hidden = pa.ListArray.from_arrays(
      pa.array([0, 1, 3, 4], pa.int32()),
      pa.array([1, 2, 3, 4], pa.int32()),
      mask=pa.array([False, True, False]),
    )
    assert rows_of(from_arrow(hidden)) == [[1], [], [4]]

  @pytest.mark.parametrize("inner", ["fixed", "list"])
  def test_columns_of_vectors(self, inner):
    vector = pa.list_(pa.float32(), 2 if inner == "fixed" else -1)
    rows = [None, [[1, 2], [3, 4]], [], [[5, 6]]]
    column = pa.array(rows, pa.list_(vector))
    got = from_arrow(column)
    assert got.values.dtype == np.float32
    assert rows_of(got) == [[], rows[1], [], rows[3]]
    got = from_arrow(pa.chunked_array([column, column]).slice(2, 4))
    assert rows_of(got) == [[], rows[3], [], rows[1]]

  def test_an_empty_column_of_vectors_keeps_its_size(self):
    column = pa.array([None, []], pa.list_(pa.list_(pa.float32(), 3)))
    assert from_arrow(column).values.shape == (0, 3)

  @pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
      ([1, 2], pa.int32(), "of int32: expected a list column"),
      ([["a"]], pa.list_(pa.string()), "a list of string: expected numbers"),
      ([[1, None]], pa.list_(pa.int32()), "1 null elements inside lists"),
      ([[[1], None]], pa.list_(pa.list_(pa.int32())), "1 null elements"),
      ([[[1, None]]], pa.list_(pa.list_(pa.int32(), 2)), "1 null elements"),
      ([[[1], [1, 2]]], pa.list_(pa.list_(pa.int32())), r"lengths: \[1, 2\]"),
    ],
  )
  def test_columns_without_elements_are_refused(self, rows, kind, message):
    with pytest.raises(DataError, match=message):
      from_arrow(pa.array(rows, kind))

  @hypothesis.given(
    rows=st.lists(st.none() | st.lists(st.integers(0, 99), max_size=4), max_size=8),
    data=st.data(),
  )
  def test_any_slice_of_any_chunks_agrees_with_the_lists(self, rows, data):
    cut, start, stop = (data.draw(st.integers(0, len(rows))) for _ in range(3))
    kind = pa.list_(pa.int32())
    column = pa.chunked_array([pa.array(rows[:cut], kind), pa.array(rows[cut:], kind)])
    got = from_arrow(column.slice(start, max(stop - start, 0)))
    assert rows_of(got) == [row or [] for row in rows[start:stop]]
