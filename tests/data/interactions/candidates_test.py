import dataclasses
import functools

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from deepsets_jax.data.interactions import distinct
from deepsets_jax.data.interactions.candidates import ListBatcher
from deepsets_jax.data.interactions.histories import leave_out
from deepsets_jax.data.interactions.lists import (
  CANDIDATES,
  ClickLists,
  RatingLists,
  last_part,
)
from deepsets_jax.data.interactions.next_item import HISTORY
from deepsets_jax.data.tables.batching import Budget, EpochPlan, SetDropout
from tests.data.interactions.clicks import ITEMS, SHORT
from tests.data.interactions.rated import make_histories

WINDOW, EXAMPLES, NEGATIVES, SIZE = 4, 6, 7, 3
BUDGET = Budget(EXAMPLES, {"taste": 6, "age": 6, HISTORY: 24, CANDIDATES: 48})


@functools.cache
def ratings(seed=0):
  histories = make_histories()
  return RatingLists(histories, leave_out(histories)[1], WINDOW, SIZE, seed)


@functools.cache
def clicks(seed=0, negatives=NEGATIVES):
  histories = make_histories()
  ends = leave_out(histories)[1]
  return ClickLists(histories, ends, WINDOW, "prefixes", seed, negatives)


SOURCES = {"ratings": ratings, "clicks": clicks}


def rng_of(seed=0):
  return np.random.default_rng(seed)


def shard_of(batcher, lists, step=0, index=0):
  found = batcher.batch(0, [np.asarray(lists)], step, index)
  return jax.tree.map(lambda x: x[0], found)


def rows_of(shard):
  """The rows of the items of each user's list."""
  return [shard.items.indices[s].tolist() for s in shard.candidates.to_lists()]


def labels_of(shard):
  offsets = shard.candidates.offsets
  return [x.tolist() for x in np.split(shard.labels[: offsets[-1]], offsets[1:-1])]


class TestRatingLists:
  def test_each_training_event_is_in_one_list_and_lists_follow_each_other(self):
    source = ratings()
    histories, ends = source.histories, source.train_ends
    users, begins = source.of_epoch(0, np.arange(len(source)))
    rows, labels = source.candidates(users, begins, rng_of())
    want = []
    for user, (begin, end) in enumerate(zip(histories.offsets[:-1], ends, strict=True)):
      want += [(user, at, min(at + SIZE, end)) for at in range(begin, end, SIZE)]
    assert [(u, b) for u, b, _ in want] == [*zip(users, begins, strict=True)]
    for got, (_, begin, end) in zip(rows.to_lists(), want, strict=True):
      np.testing.assert_array_equal(got, histories.rows[begin:end])
    wanted = np.concatenate([histories.ratings[b:e] for _, b, e in want]) - 1
    np.testing.assert_array_equal(labels, wanted)
    assert source.highest == 4 and labels.min() == 0
    assert len(rows.values) == (ends - histories.offsets[:-1]).sum()
    assert {5} == set(range(72)) - set(users.tolist())  # No events, see SHORT.

  def test_only_events_before_a_list_are_known(self):
    source = ratings()
    histories = source.histories
    users, begins = source.of_epoch(0, np.arange(len(source)))
    table = source.users_before(users, begins).validate("here")
    history = table.modalities[HISTORY]
    trained = [
      histories.ratings[i]
      for user in range(72)
      for i in range(histories.offsets[user], source.train_ends[user])
    ]
    mean, deviation = np.mean(trained), np.std(trained)
    for i, (user, begin) in enumerate(zip(users, begins, strict=True)):
      first = max(histories.offsets[user], begin - WINDOW)
      np.testing.assert_array_equal(history.to_lists()[i], histories.rows[first:begin])
      own = slice(*history.offsets[i : i + 2])
      wanted = 1 + (histories.ratings[first:begin] - mean) / deviation
      np.testing.assert_allclose(history.weights[own], wanted, 1e-5, 1e-6)
    np.testing.assert_allclose(source.liked, mean - 1, 1e-6)

  def test_events_without_ratings_are_refused(self):
    histories = dataclasses.replace(make_histories(), ratings=None)
    with pytest.raises(ValueError, match="lists is 'ratings', and events have none"):
      RatingLists(histories, histories.offsets[1:], WINDOW, SIZE, 0)


