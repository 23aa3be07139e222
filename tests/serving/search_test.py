"""The command that asks a run of recall: what it prints."""

import pathlib
import subprocess
import sys

import pytest

from deepsets_jax.serving.searcher import Hit, Searcher, UserEvent
from experiments import search
from tests.data.interactions import small_movielens

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return small_movielens.run(tmp_path_factory)


@pytest.fixture(scope="module")
def searcher(folder):
  return Searcher(folder)


def test_columns_are_aligned_and_titles_last():
  hits = [
    Hit(rank=9, score=12.34567, row=3, id="4", title="A", events=5),
    Hit(rank=10, score=-0.5, row=8, id="1234", title="A long title", events=60),
  ]
  assert search.table(hits).splitlines() == [
    "rank   score  events    id  title",
    "   9  12.346       5     4  A",
    "  10  -0.500      60  1234  A long title",
  ]


def test_the_last_events_have_a_date_and_a_rating_where_there_is_one():
  events = [
    UserEvent(row=0, title=f"T{i}", time=86_400 * i, rating=4.0) for i in range(9)
  ]
  assert search.context(events).splitlines()[0] == "  1970-01-05  4  T4"
  assert len(search.context(events).splitlines()) == 5
  clicks = [UserEvent(row=0, title="T", time=-1, rating=None)]
  assert search.context(clicks) == "  1969-12-31  T"


def test_a_user_is_shown_with_its_events_and_what_comes_next(searcher):
  lines = search.user_answer(searcher, "2", 3, False).splitlines()
  assert lines[0] == "user 2: 5 events, the latest are"
  assert lines[5] == f"  1997-11-22  5  {searcher.events('2')[-1].title}"
  assert lines[6] == "next items by product, without the user's own"
  assert [line.split()[0] for line in lines[7:]] == ["rank", "1", "2", "3"]


def test_a_history_is_shown_with_whole_titles(searcher):
  answer = search.history_answer(searcher, "toy story; id:3;", None, 2, False)
  lines = answer.splitlines()
  assert lines[0] == "history: Toy Story (1995); Sabrina (1995)"
  assert lines[1] == "next items by product, without these"
  assert lines[2:] == search.table(searcher.history(["id:1", "id:3"], 2)).splitlines()
  lines = search.history_answer(searcher, "", "2", 2, False).splitlines()
  assert lines[:2] == ["history: none", "fields: those of user 2"]


def test_an_item_is_shown_with_its_nearest(searcher):
  lines = search.item_answer(searcher, "the usual suspects", 2, False).splitlines()
  assert lines[:2] == [
    "item: Usual Suspects, The (1995)",
    "similar items by cosine",
  ]
  assert lines[2:] == search.table(searcher.item("id:6", 2)).splitlines()


@pytest.mark.slow
def test_the_command_answers_or_says_in_a_line_why_not(folder, searcher):
  def ask(*arguments):
    command = [sys.executable, "-m", "experiments.search", f"--workdir={folder}"]
    return subprocess.run(
      [*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )

  done = ask("--history=Toy Story;id:3", "--k=4")
  assert done.returncode == 0, done.stderr[-2000:]
  want = search.history_answer(searcher, "Toy Story;id:3", None, 4, False)
  assert done.stdout == f"{want}\n"
  for arguments, message in (
    (["--item=Sabrina"], "error: 'Sabrina' is ambiguous: "),
    (["--item=x", "--user=1"], "error: give exactly one of --user, --history and"),
    (["--user=1", "--k=26"], "error: k is 26: expected 1 to 25"),
  ):
    done = ask(*arguments)
    assert done.returncode == 1 and done.stderr.startswith(message), done.stderr
    assert done.stderr.count("\n") == 1
