import collections
import dataclasses

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from deepsets_jax.data.interactions.histories import leave_out
from deepsets_jax.data.interactions.next_item import (
  HISTORY,
  NextItemExamples,
  schema,
  users_before,
)
from deepsets_jax.data.tables.schema import Modality
from tests.data.interactions.clicks import ITEMS, SHORT, make_histories

EPOCHS = range(3)
SEEDS = st.integers(0, 2**16)


def make(examples="prefixes", max_history=4, seed=0, **settings):
  histories = make_histories(users=20, **settings)
  return NextItemExamples(
    histories, leave_out(histories)[1], max_history, examples, seed
  )


def events_of(histories, user):
  """The items and times of a user's events."""
  begin, end = histories.offsets[user : user + 2]
  return histories.rows[begin:end], histories.times[begin:end]


def all_of(prefixes, epoch):
  """The user and the position in its history of each example of an epoch."""
  users, ends = prefixes.of_epoch(epoch, np.arange(len(prefixes)))
  positions = ends - prefixes.histories.offsets[users]
  return list(zip(users.tolist(), positions.tolist(), strict=True))


class TestUsersBefore:
  @hypothesis.given(seed=SEEDS, max_history=st.integers(1, 12))
  def test_equals_a_loop_over_users(self, seed, max_history):
    histories = make_histories(users=15, seed=seed)
    rng = np.random.default_rng(seed)
    users = rng.integers(0, 15, 30)
    positions = rng.integers(0, histories.lengths()[users] + 1)
    ends = histories.offsets[users] + positions
    table = users_before(histories, users, ends, max_history).validate("here")
    history = table.modalities[HISTORY]
    ages = np.split(history.times, history.offsets[1:-1])
    tastes = histories.users.modalities["taste"].to_lists()
    years = histories.users.modalities["age"].to_lists()
    for i, (user, position) in enumerate(zip(users, positions, strict=True)):
      items, times = events_of(histories, user)
      first = max(position - max_history, 0)
      assert history.to_lists()[i].tolist() == items[first:position].tolist()
      want = [np.log(1 + (times[position - 1] - t) / 60) for t in times[first:position]]
      np.testing.assert_allclose(ages[i], want, 1e-6)
      assert table.ids[i] == histories.users.ids[user]
      assert table.modalities["taste"].to_lists()[i].tolist() == tastes[user].tolist()
      assert table.modalities["age"].to_lists()[i].tolist() == years[user].tolist()

  @hypothesis.given(seed=SEEDS, examples=st.sampled_from(["prefixes", "users"]))
  def test_no_example_holds_its_event_or_anything_after_it(self, seed, examples):
    prefixes = make(examples, max_history=50, seed=seed)
    histories = prefixes.histories
    rng = np.random.default_rng(seed)
    users, ends = prefixes.of_epoch(seed % 3, np.arange(len(prefixes)))
    some = rng.integers(0, len(users), 8)
    for user, end in zip(users[some], ends[some], strict=True):
      known = users_before(histories, np.array([user]), np.array([end]), 50)
      # Replace the event, all later events of the user, and those of all later users.
      rows, times = histories.rows.copy(), histories.times.copy()
      rows[end:] = rng.integers(0, ITEMS, len(rows) - end)
      times[end:] += 10**9 + rng.integers(0, 10**6, len(rows) - end)
      other = dataclasses.replace(histories, rows=rows, times=times)
      got = users_before(other, np.array([user]), np.array([end]), 50)
      for name, want in known.modalities.items():
        for field in ("values", "offsets", "times"):
          np.testing.assert_array_equal(
            getattr(got.modalities[name], field), getattr(want, field)
          )
      assert known.lengths(HISTORY)[0] == end - histories.offsets[user]

  def test_a_user_without_history_has_its_fields_alone(self):
    histories = make_histories()
    users = np.array([5, 0])
    table = users_before(histories, users, histories.offsets[users], 50)
    assert table.lengths(HISTORY).tolist() == [0, 0]
    assert table.lengths("taste").tolist() == [1, 1]
    assert table.validate("here") is table

  def test_a_longer_history_is_that_of_its_latest_events(self):
    histories = make_histories()
    user = int(np.argmax(histories.lengths()))
    end = histories.offsets[user + 1]
    cut = users_before(histories, np.array([user]), np.array([end]), 3)
    # The same user with only its last three events.
    keep = np.ones(len(histories.rows), bool)
    keep[histories.offsets[user] : end - 3] = False
    gone = np.append(0, np.cumsum(~keep))
    short = dataclasses.replace(
      histories,
      offsets=histories.offsets - gone[histories.offsets],
      rows=histories.rows[keep],
      times=histories.times[keep],
    ).validate("here")
    end = short.offsets[user + 1]
    whole = users_before(short, np.array([user]), np.array([end]), 50)
    for field in ("values", "offsets", "times"):
      got, want = (getattr(table.modalities[HISTORY], field) for table in (cut, whole))
      np.testing.assert_array_equal(got, want)

  def test_its_schema_has_the_fields_and_the_history(self):
    histories = make_histories()
    got = schema(histories)
    assert list(got.modalities) == ["taste", "age", HISTORY]
    assert got.modalities[HISTORY] == Modality(
      "tokens", ITEMS, ordered=True, timed=True
    )
    assert got.target.kind == "none"

  def test_a_field_that_is_called_as_the_history_is_refused(self):
    histories = make_histories()
    users = histories.users
    clash = dataclasses.replace(
      users,
      schema=dataclasses.replace(
        users.schema, modalities={HISTORY: users.schema.modalities["age"]}
      ),
      modalities={HISTORY: users.modalities["age"]},
    )
    with pytest.raises(ValueError, match="field of users is called 'history'"):
      schema(dataclasses.replace(histories, users=clash))