class TestClickLists:
  @hypothesis.given(seed=st.integers(0, 2**16))
  def test_the_positive_is_first_and_negatives_are_unseen(self, seed):
    source = clicks()
    histories, ends = source.histories, source.train_ends
    lists = rng_of(seed).permutation(len(source))[:10]
    users, events = source.of_epoch(0, lists)
    rows, labels = source.candidates(users, events, rng_of(seed))
    for user, event, got in zip(users, events, rows.to_lists(), strict=True):
      seen = histories.rows[histories.offsets[user] : ends[user]]
      assert got[0] == histories.rows[event]
      assert len(set(got.tolist())) == len(got) == 1 + NEGATIVES
      assert not set(got[1:].tolist()) & set(seen.tolist())
    assert labels.reshape(10, -1)[:, 0].tolist() == [1] * 10
    assert labels.sum() == 10

  def test_negatives_are_uniform_among_the_items_never_seen(self):
    source, draws = clicks(), 3000
    users, events = source.of_epoch(0, np.full(draws, 20))
    rows = source.candidates(users, events, rng_of())[0].values.reshape(draws, -1)
    found = np.bincount(rows[:, 1:].ravel(), minlength=ITEMS)
    histories = source.histories
    end = source.train_ends[users[0]]
    seen = histories.rows[histories.offsets[users[0]] : end]
    free = np.setdiff1d(np.arange(ITEMS), seen)
    assert (found[seen] == 0).all()
    expected = draws * NEGATIVES / len(free)
    assert np.abs(found[free] - expected).max() < 5 * np.sqrt(expected)

  def test_a_user_with_nearly_all_items_has_fewer_negatives(self):
    source = clicks(negatives=ITEMS)
    histories = source.histories
    users, events = source.of_epoch(0, np.array([0, 30]))
    rows, labels = source.candidates(users, events, rng_of())
    for user, got in zip(users, rows.to_lists(), strict=True):
      end = source.train_ends[user]
      seen = set(histories.rows[histories.offsets[user] : end].tolist())
      assert set(got[1:].tolist()) == set(range(ITEMS)) - seen
    assert labels.sum() == 2


@pytest.mark.parametrize("name", SOURCES)
class TestEverySource:
  def test_lengths_are_those_of_its_users_and_lists(self, name):
    source = SOURCES[name]()
    users, ends = source.of_epoch(0, np.arange(len(source)))
    table = source.users_before(users, ends)
    lengths = source.lengths(0)
    for modality in table.modalities:
      np.testing.assert_array_equal(lengths[modality], table.lengths(modality))
    rows = source.candidates(users, ends, rng_of())[0]
    np.testing.assert_array_equal(lengths[CANDIDATES], rows.lengths)
    assert table.schema == source.schema()

  def test_shares_are_how_often_items_are_candidates(self, name):
    source = SOURCES[name]()
    shares = source.shares()
    np.testing.assert_allclose(shares.sum(), 1, 1e-9)
    epochs = 30 if name == "clicks" else 1
    found = np.zeros(ITEMS)
    for epoch in range(epochs):
      users, ends = source.of_epoch(epoch, np.arange(len(source)))
      rows = source.candidates(users, ends, rng_of(epoch))[0]
      found += np.bincount(rows.values, minlength=ITEMS)
    # Negatives exclude the user's own items, so shares are slightly below uniform.
    tolerance = 0.003 if name == "clicks" else 1e-12
    np.testing.assert_allclose(found / found.sum(), shares, atol=tolerance)


