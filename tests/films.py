"""A table of films in which the label can be learned, of every kind of column."""

import io

import numpy as np
import PIL.Image
import pyarrow as pa

WORDS = ("war", "love", "space", "dog", "king", "song", "ship", "ghost")


def table(rows=60, seed=0, label="genres"):
  """Rows with an id, six modalities, any of them absent, and a label of some kind."""
  rng = np.random.default_rng(seed)
  genre = rng.integers(0, 2, rows)

  def some(values, rate=0.2):
    return [None if rng.random() < rate else value for value in values]

  def words(which):
    return " ".join(rng.choice(WORDS[4 * which : 4 * which + 4], rng.integers(1, 6)))

  faces = [(g + rng.normal(size=(rng.integers(0, 3), 4))).tolist() for g in genre]
  labels = {
    "genres": pa.array([[["Drama"], ["War", "Drama"]][g] for g in genre]),
    "class": pa.array([["Drama", "War"][g] for g in genre]),
    "hit": pa.array(genre.astype(bool)),
    "money": pa.array(genre * 1e6 + rng.normal(size=rows) * 1e3),
  }
  return pa.table(
    {
      "film_id": [f"film {i}" for i in range(rows)],
      "plot": some([words(g) for g in genre]),
      "cast": some([[f"actor {n}" for n in rng.integers(0, 20, 3)] for _ in genre]),
      "faces": pa.array(some(faces), pa.list_(pa.list_(pa.float32(), 4))),
      "year": some((1950 + 50 * genre + rng.integers(0, 9, rows)).tolist()),
      "country": some(rng.choice(["fr", "us"], rows).tolist()),
      "poster": some([picture(40 * int(g)) for g in genre]),
      label: labels[label],
    }
  )


def picture(shade):
  """The bytes of a small PNG."""
  file = io.BytesIO()
  PIL.Image.new("L", (4, 6), shade).save(file, "PNG")
  return file.getvalue()
