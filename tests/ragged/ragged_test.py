import pkgutil
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax import ragged
from deepsets_jax.ragged import Batch, Ragged, pooling
from tests.sets import BUDGETS, pack, set_lists

# Four lists in twelve slots: one shape to trace.
LENGTHS = st.lists(st.integers(0, 3), min_size=4, max_size=4)
SLOTS = 12


def on_device(lengths, slots=SLOTS):
  """Elements 1, 2, 3, ... in lists of these lengths; the slots after them are zeros."""
  total = sum(lengths)
  values = np.zeros(slots, np.float32)
  values[:total] = np.arange(1, total + 1)
  offsets = ragged.offsets_from_lengths(lengths).astype(np.int32)
  return Ragged(values=jnp.asarray(values), offsets=jnp.asarray(offsets))


def owners(lengths, slots):
  """The example of each slot, by a loop; the number of examples on padding."""
  owner = [row for row, length in enumerate(lengths) for _ in range(length)]
  return owner + [len(lengths)] * (slots - len(owner))


@pytest.mark.parametrize("lengths", [[], [0], [3, 0, 2], [True, False, True]])
def test_offsets_from_lengths_are_running_totals(lengths):
  want = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
  got = ragged.offsets_from_lengths(np.array(lengths))
  assert got.tolist() == want
  assert got.dtype == np.int64


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
    with pytest.raises(ValueError, match="example 1: negative length -1"):
      ragged.from_lengths(np.arange(2), np.array([3, -1]))


def make_batch(value):
  sets = Ragged(np.full((4, 2), value), np.array([0, 1, 3], np.int32))
  words = Ragged(np.full(5, value), np.array([0, 2, 2], np.int32), np.ones(5))
  return Batch({"image": sets, "word": words}, np.zeros(2), np.ones(2), np.arange(2))


def test_a_batch_without_a_modality_has_no_entry_for_it():
  batch = make_batch(1.0)
  left = ragged.drop_modalities(batch, ["word", "never declared"])
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
  got = ragged.from_vectors(vectors, jnp.array([True, False, True]))
  assert [x.tolist() for x in got.to_lists()] == [[[0, 1]], [], [[4, 5]]]
  assert got.values[2].tolist() == [0, 0]


class TestOffsets:
  """Bad offsets are refused outside of jit, and found inside jit in debug mode."""

  BAD = (
    ([1, 2, 3], "offsets begin at 1; they must begin at 0"),
    ([0, 3, 2], "offsets decrease from 3 to 2 at example 1"),
    ([0, 2, 5], "offsets end at 5, and there are 4 slots"),
    ([], "one more than there are examples"),
  )

  @pytest.mark.parametrize(("offsets", "message"), BAD)
  @pytest.mark.parametrize("array", [np.array, jnp.array])
  def test_are_refused_on_the_host(self, offsets, message, array):
    with pytest.raises(ValueError, match=message):
      Ragged(np.zeros((4, 2)), array(offsets, np.int32))

  @pytest.mark.parametrize(("offsets", "message"), BAD[:3])
  def test_are_found_inside_jit(self, offsets, message):
    @jax.jit
    def pooled(values, offsets):
      return pooling.pool("max", Ragged(values, offsets)).sum()

    bad = jnp.ones((4, 2)), jnp.array(offsets)
    pooled(*bad)  # The function is compiled without a check.
    with ragged.debug_offsets():
      assert pooled(jnp.ones((4, 2)), jnp.array([0, 1, 4])) == 2 * 2
      for function in (pooled, jax.jit(jax.grad(pooled))):
        with pytest.raises(Exception, match=message):
          jax.block_until_ready(function(*bad))
          jax.effects_barrier()
    pooled(*bad)

  def test_cost_nothing_outside_of_debug_mode(self):
    def pooled(values, offsets):
      return pooling.pool("sum", Ragged(values, offsets))

    # An effect would take the call from the fast path of jit.
    assert not jax.make_jaxpr(pooled)(jnp.ones((4, 2)), jnp.array([0, 1, 4])).effects

  def test_a_copy_with_other_offsets_is_checked(self):
    elements = Ragged(np.zeros(4), np.array([0, 4]))
    with pytest.raises(ValueError, match="offsets end at 5"):
      elements.replace(offsets=np.array([0, 5]))
    with pytest.raises(TypeError, match="no attribute 'lengths'"):
      elements.replace(lengths=3)

  def test_stacked_shards_are_checked_shard_by_shard(self):
    Ragged(np.zeros((2, 4, 3)), np.array([[0, 1], [0, 4]]))
    with pytest.raises(ValueError, match="offsets end at 5, and there are 4 slots"):
      Ragged(np.zeros((2, 4, 3)), np.array([[0, 1], [0, 5]]))