@pytest.mark.parametrize("tie_item_tower", [True, False])
@pytest.mark.parametrize("name", SOURCES)
class TestEveryShard:
  @hypothesis.given(seed=st.integers(0, 2**16), count=st.integers(0, EXAMPLES))
  def test_equals_its_lists(self, name, tie_item_tower, seed, count):
    source = SOURCES[name]()
    lists = rng_of(seed).permutation(len(source))[:count]
    shard = shard_of(
      ListBatcher(source, BUDGET, tie_item_tower=tie_item_tower), lists, seed
    )
    users, ends = source.of_epoch(0, lists)
    rng = np.random.default_rng((source.seed, seed, 0, 3))
    rows, labels = source.candidates(users, ends, rng)
    padding = [[]] * (EXAMPLES - count)
    assert rows_of(shard) == [x.tolist() for x in rows.to_lists()] + padding
    np.testing.assert_array_equal(shard.labels[: len(labels)], labels)
    np.testing.assert_array_equal(shard.users.indices[:count], users)
    np.testing.assert_array_equal(shard.users.weights, np.arange(EXAMPLES) < count)
    known = source.users_before(users, ends).modalities[HISTORY]
    history = shard.users.modalities[HISTORY]
    got = [shard.items.indices[x] if tie_item_tower else x for x in history.to_lists()]
    for a, b in zip(got[:count], known.to_lists(), strict=True):
      np.testing.assert_array_equal(a, b)
    real = shard.items.indices[shard.items.indices >= 0]
    assert (np.diff(real) > 0).all()  # Each item once.
    wanted = [rows.values, known.values] if tie_item_tower else [rows.values]
    assert set(real.tolist()) == set(np.concatenate(wanted).tolist())

  def test_unfilled_slots_are_padding(self, name, tie_item_tower):
    shard = shard_of(
      ListBatcher(SOURCES[name](), BUDGET, tie_item_tower=tie_item_tower), [3]
    )
    end = shard.candidates.offsets[-1]
    assert (shard.candidates.offsets[1:] == end).all() and end > 0
    assert (shard.candidates.values[end:] == 0).all()
    assert (shard.labels[end:] == 0).all()
    assert (shard.users.indices[1:] == -1).all()

  def test_shapes_and_types_do_not_depend_on_the_shard(self, name, tie_item_tower):
    batcher = ListBatcher(SOURCES[name](), BUDGET, tie_item_tower=tie_item_tower)
    shards = [shard_of(batcher, np.arange(n) * 7) for n in (0, 1, EXAMPLES)]
    kinds = [jax.tree.map(lambda x: (x.shape, x.dtype.name), s) for s in shards]
    assert kinds[0] == kinds[1] == kinds[2]
    assert shards[0].candidates.values.dtype == np.int32
    assert shards[0].labels.dtype == np.float32

  def test_a_shard_is_a_function_of_seed_step_and_index_alone(
    self, name, tie_item_tower
  ):
    source, dropout = SOURCES[name](), SetDropout(0.3, 0.3, seed=0)
    make = functools.partial(ListBatcher, source, BUDGET, tie_item_tower=tie_item_tower)
    rows = [np.arange(6) * (k + 1) for k in range(4)]
    whole = make(dropout=dropout).batch(1, rows, 5, 0)
    again = make(dropout=dropout).batch(1, rows[2:], 5, 2)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[2:], b), whole, again)


