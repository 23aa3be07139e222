import pathlib
import zipfile

import numpy as np
import pytest

from deepsets_jax.data.datasets import fetched, movielens
from deepsets_jax.data.datasets.builders.movielens_sequences import files
from deepsets_jax.data.interactions.histories import leave_out
from deepsets_jax.foundation import cache
from deepsets_jax.foundation.errors import DataError
from tests.data.datasets.builders import fakes

WHEEL = cache.folder("wheels") / movielens.RECBOLE.file
# Films that share words and triples with those of the fake.
MORE = {
  "item": ["6\tToy Story 2\t1999\tAnimation Comedy", "7\tA Toy's Story\tx\tDrama"],
  "link": ["6\tm.6", "7\tm.7"],
  "kg": [
    "m.6\tfilm.film.genre\tm.9",
    "m.6\tfilm.film.sequel\tm.1",
    "m.6\tfilm.film.genre\tm.9",
    "m.7\tfilm.film.sequel\tm.1",
  ],
}


@pytest.fixture
def wheel(tmp_path):
  fakes.movielens_wheel(tmp_path)
  path = tmp_path / files.WHEEL
  with zipfile.ZipFile(path) as archive:
    texts = {name: archive.read(name).decode() for name in archive.namelist()}
  with zipfile.ZipFile(path, "w") as archive:
    for name, text in texts.items():
      more = MORE.get(name.rpartition(".")[2], [])
      archive.writestr(name, text + "".join(f"{line}\n" for line in more))
  return str(path)


def strings(data, table, name):
  """The strings of the tokens of every example."""
  side = "users" if table is data.histories.users else "items"
  vocabulary = data.vocabularies[side][name]
  lists = table.modalities[name].to_lists()
  return [[vocabulary[i] for i in ids] for ids in lists]


def numbers(table, name):
  return [vectors[:, 0].tolist() for vectors in table.modalities[name].to_lists()]


def test_users_have_their_fields(wheel):
  data = movielens.load_movielens(wheel)
  users = data.histories.users
  assert users.ids.tolist() == ["1", "2", "3"]
  assert strings(data, users, "gender") == [["M"], ["F"], ["F"]]
  assert strings(data, users, "occupation") == [["technician"], ["other"], ["writer"]]
  ages = np.array([24, 53, 30])
  want = (ages - ages.mean()) / ages.std()
  np.testing.assert_allclose(np.concatenate(numbers(users, "age")), want, rtol=1e-6)


def test_films_have_exactly_their_known_facts(wheel):
  data = movielens.load_movielens(wheel)
  films = data.histories.items
  assert films.ids.tolist() == list("1234567")
  # Words of at least two titles, in order.
  toy = ["toy", "story"]
  assert strings(data, films, "title") == [toy, [], [], [], [], toy, ["story"]]
  assert films.schema.modalities["title"].ordered
  genres = strings(data, films, "genres")
  assert genres[:4] == [
    ["Animation", "Children's", "Comedy"],
    [],
    ["Animation", "Children's"],
    [],
  ]
  # Each triple once, and none of a single film.
  triples = [set(found) for found in strings(data, films, "triples")]
  genre, sequel = "film.film.genre m.9", "film.film.sequel m.1"
  writer = "film.writer.film m.8"
  nothing = [set()] * 4
  assert triples == [{genre, writer}, *nothing, {genre, sequel}, {writer, sequel}]
  assert films.lengths("triples").tolist() == [2, 0, 0, 0, 0, 2, 2]
  years = np.array([1995, 1995, 1971, 1995, 1999])
  want = ((years - years.mean()) / years.std()).tolist()
  found = numbers(films, "year")
  assert [len(year) for year in found] == [1, 0, 1, 1, 1, 1, 0]
  np.testing.assert_allclose(np.concatenate(found), want, rtol=1e-5)


