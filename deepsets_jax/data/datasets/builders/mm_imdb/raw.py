"""The raw archive of MM-IMDb: a JSON file and a poster for each film, and the splits.

`split.json` stands beside the folder `dataset/` with the files `<id>.json`, written by
IMDbPY, and `<id>.jpeg`. A film with several plots is one example: one example per plot
would count films many times.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from deepsets_jax.data.datasets.builders import base
from deepsets_jax.data.datasets.builders.mm_imdb.genres import GENRES
from deepsets_jax.foundation.errors import DataError

ARCHIVES = ("mmimdb.tar.gz", "mmimdb.zip")
FOLDERS = ("mmimdb", "dataset")
SPLITS = {"train": "train", "dev": "validation", "test": "test"}


def read_splits(root: pathlib.Path) -> dict[str, list[str]]:
  """Returns {split: ids of its films}, in the order of `split.json`.

  Raises:
    DataError: The file is missing, damaged, or has a film twice.
  """
  path = root / "split.json"
  try:
    content = json.loads(path.read_text("utf-8"))
    found = {ours: [str(i) for i in content[name]] for name, ours in SPLITS.items()}
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise DataError(
      f"{path} is missing or damaged ({error!r}); expected lists of ids named"
      f" {list(SPLITS)}: unpack the archive again"
    ) from error
  base.check_unique((name for names in found.values() for name in names), str(path))
  return found


def unpack(archive: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Unpacks an archive into a subfolder of `folder`, unless an earlier build did.

  TFDS would need TensorFlow for that. Returns the subfolder.

  Raises:
    DataError: The archive is damaged.
  """
  state = archive.stat()
  target = folder / f"{archive.name}.{state.st_size}.{state.st_mtime_ns}"
  if target.exists():
    return target
  folder.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix=".mmimdb.", dir=folder) as temporary:
    inner = pathlib.Path(temporary) / "unpacked"
    # A tar may name paths outside of the folder, which the filter refuses.
    safe = {"filter": "data"} if archive.suffix == ".gz" else {}
    try:
      shutil.unpack_archive(archive, inner, **safe)
    except (
      OSError,
      EOFError,
      shutil.ReadError,
      tarfile.TarError,
      zipfile.BadZipFile,
      zlib.error,
    ) as error:
      raise DataError(
        f"{archive} cannot be unpacked ({error}); fetch it again"
      ) from error
    inner.rename(target)
  return target


def find_root(folder: pathlib.Path) -> pathlib.Path:
  """Returns the folder with `split.json`: this one, its parent, or `mmimdb` in it."""
  for root in (folder, folder.parent, folder / "mmimdb"):
    if (root / "split.json").is_file():
      return root
  raise DataError(
    f"{folder}: no split.json in it, beside it or in its folder mmimdb; unpack the"
    " archive again, and keep split.json beside dataset/"
  )


def read_film(root: pathlib.Path, name: str) -> dict[str, Any]:
  """Returns the features of a film; absent values are written as TFDS needs them.

  Raises:
    DataError: The film's file is missing or damaged, or its poster is not a picture.
  """
  path = root / "dataset" / f"{name}.json"
  try:
    content = json.loads(path.read_text("utf-8"))
    plots = _strings(content, "plot")
    genres = _strings(content, "genres")
    year = content.get("year")
    year = np.nan if year is None else float(year)
    people = {key: _people(content, key) for key in ("cast", "director")}
  except (OSError, ValueError, TypeError, AttributeError) as error:
    raise DataError(
      f"{path}, film {name!r}, is missing or damaged ({error}); unpack the archive"
      " again"
    ) from error
  poster = path.with_suffix(".jpeg")
  return {
    "imdb_id": name,
    "title": str(content.get("title") or ""),
    "year": year,
    # The first of the longest, by characters, as in the file of features.
    "plot": max(plots, key=len, default=""),
    "plots": plots,
    "plot_outline": str(content.get("plot outline") or ""),
    "cast": people["cast"],
    "directors": people["director"],
    "poster": [base.read_picture(poster, f"film {name!r}")] if poster.exists() else [],
    "genres": [genre for genre in genres if genre in GENRES],
    "other_genres": [genre for genre in genres if genre not in GENRES],
  }


def _strings(content: Mapping[str, Any], key: str) -> list[str]:
  """The distinct strings under a key, in order; the value is a string or a list."""
  found = content.get(key) or []
  found = [found] if isinstance(found, str) else found
  if not all(isinstance(value, str) for value in found):
    raise TypeError(f"{key!r} is {str(found)[:80]}, expected strings")
  return list(dict.fromkeys(value for value in found if value))


def _people(content: Mapping[str, Any], key: str) -> list[str]:
  """The names of people, who are strings or the records of IMDbPY."""
  found = content.get(key) or []
  names = [
    person if isinstance(person, str) else person.get("name") for person in found
  ]
  return [name for name in names if name]
