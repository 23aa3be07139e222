"""MovieLens 100K as histories: users, films with their knowledge graph, and ratings.

Harper and Konstan, "The MovieLens Datasets: History and Context", ACM Transactions on
Interactive Intelligent Systems 5(4), 2015. The data may not be redistributed, so they
are fetched. Only the package of RecBole has the knowledge graph, from Freebase (Zhao et
al., "RecBole", CIKM 2021). Unknown facts of a film are absent: they have no element.
"""

from __future__ import annotations

import collections
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from deepsets_jax.data.datasets import fetched
from deepsets_jax.data.datasets.entry import DatasetEntry
from deepsets_jax.data.interactions.catalog import ItemCatalog
from deepsets_jax.data.interactions.histories import of_events
from deepsets_jax.data.tables.schema import Modality
from deepsets_jax.data.tables.table import Table, table_without_target
from deepsets_jax.ragged import Ragged, from_lists

RECBOLE = fetched.Wheel(
  requirement="recbole==1.2.1",
  file="recbole-1.2.1-py3-none-any.whl",
  sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
)
# Letters and digits, with apostrophes inside.
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
# A word or a triple of a single film says nothing about other films.
_MIN_FILMS = 2


def load_movielens(path: str | None = None) -> ItemCatalog:
  """Loads MovieLens 100K, and checks every value.

  Users have "age", "gender" and "occupation"; films have "title", "year", "genres" and
  "triples", each a relation and an entity separated by a space. The ids are those of
  the files. The titles of the catalog, for people to read, include the year.

  Args:
    path: RecBole's wheel, or GroupLens' ml-100k.zip or its folder, which have no
      triples. None fetches the wheel, once.

  Raises:
    DataError: The wheel cannot be fetched, or a file is missing or damaged.
  """
  # A late import, since the package of the builders imports tensorflow_datasets.
  from deepsets_jax.data.datasets.builders.movielens_sequences import files

  found = pathlib.Path(path) if path else fetched.fetch(RECBOLE)
  data = files.read_movielens(found)
  of_users: dict[str, tuple[str, ...]] = {}
  of_items: dict[str, tuple[str, ...]] = {}
  users, items = _users(data.users, of_users), _items(data, of_items)
  film_rows = {film.id: row for row, film in enumerate(data.films)}
  rows, events = [], []
  for row, user in enumerate(data.users):
    rows += [row] * len(data.events[user.id])
    events += data.events[user.id]
  histories, _ = of_events(
    users,
    items,
    np.array(rows, np.int64),
    np.array([film_rows[event.film] for event in events], np.int64),
    np.array([event.timestamp for event in events], np.int64),
    np.array([event.rating for event in events], np.float32),
    where=str(found),
  )
  titles = np.array([_display(film) for film in data.films])
  vocabularies = {"users": of_users, "items": of_items}
  return ItemCatalog(histories.validate(str(found)), titles, vocabularies)


def words(title: str) -> list[str]:
  """Returns the words of a title, lower-case and in order, for the modality "title"."""
  return _WORD.findall(title.lower())


def _users(users: Sequence[Any], vocabularies: dict[str, tuple[str, ...]]) -> Table:
  """The table of the `files.User`s; adds its vocabularies to `vocabularies`."""
  columns = {
    "gender": [[user.gender] for user in users],
    "occupation": [[user.occupation] for user in users],
  }
  modalities = {"age": _standardised([user.age for user in users])}
  kinds = {"age": Modality("vectors", 1)}
  for name, lists in columns.items():
    vocabularies[name] = _vocabulary(lists, 1)
    modalities[name], kinds[name] = _tokens(lists, vocabularies[name])
  ids = np.array([user.id for user in users], np.str_)
  return table_without_target(modalities, kinds, ids)


def _items(data: Any, vocabularies: dict[str, tuple[str, ...]]) -> Table:
  """The table of the films of a `files.MovieLens`; adds to `vocabularies`."""
  films = data.films
  columns = {
    "title": ([words(film.title or "") for film in films], _MIN_FILMS),
    "genres": ([film.genres for film in films], 1),
    "triples": (
      [
        # A film may have a triple twice.
        list(dict.fromkeys(map(" ".join, data.triples.get(film.id, []))))
        for film in films
      ],
      _MIN_FILMS,
    ),
  }
  modalities = {"year": _standardised([film.year for film in films])}
  kinds = {"year": Modality("vectors", 1)}
  for name, (lists, min_films) in columns.items():
    vocabularies[name] = _vocabulary(lists, min_films)
    modalities[name], kinds[name] = _tokens(
      lists, vocabularies[name], ordered=name == "title"
    )
  ids = np.array([film.id for film in films], np.str_)
  return table_without_target(modalities, kinds, ids)


def _vocabulary(lists: Iterable[Sequence[str]], min_examples: int) -> tuple[str, ...]:
  """The strings that occur in at least `min_examples` lists, sorted."""
  counts = collections.Counter(string for strings in lists for string in set(strings))
  return tuple(sorted(s for s, count in counts.items() if count >= min_examples))


def _tokens(
  lists: Iterable[Sequence[str]], vocabulary: Sequence[str], *, ordered: bool = False
) -> tuple[Ragged, Modality]:
  """The ids of the strings that are in the vocabulary, in the order of the lists."""
  index = {string: i for i, string in enumerate(vocabulary)}
  ids = [[index[string] for string in strings if string in index] for strings in lists]
  # A modality without any string, such as triples without the wheel, has one unused id.
  modality = Modality("tokens", max(len(vocabulary), 1), ordered=ordered)
  return from_lists(ids, dtype=np.int32), modality


def _standardised(numbers: Sequence[int | None]) -> Ragged:
  """One vector of one standardised number per known number; none for None."""
  known = np.array([n for n in numbers if n is not None], np.float64)
  mean = known.mean() if known.size else 0.0
  deviation = (known.std() if known.size else 0.0) or 1.0
  vectors = [[] if n is None else [[(n - mean) / deviation]] for n in numbers]
  return from_lists(vectors, dtype=np.float32, feature_shape=(1,))


def _display(film: Any) -> str:
  """The title with its year, as far as they are known."""
  title = film.title or f"film {film.id}"
  return title if film.year is None else f"{title} ({film.year})"


ENTRY = DatasetEntry(load_histories=lambda config: load_movielens(config.path))
