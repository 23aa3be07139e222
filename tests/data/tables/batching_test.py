import ast
import inspect

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from deepsets_jax.data.tables import batching, loader
from deepsets_jax.data.tables.batching import (
  Batcher,
  Budget,
  EpochPlan,
  SetDropout,
  lengths_of,
)
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.ragged import from_lists

SCHEMA = Schema(
  {"image": Modality("vectors", 2), "word": Modality("tokens", 1000, weighted=True)},
  Target("binary", 1),
)


def make_table(lengths):
  """Examples of the given (images, words), whose values name example and position."""
  images = [
    [[row, i + 0.5] for i in range(image)] for row, (image, _) in enumerate(lengths)
  ]
  words = [[10 * row + i for i in range(word)] for row, (_, word) in enumerate(lengths)]
  word = from_lists(words, dtype=np.int32)
  word = word.replace(weights=word.values.astype(np.float32) / 7)
  return Table(
    schema=SCHEMA,
    modalities={
      "image": from_lists(images, dtype=np.float16, feature_shape=(2,)),
      "word": word,
    },
    targets=(np.arange(len(lengths)) % 2).astype(np.float32),
    ids=np.array([f"example {i}" for i in range(len(lengths))]),
  )


LENGTHS = st.lists(
  st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=30
)
BUDGET = Budget(4, {"image": 6, "word": 9})


@hypothesis.given(lengths=LENGTHS, seed=st.integers(0, 9))
def test_plan_agrees_with_a_loop(lengths, seed):
  table = make_table(lengths)
  order = np.random.default_rng(seed).permutation(len(table))
  got = batching.plan({k: table.lengths(k) for k in table.modalities}, order, BUDGET)
  want, room = [0], None
  for position, row in enumerate(order):
    if room is None:
      room = [4, 6, 9]
    need = [1, *lengths[row]]
    if any(n > r for n, r in zip(need, room, strict=True)):
      want.append(position)
      room = [4, 6, 9]
    room = [r - n for n, r in zip(need, room, strict=True)]
  assert got.tolist() == [*want, len(order)]


def test_more_slots_than_offsets_can_count_are_refused():
  with pytest.raises(ValueError, match=r"slots of 'image' in one shard: offsets are"):
    Budget(4, {"image": 2**31})


def test_plan_refuses_an_example_over_budget():
  table = make_table([(1, 1), (7, 0)])
  lengths = {k: table.lengths(k) for k in table.modalities}
  with pytest.raises(ValueError, match="row 1 is over the budget"):
    batching.plan(lengths, np.arange(2), BUDGET)


@hypothesis.given(lengths=LENGTHS, shards=st.sampled_from([1, 3]))
def test_evaluation_holds_every_element_of_every_example_once(lengths, shards):
  table = make_table(lengths)
  seen = []
  for batch in loader.evaluation_batches(table, BUDGET, shards):
    assert batch.indices.shape == (shards, 4)
    for shard in range(shards):
      image, word = batch.modalities["image"], batch.modalities["word"]
      np.testing.assert_array_equal(batch.weights[shard], batch.indices[shard] >= 0)
      for ragged in (image, word):
        end = ragged.offsets[shard, -1]
        assert not np.any(ragged.values[shard, end:])  # Padding is zeros.
      for i, row in enumerate(batch.indices[shard]):
        if row < 0:
          assert image.offsets[shard, i] == image.offsets[shard, i + 1]
          continue
        seen.append(row)
        span = slice(image.offsets[shard, i], image.offsets[shard, i + 1])
        want = [[row, k + 0.5] for k in range(lengths[row][0])]
        assert image.values[shard, span].tolist() == want
        span = slice(word.offsets[shard, i], word.offsets[shard, i + 1])
        want = [10 * row + k for k in range(lengths[row][1])]
        assert word.values[shard, span].tolist() == want
        np.testing.assert_allclose(word.weights[shard, span], np.array(want) / 7, 1e-6)
        assert batch.targets[shard, i] == row % 2
  assert sorted(seen) == list(range(len(lengths)))


def test_types_on_disk_are_types_in_a_batch():
  batch = Batcher(make_table([(1, 2)]), BUDGET).batch([np.array([0])])
  assert batch.modalities["image"].values.dtype == np.float16
  assert batch.modalities["word"].values.dtype == np.int32
  assert batch.modalities["word"].offsets.dtype == np.int32


@hypothesis.given(
  lengths=LENGTHS, seed=st.integers(0, 9), shards=st.sampled_from([1, 2])
)
def test_an_epoch_takes_no_example_twice_and_epochs_differ(lengths, seed, shards):
  table = make_table(lengths)
  plan = EpochPlan(lengths_of(table), len(table), BUDGET, shards, seed)
  rows = np.concatenate(
    [r for s in range(plan.steps_per_epoch()) for r in plan.rows(s)]
  )
  assert len(set(rows.tolist())) == len(rows)
  again = EpochPlan(lengths_of(table), len(table), BUDGET, shards, seed)
  for step in (7, 3, 0):  # In any order, as after resuming.
    for a, b in zip(plan.rows(step), again.rows(step), strict=True):
      np.testing.assert_array_equal(a, b)


