import collections
import dataclasses
import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from deepsets_jax.data.interactions.histories import leave_out, of_events
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import DataError
from deepsets_jax.ragged import from_lists


def make_table(count, prefix):
  """Examples with one modality that is absent from all of them."""
  nothing = from_lists([[]] * count, dtype=np.int32)
  return Table(
    Schema({"word": Modality("tokens", 3)}, Target("none", 0)),
    {"word": nothing},
    np.zeros((count, 0), np.float32),
    np.array([f"{prefix}{row}" for row in range(count)]),
  )


USERS, ITEMS = make_table(4, "u"), make_table(5, "i")


def make(events, ratings=None):
  """Histories of 4 users and 5 items from (user row, item row, time) events."""
  columns = np.array(events, np.int64).reshape(-1, 3).T
  return of_events(USERS, ITEMS, *columns, ratings, where="log")


def to_lists(histories):
  """The (item row, time) events of each user."""
  pairs = list(zip(histories.rows.tolist(), histories.times.tolist(), strict=True))
  return [pairs[a:z] for a, z in itertools.pairwise(histories.offsets.tolist())]


def from_loop(events):
  """The results of `to_lists` and `of_events`, by a loop over events."""
  by_user, seen, latest = collections.defaultdict(list), set(), {}
  repaired = {"duplicates": 0, "out_of_order": 0}
  for user, item, time in events:
    repaired["out_of_order"] += time < latest.get(user, time)
    latest[user] = time
    if (user, item, time) in seen:
      repaired["duplicates"] += 1
    else:
      seen.add((user, item, time))
      by_user[user].append((item, time))
  return [sorted(by_user[u], key=lambda event: event[1]) for u in range(4)], repaired


LOGS = st.lists(
  st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(-1, 4)), max_size=25
)


class TestOfEvents:
  @hypothesis.given(log=LOGS)
  def test_equals_a_loop_over_the_log(self, log):
    histories, repaired = make(log)
    assert (to_lists(histories), repaired) == from_loop(log)
    assert histories.validate("here") is histories

  def test_ratings_go_with_their_events_and_the_first_of_duplicates_stays(self):
    log = [(1, 2, 9), (0, 4, 5), (1, 3, 7), (1, 2, 9), (1, 1, 9)]
    histories, repaired = make(log, ratings=[5, 4, 3, 1, 2])
    assert repaired == {"duplicates": 1, "out_of_order": 1}
    assert to_lists(histories)[:2] == [[(4, 5)], [(3, 7), (2, 9), (1, 9)]]
    assert histories.ratings.tolist() == [4, 3, 5, 2]

  def test_a_log_without_events_is_histories_that_are_empty(self):
    histories, repaired = of_events(USERS, ITEMS, [], [], [], where="log")
    assert repaired == {"duplicates": 0, "out_of_order": 0}
    assert histories.validate("log").lengths().tolist() == [0, 0, 0, 0]
    assert histories.popularity(histories.offsets[1:]).tolist() == [0] * 5

  def test_users_without_events_and_items_never_seen_keep_their_place(self):
    histories, _ = make([(3, 1, 0), (1, 1, 0), (1, 4, 1)])
    assert histories.lengths().tolist() == [0, 2, 0, 1]
    assert histories.popularity(histories.offsets[1:]).tolist() == [0, 2, 0, 0, 1]

  def test_types_follow_the_interface(self):
    columns = [np.array([0], kind) for kind in (np.uint8, np.uint16, np.float64)]
    histories, _ = of_events(USERS, ITEMS, *columns, np.array([1]), where="log")
    kinds = [histories.offsets, histories.rows, histories.times, histories.ratings]
    assert [a.dtype.name for a in kinds] == ["int64", "int32", "int64", "float32"]

  @pytest.mark.parametrize(
    ("change", "message"),
    [
      ({0: [0, 4, 1]}, "log: event 1: user row 4 is not one of the 4 users"),
      ({0: [0, 1, -1]}, "log: event 2: user row -1 is not one of the 4 users"),
      ({1: [5, 0, 0]}, "log: event 0: item row 5 is not one of the 5 items"),
      ({1: [0.0, 1.0, 2.0]}, "item rows of type float64, expected integers; give rows"),
      ({0: ["a", "b", "c"]}, "user rows of type <U1, expected integers"),
      ({2: [0, 1]}, "log: 2 times for 3 events"),
      ({2: [0, 1.5, 2]}, "log: event 1: time 1.5 is not a whole number of seconds"),
      ({2: [0, 1, np.nan]}, "log: event 2: time nan is not a whole number"),
      ({2: [0, 1, np.inf]}, "log: event 2: time inf is not a whole number"),
      ({2: [0, 1e300, 2]}, r"log: event 1: time 1e\+300 is not a whole number"),
      ({2: ["x", "y", "z"]}, "times of type <U1, expected whole seconds since 1970"),
      ({3: [1, np.nan, 2]}, "log: event 1: rating nan is not finite"),
      ({3: [1, 2, 1e300]}, r"log: event 2: rating 1e\+300 is not finite"),
      ({3: [1, 2]}, "log: 2 ratings for 3 events"),
    ],
  )
  def test_a_bad_event_is_named(self, change, message):
    columns = {0: [0, 1, 2], 1: [0, 1, 2], 2: [0, 1, 2], 3: [1, 2, 3]} | change
    arrays = [np.array(columns[position]) for position in range(4)]
    with pytest.raises(DataError, match=message):
      of_events(USERS, ITEMS, *arrays, where="log")


