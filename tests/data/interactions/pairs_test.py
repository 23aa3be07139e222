import dataclasses
import functools

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from deepsets_jax.data.interactions import field_selection
from deepsets_jax.data.interactions.histories import leave_out, of_events
from deepsets_jax.data.interactions.next_item import HISTORY, NextItemExamples
from deepsets_jax.data.interactions.pairs import PairBatcher
from deepsets_jax.data.tables.batching import Budget, SetDropout
from tests.data.interactions.clicks import (
  ITEMS,
  LARGEST,
  NEVER,
  WITHOUT_FIELDS,
  make_histories,
)

WINDOW, EXAMPLES, UNIFORM = 4, 6, 10
BUDGET = Budget(EXAMPLES, {"taste": 6, "age": 6, HISTORY: 24})


@functools.cache
def prefixes_of(examples="prefixes", seed=0):
  histories = make_histories()
  return NextItemExamples(histories, leave_out(histories)[1], WINDOW, examples, seed)


def make(examples="prefixes", seed=0, **settings):
  settings = (
    dict(num_uniform_negatives=UNIFORM, in_batch=True, tie_item_tower=True) | settings
  )
  return PairBatcher(prefixes_of(examples, seed), BUDGET, **settings)


def shard_of(batcher, examples, epoch=0, step=0, index=0):
  pairs = batcher.batch(epoch, [np.asarray(examples)], step, index)
  return jax.tree.map(lambda x: x[0], pairs)


def histories_of(pairs, tie_item_tower):
  """The item rows of each user's history."""
  lists = pairs.users.modalities[HISTORY].to_lists()
  return [
    (pairs.items.indices[slots] if tie_item_tower else slots).tolist()
    for slots in lists
  ]


def assert_equal(got, want):
  jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("tie_item_tower", [True, False])
@pytest.mark.parametrize("examples", ["prefixes", "users"])
class TestEveryShard:
  @hypothesis.given(
    seed=st.integers(0, 2**16), count=st.integers(0, EXAMPLES), epoch=st.integers(0, 2)
  )
  def test_equals_a_loop_over_users(self, tie_item_tower, examples, seed, count, epoch):
    prefixes = prefixes_of(examples)
    histories = prefixes.histories
    rows = np.random.default_rng(seed).permutation(len(prefixes))[:count]
    pairs = shard_of(
      make(examples, tie_item_tower=tie_item_tower), rows, epoch, step=seed
    )
    users, ends = prefixes.of_epoch(epoch, rows)
    known = histories_of(pairs, tie_item_tower)
    wanted = set()
    for i, (user, end) in enumerate(zip(users, ends, strict=True)):
      begin = max(histories.offsets[user], end - WINDOW)
      assert known[i] == histories.rows[begin:end].tolist()
      assert pairs.items.indices[pairs.positives[i]] == histories.rows[end]
      assert pairs.users.indices[i] == user
      wanted |= {int(histories.rows[end])} | (
        set(known[i]) if tie_item_tower else set()
      )
    negatives = pairs.items.indices[pairs.negatives]
    assert len(set(negatives.tolist())) == UNIFORM and (negatives >= 0).all()
    real = pairs.items.indices[pairs.items.indices >= 0]
    assert set(real.tolist()) == wanted | set(negatives.tolist())
    assert (np.diff(real) > 0).all()  # Each item once.

  @hypothesis.given(seed=st.integers(0, 2**16), count=st.integers(0, EXAMPLES))
  def test_unfilled_slots_are_padding(self, tie_item_tower, examples, seed, count):
    rows = np.random.default_rng(seed).permutation(len(prefixes_of(examples)))[:count]
    pairs = shard_of(make(examples, tie_item_tower=tie_item_tower), rows)
    np.testing.assert_array_equal(pairs.users.weights, np.arange(EXAMPLES) < count)
    assert (pairs.users.indices[count:] == -1).all()
    assert (pairs.positives[count:] == 0).all()
    np.testing.assert_array_equal(pairs.items.weights, pairs.items.indices >= 0)
    padding = pairs.items.indices < 0
    assert (np.diff(padding.astype(int)) >= 0).all()  # Only at the end.
    assert (pairs.log_expected[padding] == 0).all()
    for batch in (pairs.users, pairs.items):
      for ragged in batch.modalities.values():
        assert (ragged.values[ragged.offsets[-1] :] == 0).all()
        assert (ragged.lengths[batch.indices < 0] == 0).all()