class TestListsThatDoNotFit:
  @pytest.mark.parametrize("slots", [8, 16, 24])
  def test_the_longest_lose_their_last_candidates(self, slots):
    source, cuts = ratings(), set()
    tight = dataclasses.replace(BUDGET, slots=BUDGET.slots | {CANDIDATES: slots})
    for step in range(10):
      lists = rng_of(step).permutation(len(source))[:EXAMPLES]
      want, got = (
        shard_of(ListBatcher(source, budget, tie_item_tower=True), lists)
        for budget in (BUDGET, tight)
      )
      own, cap = want.candidates.lengths, got.candidates.lengths.max()
      cuts.add(int(cap))
      # Lists that are one longer would not fit.
      assert cap == own.max() or np.minimum(own, cap + 1).sum() > slots
      assert rows_of(got) == [rows[:cap] for rows in rows_of(want)]
      assert labels_of(got) == [labels[:cap] for labels in labels_of(want)]
      jax.tree.map(np.testing.assert_array_equal, got.users.weights, want.users.weights)
    assert (min(cuts) < SIZE) == (slots < 3 * EXAMPLES)

  @pytest.mark.parametrize("name", SOURCES)
  def test_plans_count_lists_after_they_are_cut(self, name):
    source = dataclasses.replace(SOURCES[name](), max_candidates=2)
    lengths = source.lengths(0)[CANDIDATES]
    want = SOURCES[name]().lengths(0)[CANDIDATES]
    np.testing.assert_array_equal(lengths, np.minimum(want, 2))
    tight = dataclasses.replace(BUDGET, slots=BUDGET.slots | {CANDIDATES: 2})
    plan = EpochPlan(source.lengths, len(source), tight, 1, 0)
    batcher = ListBatcher(source, tight, tie_item_tower=True)
    for step in range(5):
      shard = shard_of(batcher, plan.rows(step)[0], step)
      kept = shard.candidates.lengths[shard.users.weights > 0]
      np.testing.assert_array_equal(kept, lengths[plan.rows(step)[0]])

  def test_cut_lists_of_clicks_keep_the_positive(self):
    tight = dataclasses.replace(BUDGET, slots=BUDGET.slots | {CANDIDATES: 14})
    shard = shard_of(
      ListBatcher(clicks(), tight, tie_item_tower=True), np.arange(EXAMPLES)
    )
    assert shard.candidates.lengths.tolist() == [2] * EXAMPLES
    assert labels_of(shard) == [[1, 0]] * EXAMPLES

  @hypothesis.given(
    lengths=st.lists(st.integers(0, 9), max_size=6), slots=st.integers(0, 40)
  )
  def test_the_cap_is_the_largest_that_fits(self, lengths, slots):
    lengths = np.array(lengths, np.int64)
    caps = [c for c in range(10) if np.minimum(lengths, c).sum() <= slots]
    want = min(max(caps), lengths.max(initial=0))
    assert distinct.longest_fitting(lengths, slots) == want


class TestLastPart:
  def test_equals_a_loop_over_users(self):
    histories = make_histories(longest=60)
    splits, train_ends = last_part(histories, share=0.2, least=2)
    found = []
    for user, (begin, end) in enumerate(
      zip(histories.offsets[:-1], histories.offsets[1:], strict=True)
    ):
      size = max((end - begin) // 5, 2)
      if end - begin < 2 * size + 2:
        assert train_ends[user] == end
        continue
      assert train_ends[user] == end - 2 * size
      found.append((user, end - 2 * size, end - size, end))
    assert len(found) < 72 - len(SHORT) + 1
    users, begins, middles, ends = np.array(found).T
    for name, known, targets in (
      ("validation", begins, middles),
      ("test", middles, ends),
    ):
      np.testing.assert_array_equal(splits[name].user_rows, users)
      np.testing.assert_array_equal(splits[name].known_ends, known)
      np.testing.assert_array_equal(splits[name].target_ends, targets)
    assert (ends - middles).max() > 2

  def test_histories_that_are_all_too_short_are_named(self):
    with pytest.raises(ValueError, match="no user has 6 events.* the longest .* 5"):
      last_part(make_histories(longest=5))


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: dataclasses.replace(ratings(), list_size=0), "list_size is 0"),
    (lambda: dataclasses.replace(clicks(), negatives=0), "negatives is 0"),
  ],
)
def test_a_setting_that_cannot_be_is_named(make, message):
  with pytest.raises(ValueError, match=f"config.ranking.{message}; expected at least"):
    make()
