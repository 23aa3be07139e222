import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax import ragged
from deepsets_jax.ragged import Batch, Ragged
from tests.sets import BUDGETS, pack, set_lists

# Four lists in twelve slots: one shape to trace.
LENGTHS = st.lists(st.integers(0, 3), min_size=4, max_size=4)
SLOTS = 12


def on_device(lengths, slots=SLOTS):
  """Elements 1, 2, 3, ... in lists of these lengths; the slots after them are zeros."""
  total = sum(lengths)
  values = np.zeros(slots, np.float32)
  values[:total] = np.arange(1, total + 1)
  offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
  return Ragged(values=jnp.asarray(values), offsets=jnp.asarray(offsets))


def owners(lengths, slots):
  """The example of each slot, by a loop; the number of examples on padding."""
  owner = [row for row, length in enumerate(lengths) for _ in range(length)]
  return owner + [len(lengths)] * (slots - len(owner))


class TestDerivedFields:
  @hypothesis.given(lengths=LENGTHS)
  @hypothesis.example(lengths=[0, 3, 2, 0])  # Empty at both ends.
  @hypothesis.example(lengths=[0, 0, 0, 0])
  @hypothesis.example(lengths=[3, 3, 3, 3])  # No padding.
  def test_agree_with_a_loop(self, lengths):
    sets = on_device(lengths)
    owner = owners(lengths, SLOTS)
    assert sets.num_examples == 4
    assert sets.num_slots == SLOTS
    assert sets.lengths.tolist() == lengths
    assert sets.segment_ids.tolist() == owner
    assert sets.segment_ids.dtype == jnp.int32
    assert sets.mask.tolist() == [row < 4 for row in owner]
    per_example = np.arange(8, dtype=np.float32).reshape(4, 2) + 1
    want = [[-1, -1] if row == 4 else per_example[row].tolist() for row in owner]
    assert sets.to_elements(jnp.asarray(per_example), fill=-1).tolist() == want

  def test_no_slots_at_all(self):
    sets = on_device([0, 0], slots=0)
    assert sets.segment_ids.shape == (0,)
    assert sets.mask.shape == (0,)
    assert sets.to_elements(jnp.ones((2, 3))).shape == (0, 3)
    assert sets.lengths.tolist() == [0, 0]

  def test_to_elements_keeps_the_type_and_fills_with_zero(self):
    sets = on_device([1, 0], slots=3)
    got = sets.to_elements(jnp.array([5, 6], jnp.int32))
    assert got.dtype == jnp.int32
    assert got.tolist() == [5, 0, 0]

  def test_gradient_of_to_elements_counts_an_examples_elements(self):
    sets = on_device([2, 0, 3], slots=8)
    gradient = jax.grad(lambda x: sets.to_elements(x).sum())(jnp.ones(3))
    assert gradient.tolist() == [2, 0, 3]

  @hypothesis.given(lengths=LENGTHS)
  def test_to_lists_leaves_padding_out(self, lengths):
    lists = on_device(lengths).to_lists()
    assert [len(elements) for elements in lists] == lengths
    assert np.concatenate(lists).tolist() == list(range(1, sum(lengths) + 1))


class TestFromLists:
  def test_of_token_ids(self):
    got = ragged.from_lists([[], [4, 5], [], [6], []], dtype=np.int32)
    assert got.values.dtype == np.int32
    assert got.values.tolist() == [4, 5, 6]
    assert got.offsets.tolist() == [0, 0, 2, 2, 3, 3]
    assert got.offsets.dtype == np.int64

  def test_of_vectors_some_absent(self):
    lists = [np.zeros((0, 2)), [[1, 2], [3, 4]], []]
    got = ragged.from_lists(lists, dtype=np.float16, feature_shape=(2,))
    assert got.values.dtype == np.float16
    assert got.values.tolist() == [[1, 2], [3, 4]]
    assert got.offsets.tolist() == [0, 0, 2, 2]

  @pytest.mark.parametrize("lists", [[], [[], []]])
  def test_of_nothing_has_the_elements_shape(self, lists):
    got = ragged.from_lists(lists, dtype=np.float32, feature_shape=(3,))
    assert got.values.shape == (0, 3)
    assert got.offsets.tolist() == [0] * (len(lists) + 1)

  def test_names_the_example_of_another_shape(self):
    with pytest.raises(ValueError, match=r"example 1: .*\(3,\), expected \(2,\)"):
      ragged.from_lists([[[1, 2]], [[1, 2, 3]]], dtype=np.float32, feature_shape=(2,))
    with pytest.raises(ValueError, match="example 0"):
      ragged.from_lists([7], dtype=np.int32)