class TestPrefixes:
  def test_every_training_event_is_an_example_of_every_epoch(self):
    prefixes = make("prefixes")
    histories = prefixes.histories
    want = [
      (user, position)
      for user in range(20)
      for position in range(prefixes.train_ends[user] - histories.offsets[user])
    ]
    for epoch in EPOCHS:
      assert all_of(prefixes, epoch) == want
    # Two events are held out, except from users with too few events.
    lengths = histories.lengths()
    assert len(want) == sum(n - 2 * (n > 2) for n in lengths)
    assert {user for user, _ in want} == set(range(20)) - {5}

  def test_every_epoch_has_each_user_once_with_a_random_event(self):
    prefixes = make("users")
    trained = prefixes.train_ends - prefixes.histories.offsets[:-1]
    epochs = [dict(all_of(prefixes, epoch)) for epoch in range(40)]
    for drawn in epochs:
      assert list(drawn) == [user for user in range(20) if user != 5]
      assert all(0 <= position < trained[user] for user, position in drawn.items())
    assert len(prefixes) == 19
    for user in epochs[0]:  # In the end, all events of every user occur.
      assert {drawn[user] for drawn in epochs} == set(range(trained[user]))

  @pytest.mark.parametrize("examples", ["prefixes", "users"])
  def test_an_epoch_is_a_function_of_seed_and_epoch_alone(self, examples):
    wanted = [all_of(make(examples), epoch) for epoch in EPOCHS]
    again = make(examples)
    assert [all_of(again, epoch) for epoch in reversed(EPOCHS)] == wanted[::-1]
    for epoch in EPOCHS:  # The same for a subset of the examples.
      users, ends = again.of_epoch(epoch, np.array([7, 2]))
      positions = ends - again.histories.offsets[users]
      assert [*zip(users, positions, strict=True)] == [
        wanted[epoch][7],
        wanted[epoch][2],
      ]
    other = [all_of(make(examples, seed=1), epoch) for epoch in EPOCHS]
    redrawn = examples == "users"
    assert (other != wanted) == (wanted[0] != wanted[1]) == redrawn

  @pytest.mark.parametrize("examples", ["prefixes", "users"])
  def test_lengths_match_the_tables_of_the_epoch(self, examples):
    prefixes = make(examples)
    for epoch in EPOCHS:
      users, ends = prefixes.of_epoch(epoch, np.arange(len(prefixes)))
      table = users_before(prefixes.histories, users, ends, prefixes.max_history)
      lengths = prefixes.lengths(epoch)
      assert list(lengths) == list(table.modalities)
      for name, length in lengths.items():
        np.testing.assert_array_equal(length, table.lengths(name))
      assert lengths[HISTORY].max() <= 4

  @pytest.mark.parametrize("max_history", [2, 50])
  def test_the_longest_is_that_of_any_epoch(self, max_history):
    every, drawn = (make(examples, max_history) for examples in ("prefixes", "users"))
    want = every.lengths(0)[HISTORY].max()
    assert every.longest() == drawn.longest() == want
    assert max(drawn.lengths(epoch)[HISTORY].max() for epoch in range(40)) == want

  def test_shares_of_prefixes_are_how_often_items_are_targets(self):
    prefixes = make("prefixes")
    histories = prefixes.histories
    counts = collections.Counter(
      int(histories.rows[histories.offsets[user] + position])
      for user, position in all_of(prefixes, 0)
    )
    want = [counts[row] / counts.total() for row in range(ITEMS)]
    np.testing.assert_allclose(prefixes.shares(), want, 1e-12)
    assert (prefixes.shares()[-4:] == 0).all()  # These items have no events.

  def test_shares_of_users_are_those_of_draws_of_an_event_per_user(self):
    prefixes = make("users")
    histories, want = prefixes.histories, np.zeros(ITEMS)
    for user, begin in enumerate(histories.offsets[:-1]):
      rows = histories.rows[begin : prefixes.train_ends[user]]
      for row in rows:
        want[row] += 1 / len(rows) / 19
    np.testing.assert_allclose(prefixes.shares(), want, 1e-12)
    epochs = 400
    found = np.zeros(ITEMS)
    for epoch in range(epochs):
      _, ends = prefixes.of_epoch(epoch, np.arange(19))
      np.add.at(found, histories.rows[ends], 1 / epochs / 19)
    assert np.abs(found - want).max() < 5 * np.sqrt(want.max() / epochs / 19)

  def test_only_known_events_of_evaluated_users_are_trained_on(self):
    prefixes = make("prefixes", max_history=50)
    histories = prefixes.histories
    splits, _ = leave_out(histories)
    targets = {
      (int(user), int(end - histories.offsets[user]))
      for split in splits.values()
      for user, end in zip(split.user_rows, split.known_ends, strict=True)
    }
    assert len(targets) == 2 * (20 - len(SHORT))
    assert not targets & set(all_of(prefixes, 0))

  @pytest.mark.parametrize(
    ("settings", "message"),
    [
      (
        dict(examples="events"),
        r"config.data.histories.examples 'events'; one of \['prefixes', 'users'\]",
      ),
      (
        dict(max_history=0),
        "config.data.histories.max_history is 0; expected at least 1",
      ),
    ],
  )
  def test_a_setting_that_cannot_be_is_named(self, settings, message):
    with pytest.raises(ValueError, match=message):
      make(**settings)