def test_items_are_as_their_table_has_them():
  pairs = shard_of(make(), np.arange(40, 46))
  table = prefixes_of().histories.items.select(
    pairs.items.indices[pairs.items.indices >= 0]
  )
  for name, want in table.modalities.items():
    got = pairs.items.modalities[name]
    for a, b in zip(got.to_lists(), want.to_lists(), strict=False):
      np.testing.assert_array_equal(a, b)
    if want.weights is not None:
      np.testing.assert_array_equal(got.weights[: len(want.weights)], want.weights)


def test_shapes_and_types_do_not_depend_on_the_shard():
  batcher = make()
  shards = [shard_of(batcher, np.arange(n) * 7) for n in (0, 1, EXAMPLES)]
  kinds = [jax.tree.map(lambda x: (x.shape, x.dtype.name), s) for s in shards]
  assert kinds[0] == kinds[1] == kinds[2]
  assert shards[0].positives.dtype == shards[0].negatives.dtype == np.int32


@pytest.mark.parametrize("examples", ["prefixes", "users"])
@pytest.mark.parametrize(
  ("in_batch", "num_uniform_negatives"), [(True, 10), (True, 0), (False, 10)]
)
class TestLogExpected:
  def test_equals_a_loop_over_items(self, examples, in_batch, num_uniform_negatives):
    prefixes = prefixes_of(examples)
    pairs = shard_of(
      make(examples, in_batch=in_batch, num_uniform_negatives=num_uniform_negatives),
      [3, 50, 9],
    )
    shares = prefixes.shares()
    wanted = [
      EXAMPLES * in_batch * share + num_uniform_negatives / ITEMS for share in shares
    ]
    least = min(x for x in wanted if x > 0)
    for row, got in zip(pairs.items.indices, pairs.log_expected, strict=True):
      if row >= 0:
        np.testing.assert_allclose(got, np.log(max(wanted[row], least)), 1e-5)

  def test_is_how_often_items_are_candidates(
    self, examples, in_batch, num_uniform_negatives
  ):
    prefixes = prefixes_of(examples)
    batcher = make(
      examples, in_batch=in_batch, num_uniform_negatives=num_uniform_negatives
    )
    rng, draws = np.random.default_rng(0), 1500
    found, expected = np.zeros(ITEMS), np.full(ITEMS, np.nan)
    for step in range(draws):
      rows = rng.permutation(len(prefixes))[:EXAMPLES]
      pairs = shard_of(batcher, rows, epoch=step, step=step)
      positives = pairs.positives[: EXAMPLES * in_batch]
      slots = np.concatenate([positives, pairs.negatives])
      np.add.at(found, pairs.items.indices[slots], 1 / draws)
      real = pairs.items.indices >= 0
      expected[pairs.items.indices[real]] = np.exp(pairs.log_expected[real])
    seen = found > 0
    error = np.abs(found - expected)[seen] / np.sqrt(expected[seen] / draws)
    assert error.max() < 5 and error.mean() < 1.2  # In standard errors.
    np.testing.assert_allclose(
      found.sum(), EXAMPLES * in_batch + num_uniform_negatives, 1e-9
    )
    assert seen.sum() == (ITEMS if num_uniform_negatives else ITEMS - NEVER)


