"""A run of recall asked by hand: against loops, and what is refused."""

import json
import shutil

import jax
import numpy as np
import pytest

from configs import smoke
from deepsets_jax import tasks
from deepsets_jax.foundation.errors import DataError
from deepsets_jax.serving import searcher as searchers
from deepsets_jax.serving.searcher import Searcher
from deepsets_jax.tasks import trained
from deepsets_jax.training import run_folder
from experiments import embed
from tests.data.interactions import small_movielens

COUNT = small_movielens.UNKNOWN


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return small_movielens.run(tmp_path_factory)


@pytest.fixture(scope="module")
def searcher(folder):
  return Searcher(folder)


def sorted_by(scores, left_out):
  """Rows by falling score, without some."""
  order = np.argsort(-scores, kind="stable")
  return [int(row) for row in order if row not in left_out]


def clicked(searcher, user):
  return [event.row for event in searcher.events(str(user))]


def vector_of(searcher, user):
  """The user's, by the walk of all users."""
  task = searcher.task
  rows, ends = np.arange(small_movielens.USERS), task.histories.offsets[1:]
  before = searchers.next_item.users_before(task.histories, rows, ends, max_history=4)
  return task.users(searcher._params, searcher.items, before)[user - 1]


class TestUser:
  def test_is_given_the_largest_products_of_what_is_new_to_it(self, searcher):
    scores = searcher.items @ vector_of(searcher, 5)
    hits = searcher.user("5", k=6)
    want = sorted_by(scores, clicked(searcher, 5))[:6]
    assert [hit.row for hit in hits] == want
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5, 6]
    assert [hit.score for hit in hits] == pytest.approx(scores[want], rel=1e-4)

  def test_is_given_the_next_film_of_its_circle(self, searcher):
    right = 0
    for user in range(1, small_movielens.USERS + 1):
      *_, last = clicked(searcher, user)
      circle, place = divmod(last, small_movielens.AROUND)
      following = (place + 1) % small_movielens.AROUND
      right += (
        searcher.user(str(user), k=1)[0].row
        == circle * small_movielens.AROUND + following
      )
    assert right > small_movielens.USERS / 2  # By chance three.

  def test_hits_say_what_they_are(self, searcher):
    events = searcher.task.histories.popularity(searcher.task.train_ends)
    for hit in searcher.user("2", k=4):
      assert hit.id == str(hit.row + 1)
      assert hit.title == searcher.task.titles[hit.row]
      assert hit.events == events[hit.row]

  def test_all_items_but_its_own_are_at_most_found(self, searcher):
    own = set(clicked(searcher, 3))
    rows = [hit.row for hit in searcher.user("3", k=COUNT)]
    assert sorted(rows) == sorted(set(range(COUNT)) - own)

  def test_events_are_by_time_with_ratings(self, searcher):
    events = searcher.events("2")
    assert [event.rating for event in events] == [1, 2, 3, 4, 5]
    assert np.diff([event.time for event in events]).tolist() == [60] * 4
    assert events[0].title == searcher.task.titles[events[0].row]

  def test_must_be_there_and_k_in_range(self, searcher):
    with pytest.raises(ValueError, match="no user has the id '99'; there are 60.*'1'"):
      searcher.user("99")
    for k in (0, COUNT + 1):
      with pytest.raises(ValueError, match=f"k is {k}: expected 1 to {COUNT}"):
        searcher.user("1", k=k)


class TestHistory:
  def test_is_as_that_of_a_user_who_came_to_the_same(self, searcher):
    # The events of a user of the data are a minute apart, too.
    typed = [f"id:{row + 1}" for row in clicked(searcher, 7)]
    assert searcher.history(typed, fields_of="7") == searcher.user("7")

  def test_has_no_fields_unless_asked(self, searcher):
    typed = [f"id:{row + 1}" for row in clicked(searcher, 7)]
    plain, of_seven = searcher.history(typed), searcher.history(typed, fields_of="7")
    assert plain[0].score != of_seven[0].score
    # User 9 has the gender of user 7, the one field that the model reads.
    assert searcher.history(typed, fields_of="9") == of_seven

  def test_has_an_order(self, searcher):
    forth = searcher.history(["id:10", "id:11", "id:12"])
    back = searcher.history(["id:12", "id:11", "id:10"])
    assert {hit.row: hit.score for hit in back} != {hit.row: hit.score for hit in forth}

  def test_may_be_empty(self, searcher):
    assert len(searcher.history([], k=COUNT)) == COUNT
    male, female = (searcher.history([], fields_of=user) for user in ("1", "2"))
    assert male[0].score != female[0].score

  def test_is_left_out_and_may_name_an_item_twice(self, searcher):
    rows = [hit.row for hit in searcher.history(["id:4", "id:4"], k=COUNT)]
    assert len(rows) == COUNT - 1 and 3 not in rows