class TestFromLengths:
  def test_offsets_are_running_sums(self):
    got = ragged.from_lengths(np.arange(5), np.array([0, 3, 2], np.int32))
    assert got.offsets.tolist() == [0, 0, 3, 5]
    assert got.offsets.dtype == np.int64
    assert [elements.tolist() for elements in got.to_lists()] == [[], [0, 1, 2], [3, 4]]

  def test_refuses_lengths_that_do_not_add_up(self):
    with pytest.raises(ValueError, match="add up to 4, and there are 5 elements"):
      ragged.from_lengths(np.arange(5), np.array([3, 1]))

  def test_refuses_a_negative_length(self):
    with pytest.raises(ValueError, match="example 1: a length of -1"):
      ragged.from_lengths(np.arange(2), np.array([3, -1]))


def make_batch(value):
  sets = Ragged(np.full((4, 2), value), np.array([0, 1, 3], np.int32))
  words = Ragged(np.full(5, value), np.array([0, 2, 2], np.int32), np.ones(5))
  return Batch({"image": sets, "word": words}, np.zeros(2), np.ones(2), np.arange(2))


def test_a_batch_without_a_modality_has_no_entry_for_it():
  batch = make_batch(1.0)
  left = ragged.without(batch, ["word", "never declared"])
  assert list(left.modalities) == ["image"]
  assert left.modalities["image"] is batch.modalities["image"]
  assert list(batch.modalities) == ["image", "word"]


def test_stacked_shards_have_a_leading_axis():
  batch = ragged.stack([make_batch(1.0), make_batch(2.0), make_batch(3.0)])
  image = batch.modalities["image"]
  assert image.values.shape == (3, 4, 2)
  assert image.values[:, 0, 0].tolist() == [1, 2, 3]
  assert image.num_examples == 2
  assert image.weights is None
  assert batch.modalities["word"].weights.shape == (3, 5)


@jax.jit
def concatenated(parts):
  return ragged.concatenate(parts)


@hypothesis.given(lists=st.lists(set_lists(), min_size=2, max_size=2))
def test_concatenation_is_that_of_each_examples_lists(lists):
  parts = [pack(sets, budget) for sets, budget in zip(lists, BUDGETS, strict=True)]
  merged, slots = concatenated(parts)
  for index, got in enumerate(merged.to_lists()):
    want = np.concatenate([sets[index] for sets in lists])
    np.testing.assert_array_equal(got, want)
  assert not np.any(merged.values[merged.offsets[-1] :])
  for part, slot in zip(parts, slots, strict=True):
    back = jnp.take(merged.values, slot, axis=0, mode="fill", fill_value=0)
    np.testing.assert_array_equal(back, part.values)
    assert part.positions.tolist()[: part.offsets[-1]] == [
      place for length in part.lengths for place in range(length)
    ]


def test_vectors_of_the_examples_that_have_one():
  vectors = jnp.arange(6.0).reshape(3, 2)
  got = ragged.of_vectors(vectors, jnp.array([True, False, True]))
  assert [x.tolist() for x in got.to_lists()] == [[[0, 1]], [], [[4, 5]]]
  assert got.values[2].tolist() == [0, 0]