class TestItemsThatDoNotFit:
  def test_the_largest_are_cut_and_nothing_else_changes(self):
    roomy = make()
    slots = roomy.item_budget.slots
    tight = make(item_slots=slots | {"word": 32})
    table, cuts = prefixes_of().histories.items, set()
    lengths = table.lengths("word")
    for step in range(20):
      rows = np.random.default_rng(step).permutation(200)[:EXAMPLES]
      want, got = (shard_of(b, rows, step=step) for b in (roomy, tight))
      kept = got.items.modalities["word"].lengths
      own = np.where(want.items.indices >= 0, lengths[want.items.indices], 0)
      cap = kept.max()
      cuts.add(int(cap))
      np.testing.assert_array_equal(kept, np.minimum(own, cap))
      # Items that are one longer would not fit.
      assert kept.sum() <= 32
      assert cap == own.max() or np.minimum(own, cap + 1).sum() > 32
      lists = [table.modalities["word"].to_lists()[i] for i in want.items.indices]
      for a, b, length in zip(
        got.items.modalities["word"].to_lists(), lists, kept, strict=True
      ):
        np.testing.assert_array_equal(a, b[:length])
      np.testing.assert_array_equal(
        got.items.modalities["picture"].values, want.items.modalities["picture"].values
      )
      assert_equal(
        got.replace(items=got.items.replace(modalities={})),
        want.replace(items=want.items.replace(modalities={})),
      )
    assert min(cuts) < 3 and len(cuts) > 1

  def test_the_proposal_has_room_for_all_where_all_may_come(self):
    batcher = make(num_uniform_negatives=ITEMS)
    pairs = shard_of(batcher, np.arange(EXAMPLES))
    np.testing.assert_array_equal(pairs.items.indices[:ITEMS], np.arange(ITEMS))
    table = prefixes_of().histories.items
    for name in table.modalities:
      got = pairs.items.modalities[name]
      np.testing.assert_array_equal(got.lengths[:ITEMS], table.lengths(name))
    assert pairs.items.modalities["word"].lengths[LARGEST] == 9
    assert pairs.items.modalities["word"].lengths[WITHOUT_FIELDS] == 0

  def test_ids_of_positive_items_are_not_cut(self):
    # Only 200 of 2,000 items have events, and so an id. A shard has more of them than
    # the same number of random items would.
    rng = np.random.default_rng(0)
    clicks = make_histories()
    users = rng.integers(0, 72, 1500)
    items = clicks.items.select(np.arange(2000) % ITEMS)
    seen = np.sort(rng.permutation(2000)[:200])
    histories, _ = of_events(
      clicks.users, items, users, rng.choice(seen, 1500), np.arange(1500), where="log"
    )
    ends = leave_out(histories)[1]
    items = field_selection.with_ids(items, histories.popularity(ends), 1)
    histories = dataclasses.replace(histories, items=items)
    prefixes = NextItemExamples(histories, ends, 4, "prefixes", 0)
    budget = Budget(64, {"taste": 64, "age": 64, HISTORY: 256})
    batcher = PairBatcher(
      prefixes, budget, num_uniform_negatives=32, in_batch=True, tie_item_tower=True
    )
    pairs = shard_of(batcher, np.arange(64) * 17)
    rows = pairs.items.indices[pairs.items.indices >= 0]
    got = pairs.items.modalities[field_selection.ID].lengths[: len(rows)]
    np.testing.assert_array_equal(got, items.lengths_of(field_selection.ID, rows))


class TestRandomness:
  def test_a_shard_is_a_function_of_seed_step_and_index_alone(self):
    dropout = SetDropout(0.3, 0.3, seed=0)
    batcher = make(dropout=dropout)
    rows = [np.arange(6) * (k + 1) for k in range(4)]
    whole = batcher.batch(1, rows, 5, 0)
    again = make(dropout=dropout).batch(1, rows[2:], 5, 2)
    assert_equal(jax.tree.map(lambda x: x[2:], whole), again)

  def test_negatives_differ_by_step_shard_and_seed(self):
    def negatives(seed=0, **position):
      pairs = shard_of(make(seed=seed), np.arange(6), **position)
      return tuple(pairs.items.indices[pairs.negatives].tolist())

    drawn = [negatives(), negatives(step=1), negatives(index=1), negatives(seed=1)]
    assert len(set(drawn)) == 4

  def test_dropout_affects_only_users(self):
    plain, sparse = make(), make(dropout=SetDropout(0.2, 0.4, seed=0))
    left_out = 0
    for step in range(10):
      rows = np.random.default_rng(step).permutation(200)[:EXAMPLES]
      want, got = (shard_of(b, rows, step=step) for b in (plain, sparse))
      for kept, known in zip(
        histories_of(got, True), histories_of(want, True), strict=True
      ):
        rest = iter(known)
        assert all(row in rest for row in kept)  # In order.
        left_out += len(known) - len(kept)
      for name in ("positives", "negatives"):
        a, b = (pairs.items.indices[getattr(pairs, name)] for pairs in (got, want))
        np.testing.assert_array_equal(a, b)
    assert left_out > 0


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (
      dict(num_uniform_negatives=ITEMS + 1),
      f"num_uniform_negatives is {ITEMS + 1}; expected 0 to {ITEMS}",
    ),
    (dict(num_uniform_negatives=-1), "config.retrieval.num_uniform_negatives is -1"),
    (
      dict(num_uniform_negatives=0, in_batch=False),
      "neither in_batch nor uniform negatives",
    ),
  ],
)
def test_impossible_negatives_are_named(settings, message):
  with pytest.raises(ValueError, match=message):
    make(**settings)