def test_titles_are_printed_as_far_as_they_are_known(wheel):
  titles = movielens.load_movielens(wheel).titles.tolist()
  assert titles[:3] == ["Toy Story (1995)", "film 2", "Land Before Time III (1995)"]
  assert titles[6] == "A Toy's Story"


def test_words_keep_apostrophes_and_letters_of_all_kinds():
  title = "Schindler's List: 'Misérables, Les' (2_nd)"
  want = ["schindler's", "list", "misérables", "les", "2", "nd"]
  assert movielens.words(title) == want


def test_histories_match_the_file(wheel):
  histories = movielens.load_movielens(wheel).histories
  runs = histories.items_between(histories.offsets[:-1], histories.offsets[1:])
  films = [histories.items.ids[rows].tolist() for rows in runs.to_lists()]
  assert films == [["5", "2", "1"], ["3", "4", "1", "2"], []]
  assert histories.ratings.tolist() == [4, 3, 5, 1, 2, 2, 4]
  assert histories.times[:3].tolist() == [881250000, 881250949, 881250949]
  assert leave_out(histories)[0]["test"].user_rows.tolist() == [0, 1]


def test_the_zip_is_the_same_without_triples(tmp_path):
  fakes.movielens_wheel(tmp_path)
  fakes.movielens_zip(tmp_path)
  of_wheel = movielens.load_movielens(str(tmp_path / files.WHEEL))
  of_zip = movielens.load_movielens(str(tmp_path / files.ZIP))
  assert of_zip.histories.items.lengths("triples").tolist() == [0] * 5
  assert of_zip.vocabularies["items"]["triples"] == ()
  np.testing.assert_array_equal(of_zip.histories.rows, of_wheel.histories.rows)
  np.testing.assert_array_equal(of_zip.titles, of_wheel.titles)


def test_a_single_user_and_film_of_the_folder_have_mean_0(tmp_path):
  texts = {"u.user": "1|24|M|x|0", "u.item": "9|unknown|||" + "|0" * 19}
  for name, text in (texts | {"u.data": "1\t9\t3\t0"}).items():
    (tmp_path / name).write_text(text)
  histories = movielens.load_movielens(str(tmp_path)).histories
  assert numbers(histories.users, "age") == [[0.0]]
  assert numbers(histories.items, "year") == [[]]


def test_without_a_path_the_wheel_is_fetched(wheel, monkeypatch):
  fetches = []
  path = pathlib.Path(wheel)
  monkeypatch.setattr(fetched, "fetch", lambda which: fetches.append(which) or path)
  assert len(movielens.load_movielens().histories.users) == 3
  assert fetches == [movielens.RECBOLE]


def test_a_missing_path_is_named(tmp_path):
  with pytest.raises(DataError, match=r"none.whl: .*ml-100k.user is missing"):
    movielens.load_movielens(str(tmp_path / "none.whl"))


@pytest.mark.skipif(not WHEEL.is_file(), reason=f"{WHEEL.name} is not in the cache")
def test_the_data_themselves():
  data = movielens.load_movielens()
  histories = data.histories
  users, films, lengths = histories.users, histories.items, histories.lengths()
  assert (len(users), len(films), len(histories.rows)) == (943, 1682, 100_000)
  assert (lengths.min(), np.median(lengths), lengths.max()) == (20, 65, 737)
  sides = data.vocabularies.values()
  sizes = {name: len(words) for side in sides for name, words in side.items()}
  assert sizes == {
    "gender": 2,
    "occupation": 21,
    "title": 596,
    "genres": 18,
    "triples": 10679,
  }
  assert round((films.lengths("triples") == 0).mean(), 2) == 0.05
  assert films.lengths("triples").sum() == 61_028
  assert (films.lengths("year") == 0).sum() == 1
  assert data.titles[:2].tolist() == ["Toy Story (1995)", "GoldenEye (1995)"]
  splits, train_ends = leave_out(histories)
  assert len(splits["test"].user_rows) == 943
  assert histories.popularity(train_ends).sum() == 100_000 - 2 * 943