def test_each_epoch_has_its_own_order_by_seed():
  table = make_table([(1, 1)] * 24)
  plans = [EpochPlan(lengths_of(table), len(table), BUDGET, 1, seed) for seed in (0, 1)]
  epochs = [
    np.concatenate([plan.rows(6 * epoch + s)[0] for s in range(6)]).tolist()
    for plan in plans
    for epoch in (0, 1)
  ]
  assert len({tuple(epoch) for epoch in epochs}) == 4
  assert all(sorted(epoch) == list(range(24)) for epoch in epochs)


def test_iterator_resumes_where_it_was():
  table = make_table([(i % 3, i % 4) for i in range(50)])
  arguments = dict(seed=3, total_steps=40, dropout=SetDropout(0.3, 0.3, 3))

  def batches():
    return loader.train_batches(table, BUDGET, 2, **arguments)

  first = batches()
  for _ in range(17):
    next(first)
  second = batches()
  second.set_state(first.get_state())
  for a, b in zip(first, second, strict=True):
    np.testing.assert_array_equal(a.indices, b.indices)
    np.testing.assert_array_equal(
      a.modalities["word"].values, b.modalities["word"].values
    )


def test_processes_share_the_shards_of_a_batch():
  owned = [list(range(8))[loader.own_shards(8, i, 4)] for i in range(4)]
  assert owned == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_shards_of_a_process_are_those_of_the_whole_batch():
  table = make_table([(3, 5)] * 16)
  batcher = Batcher(table, BUDGET, SetDropout(0.4, 0.4, 0))
  rows = EpochPlan(lengths_of(table), len(table), BUDGET, 4, 0).rows(0)
  whole = batcher.batch(rows, step=0)
  for index in range(2):
    own = loader.own_shards(4, index, 2)
    part = batcher.batch(rows[own], step=0, first_shard=own.start)
    for name in ("image", "word"):
      np.testing.assert_array_equal(
        part.modalities[name].values, whole.modalities[name].values[own]
      )


class TestAbsence:
  def batch(self, modality_rate, element_rate, n=2000):
    table = make_table([(2, 4)] * n)
    budget = Budget(n, {"image": 2 * n, "word": 4 * n})
    absence = SetDropout(modality_rate, element_rate, 0)
    return Batcher(table, budget, absence).batch([np.arange(n)])

  def test_rates_are_those_asked_for(self):
    batch = self.batch(0.3, 0.0)
    gone = {k: (np.diff(v.offsets[0]) == 0) for k, v in batch.modalities.items()}
    # Both would be dropped with probability .09, but then one of them stays.
    for share in (gone["image"].mean(), gone["word"].mean()):
      np.testing.assert_allclose(share, 0.3 - 0.09 / 2, atol=0.03)
    assert not np.any(gone["image"] & gone["word"])
    batch = self.batch(0.0, 0.25)
    for name, size in (("image", 2), ("word", 4)):
      kept = batch.modalities[name].offsets[0, -1] / (2000 * size)
      np.testing.assert_allclose(kept, 0.75, atol=0.03)

  def test_kept_elements_stay_in_order(self):
    batch = self.batch(0.3, 0.3, n=50)
    word = batch.modalities["word"]
    for i, row in enumerate(batch.indices[0]):
      values = word.values[0, word.offsets[0, i] : word.offsets[0, i + 1]]
      assert set(values.tolist()) <= {10 * row + k for k in range(4)}
      weights = word.weights[0, word.offsets[0, i] : word.offsets[0, i + 1]]
      np.testing.assert_allclose(weights, values / 7, 1e-6)

  @pytest.mark.parametrize("rate", [-0.1, 1.0])
  def test_rates_out_of_range_are_refused(self, rate):
    with pytest.raises(ValueError, match="modality_rate"):
      SetDropout(rate, 0.0, 0)


def test_batching_is_numpy_only():
  names = {
    node.module if isinstance(node, ast.ImportFrom) else alias.name
    for node in ast.walk(ast.parse(inspect.getsource(batching)))
    if isinstance(node, ast.Import | ast.ImportFrom)
    for alias in node.names
  }
  assert not any(name.split(".")[0] == "jax" for name in names)


@pytest.mark.slow
def test_input_is_fast_enough():
  from benchmarks import input as benchmark

  data = benchmark.table()
  rates = [benchmark.examples_per_second(data) for _ in range(3)]
  assert np.median(rates) >= 300_000, rates