class TestItem:
  def test_is_given_the_largest_cosines_without_itself(self, searcher):
    row, items = 9, searcher.items
    cosines = [v @ items[row] / np.linalg.norm(v) for v in items]
    cosines = np.array(cosines) / np.linalg.norm(items[row])
    hits = searcher.item("id:10", k=5)
    assert [hit.row for hit in hits] == sorted_by(cosines, {row})[:5]
    want = cosines[[hit.row for hit in hits]]
    assert [hit.score for hit in hits] == pytest.approx(want, rel=1e-4)

  def test_of_which_nothing_is_known_is_like_none(self, searcher):
    with pytest.raises(ValueError, match="'Zyxomma' has 0 training"):
      searcher.item("Zyxomma")


@pytest.mark.parametrize(
  ("text", "row"),
  [
    ("Toy Story (1995)", 0),
    ("  toy   STORY ", 0),
    ("sabrina (1995)", 2),
    ("usual suspects, the", 5),
    ("The Usual Suspects", 5),
    ("the usual suspects (1995)", 5),
    ("id:5", 4),
    (" id:5 ", 4),
    ("zyxomma", COUNT - 1),
  ],
)
def test_titles_are_found(searcher, text, row):
  assert searcher.row(text) == row


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (
      "Sabrina",
      r"is ambiguous: 'Sabrina \(1954\)' \(id:2\), .*\(id:3\); give the year, or id",
    ),
    # These are of one year.
    ("Chasing Amy (1997)", r"\(id:4\), .* \(id:5\); give id:ID"),
    ("toy s", r"similar are 'Toy S[^;]*\(id:1\)"),
    ("Zyxoma", r"similar are 'Zyxomma' \(id:25\); or give id:ID"),
    ("film", r"and 12 others; or"),
    ("qqqq", "no item has the title 'qqqq'; or give"),
    ("", "no item has the title ''"),
    ("id:77", "no item has the id '77'; there are 25, such as '1', '2', '3'"),
  ],
)
def test_what_is_no_title_is_told_with_the_nearest(searcher, text, message):
  with pytest.raises(ValueError, match=message):
    searcher.row(text)


def test_of_several_titles_that_contain_the_text_the_popular_come_first(searcher):
  events = searcher.task.histories.popularity(searcher.task.train_ends)
  best = max(
    range(7, COUNT - 1), key=lambda row: events[row]
  )  # Of those with a number.
  with pytest.raises(ValueError) as caught:
    searcher.row("film")
  shown = str(caught.value).partition("similar are ")[2].split(", ")
  assert shown[0] == f"'{searcher.task.titles[best]}' (id:{best + 1})"


def test_an_approximate_search_finds_the_same_on_a_cpu(searcher):
  exact, approximate = (searcher.user("1", approximate=x) for x in (False, True))
  assert {hit.row for hit in exact} == {hit.row for hit in approximate}


def test_vectors_of_items_are_read_where_they_are(folder, searcher, tmp_path):
  embed.embed(str(folder), tmp_path / "out", "all")
  reading = Searcher(folder, tmp_path / "out")
  assert reading.user("1") == searcher.user("1")
  shutil.copytree(folder, tmp_path / "other")
  (tmp_path / "other" / "results.json").write_text("{}")
  with pytest.raises(DataError, match="items.parquet is not the file of items of this"):
    Searcher(tmp_path / "other", tmp_path / "out")


class TestOtherRuns:
  def test_a_run_of_labels_is_sent_to_its_commands(self, tmp_path):
    run_folder.create(smoke.get_config(), tmp_path / "run")
    with pytest.raises(ValueError, match="of task 'supervised'.*experiments.predict"):
      Searcher(tmp_path / "run")

  def test_a_run_of_recall_is_sent_to_its_commands(self, folder):
    with pytest.raises(ValueError, match="of task 'retrieval'.*experiments.search or"):
      trained.load_trained(folder)

  def test_a_folder_without_run_or_checkpoint_is_refused(self, folder, tmp_path):
    with pytest.raises(ValueError, match="nowhere is no folder of a run"):
      tasks.load_task(tmp_path / "nowhere")
    shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(ValueError, match="no checkpoint.*experiments.main --config"):
      tasks.load_task(tmp_path / "run")

  def test_a_run_with_the_older_names_of_settings_is_loaded(self, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text()) | {"task": "recall"}
    group = config["recall"] = config.pop("retrieval")
    group["shared"] = group.pop("tie_item_tower")
    group["uniform"] = group.pop("num_uniform_negatives")
    path.write_text(json.dumps(config))
    (got, params), (want, _) = (tasks.load_task(x) for x in (tmp_path / "run", folder))
    assert got.config.to_dict() == want.config.to_dict()
    assert jax.tree.leaves(params)