class TestStructure:
  """Every change of structure equals the same change of lists."""

  LISTS = ([1.0, 2, 3], [], [4.0], [5.0, 6, 7, 8, 9])

  def elements(self, slots=12):
    values = np.concatenate(self.LISTS)
    padded = np.zeros(slots, np.float32)
    padded[:9] = values
    offsets = jnp.array([0, 3, 3, 4, 9], jnp.int32)
    return Ragged(jnp.asarray(padded), offsets, weights=jnp.asarray(padded) * 10)

  def check(self, got, lists, slots=None):
    assert rows_of(got) == [list(x) for x in lists]
    assert slots is None or got.num_slots == slots
    assert not np.any(got.values[int(got.offsets[-1]) :])
    if got.weights is not None:
      np.testing.assert_array_equal(got.weights, got.values * 10)

  @pytest.mark.parametrize("seed", range(4))
  def test_from_an_unsorted_index(self, seed):
    rng = np.random.default_rng(seed)
    index = rng.integers(-1, 6, 20)
    values = rng.normal(size=(20, 2)).astype(np.float32)
    got = jax.jit(Ragged.from_index, static_argnums=2)(values, index, 5)
    for example, rows in enumerate(got.to_lists()):
      np.testing.assert_array_equal(rows, values[index == example])
    assert not np.any(got.values[int(got.offsets[-1]) :])

  def test_an_index_of_another_length_is_refused(self):
    with pytest.raises(ValueError, match=r"index of shape \(3,\) for 4 elements"):
      Ragged.from_index(np.zeros(4), np.zeros(3, np.int32), 2)

  @pytest.mark.parametrize("length", [0, 2, 5, 7])
  def test_to_padded_and_back(self, length):
    rows = self.elements().to_padded(length, fill=-1)
    cut = [x[:length] for x in self.LISTS]
    want = [list(x) + [-1] * (length - len(x)) for x in cut]
    assert rows.tolist() == want
    lengths = self.elements().lengths
    self.check(Ragged.from_padded(rows, lengths), cut, 4 * length)
    if length > 2:  # Nine elements at most.
      self.check(Ragged.from_padded(rows, lengths, 9), cut, 9)

  def test_a_function_of_elements_leaves_padding_zero(self):
    got = self.elements().map_elements(lambda x: x + 1)
    assert rows_of(got) == [[y + 1 for y in x] for x in self.LISTS]
    assert not np.any(got.values[9:])
    with pytest.raises(ValueError, match="must keep the first axis, the slots"):
      self.elements().map_elements(lambda x: x[:3])

  @pytest.mark.parametrize(
    "bounds",
    [(None, None), (1, None), (None, 2), (-2, None), (None, -1), (1, 3), (-3, -1)],
  )
  def test_slices(self, bounds):
    got = jax.jit(ragged.slice_elements, static_argnums=(1, 2))(
      self.elements(), *bounds
    )
    self.check(got, [x[slice(*bounds)] for x in self.LISTS], 12)

  def test_compress_into_fewer_slots(self):
    keep = jnp.arange(12) % 2 == 0
    got = ragged.compress(self.elements(), keep, 4)
    self.check(got, [[1, 3], [], [], [5, 7]], 4)

  def test_take_examples(self):
    got = jax.jit(ragged.take, static_argnums=2)(
      self.elements(), jnp.array([3, 4, 0, 3]), 16
    )
    lists = [self.LISTS[3], [], self.LISTS[0], self.LISTS[3]]
    self.check(got, lists, 16)
    self.check(ragged.take(self.elements(), jnp.array([], jnp.int32), 2), [], 2)

  def test_concatenate_examples(self):
    other = ragged.take(self.elements(), jnp.array([2, 1, 0]), 5)
    got = jax.jit(ragged.concatenate_examples)([self.elements(), other])
    lists = [*self.LISTS, *(self.LISTS[i] for i in (2, 1, 0))]
    self.check(got, lists, 17)
    bare = ragged.concatenate_examples([self.elements().replace(weights=None), other])
    assert bare.weights is None

  def test_a_sample_is_of_each_example_and_any_equally_often(self):
    keys = jax.random.split(jax.random.key(0), 600)
    draw = jax.jit(jax.vmap(lambda key: ragged.sample(key, self.elements(), 2).values))
    drawn = np.asarray(draw(keys))
    assert drawn.shape == (600, 8)
    for count, value in ((2 / 3, 1), (2 / 3, 3), (1, 4), (2 / 5, 5), (2 / 5, 9)):
      assert abs((drawn == value).sum() / 600 - count) < 0.08
    one = ragged.sample(keys[0], self.elements(), 2)
    assert one.lengths.tolist() == [2, 0, 1, 2]
    assert all(sorted(x) == x for x in rows_of(one))

  def test_unstack_undoes_stack(self):
    shards = [jax.tree.map(np.asarray, self.elements()) for _ in range(3)]
    shards[1] = shards[1].replace(values=shards[1].values * 2)
    for got, want in zip(ragged.unstack(ragged.stack(shards)), shards, strict=True):
      np.testing.assert_array_equal(got.values, want.values)
      np.testing.assert_array_equal(got.offsets, want.offsets)


def rows_of(got):
  return [elements.tolist() for elements in got.to_lists()]


def test_gradients_pass_through_changes_of_structure():
  elements = on_device([3, 0, 2])

  def total(values):
    parts = elements.replace(values=values)
    shorter = ragged.slice_elements(parts, 0, 2)
    twice = ragged.take(shorter, jnp.array([0, 0, 2]), 8)
    return (twice.to_padded(2) * jnp.array([[1.0, 10.0]], jnp.float32)).sum()

  gradient = jax.grad(total)(elements.values)
  assert gradient.tolist() == [2, 20, 0, 1, 10] + [0] * 7


def test_nothing_but_jax_and_numpy_is_imported():
  others = ("flax", "grain", "matplotlib", "optax", "orbax", "pyarrow", "sklearn")
  found = pkgutil.walk_packages(ragged.__path__, "deepsets_jax.ragged.")
  every = ", ".join(["deepsets_jax.ragged", *(module.name for module in found)])
  assert "deepsets_jax.ragged.attention.op" in every
  code = f"import sys, {every}; print(*sys.modules)"
  result = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  modules = result.stdout.split()
  assert "jax" in modules
  assert not set(others).intersection(modules)
  own = {name.split(".")[1] for name in modules if name.startswith("deepsets_jax.")}
  assert own == {"ragged"}