class TestLeaveOut:
  @hypothesis.given(log=LOGS, held_out=st.integers(1, 2))
  def test_equals_a_loop_over_users(self, log, held_out):
    histories, _ = make(log)
    items = [[item for item, _ in events] for events in to_lists(histories)]
    enough = [user for user in range(4) if len(items[user]) > 2 * held_out]
    if not enough:
      with pytest.raises(DataError, match=f"no user has {2 * held_out + 1} events"):
        leave_out(histories, held_out)
      return
    splits, train_ends = leave_out(histories, held_out)
    assert list(splits) == ["validation", "test"]
    for name, after in (("validation", held_out), ("test", 0)):
      split = splits[name]
      assert split.user_rows.tolist() == enough
      known = [items[user][: len(items[user]) - after - held_out] for user in enough]
      targets = [
        items[user][len(events) :][:held_out]
        for user, events in zip(enough, known, strict=True)
      ]
      assert [x.tolist() for x in split.known(histories).to_lists()] == known
      assert [x.tolist() for x in split.targets(histories).to_lists()] == targets
    train = [
      events[: -2 * held_out] if user in enough else events
      for user, events in enumerate(items)
    ]
    got = histories.items_between(histories.offsets[:-1], train_ends).to_lists()
    assert [x.tolist() for x in got] == train
    counts = collections.Counter(item for events in train for item in events)
    want = [counts[item] for item in range(5)]
    assert histories.popularity(train_ends).tolist() == want

  def test_known_events_of_test_include_the_targets_of_validation(self):
    histories, _ = make([(2, item, item) for item in range(4)] + [(0, 1, 0)])
    splits, train_ends = leave_out(histories)
    assert splits["validation"].targets(histories).values.tolist() == [2]
    assert splits["test"].known(histories).values.tolist() == [0, 1, 2]
    assert splits["test"].targets(histories).values.tolist() == [3]
    # User 0 has too few events to be evaluated, and trains with all of them.
    assert train_ends.tolist() == [1, 1, 3, 5]
    assert splits["test"].ends(histories).tolist() == [1, 1, 4, 5]

  def test_too_few_events_of_everybody_are_refused(self):
    histories, _ = make([(0, 1, 0), (0, 2, 1)])
    with pytest.raises(DataError, match="no user has 3 events.*longest history has 2"):
      leave_out(histories)

  def test_holding_out_nothing_is_refused(self):
    histories, _ = make([(0, item, item) for item in range(5)])
    with pytest.raises(ValueError, match="held_out 0: expected at least 1"):
      leave_out(histories, 0)


GOOD, _ = make([(0, 1, 5), (2, 3, 1), (2, 2, 4)], ratings=[1, 2, 3])
LABELLED = dataclasses.replace(
  ITEMS,
  schema=Schema(ITEMS.schema.modalities, Target("binary", 1)),
  targets=np.zeros(5),
)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"items": LABELLED}, "here, items: a target of kind 'binary'; expected 'none'"),
    (
      {"offsets": np.array([0, 1, 3])},
      "here: 3 offsets for 4 users, expected one more",
    ),
    (
      {"offsets": np.array([0, 1, 1, 2, 2])},
      "offsets run from 0 to 2, expected 0 to the number of events, 3",
    ),
    ({"offsets": np.array([0, 2, 1, 3, 3])}, r"decrease at user 'u1' \(row 1\)"),
    ({"times": np.array([1, 2])}, "here: 2 times for 3 events"),
    ({"ratings": np.zeros(4, np.float32)}, "here: 4 ratings for 3 events"),
    (
      {"rows": np.array([1, 3, 5], np.int32)},
      r"event 1 of user 'u2' \(row 2\): item row 5 is not one of the 5 items",
    ),
    ({"rows": np.array([-1, 3, 2])}, r"event 0 of user 'u0' \(row 0\): item row -1"),
    (
      {"times": np.array([5, 4, 1])},
      r"event 1 of user 'u2' \(row 2\): time 1 is before that of the event before",
    ),
    (
      {"ratings": np.array([1, np.inf, 1], np.float32)},
      r"event 0 of user 'u2' \(row 2\): rating inf is not finite",
    ),
  ],
)
def test_validate_names_the_event(fields, message):
  with pytest.raises(DataError, match=message):
    dataclasses.replace(GOOD, **fields).validate("here")


def test_validate_looks_at_the_tables():
  words = from_lists([[7], [], [], []], dtype=np.int32)
  users = dataclasses.replace(USERS, modalities={"word": words})
  with pytest.raises(DataError, match="here, users, modality 'word': .* 'u0'"):
    dataclasses.replace(GOOD, users=users).validate("here")
