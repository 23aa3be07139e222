"""Reads `multimodal_imdb.hdf5`: one row per film, in the order of the splits.

make_dataset.py of github.com/johnarevalo/gmu-mmimdb writes these arrays: `features
[n, 300]` float32, the mean word2vec of the longest plot; `vgg_features [n, 4096]`
float32; `genres [n, 23]` of 0 and 1; `imdb_ids [n]` of seven digits; `images
[n, 3, 256, 160]` int32. Its other arrays are not read.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from deepsets_jax.data.datasets.builders.mm_imdb.genres import GENRES
from deepsets_jax.foundation.errors import DataError

FILE = "multimodal_imdb.hdf5"
SIZES = {"features": 300, "vgg_features": 4096}
IMAGE = (3, 256, 160)

# The means of VGG, subtracted from the channels of a picture: blue, green, red.
_MEANS = np.array([103.939, 116.779, 123.68])
# Films read at a time: 9 MB of vectors, and 252 MB with pictures.
_ROWS = 512


@contextlib.contextmanager
def open_films(path: pathlib.Path, *, images: bool) -> Iterator[Any]:
  """Opens the file, and checks the shapes of the arrays and the names of the genres.

  Args:
    path: The file.
    images: Whether the file must have pictures.

  Raises:
    DataError: The file cannot be read, or has another content.
    ModuleNotFoundError: h5py is not installed.
  """
  h5py = import_h5py()
  try:
    file = h5py.File(path, "r")
  except OSError as error:
    raise DataError(
      f"{path} cannot be read as HDF5 ({error}); fetch it again"
    ) from error
  with file:
    shapes = {name: (size,) for name, size in SIZES.items()}
    shapes |= {"genres": (len(GENRES),)} | ({"images": IMAGE} if images else {})
    for name, shape in shapes.items():
      found = file[name].shape if name in file else None
      if found is None or found[1:] != shape or found[0] != file["features"].shape[0]:
        raise DataError(
          f"{path}: array {name!r} has shape {found}, expected"
          f" {['films', *shape]}; the file has {sorted(file)}: fetch it again"
        )
    _check_names(file["genres"], path)
    yield file


def import_h5py() -> Any:
  """Imports h5py.

  Raises:
    ModuleNotFoundError: It is not installed; the message names the extra.
  """
  try:
    import h5py
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      f"{FILE} is read and written with h5py: pip install 'deepsets-jax[hdf5]'"
    ) from error
  return h5py


def _check_names(genres: Any, path: pathlib.Path) -> None:
  """Checks that the columns are the known genres, in the known order."""
  names = genres.attrs.get("target_names")
  if names is not None:
    names = json.loads(names)
    if names != list(GENRES):
      raise DataError(
        f"{path}: the columns of 'genres' are {names}, expected {list(GENRES)}; it is"
        " another version of the data"
      )
    return
  counts = genres[:].sum(axis=0)
  if (np.diff(counts) > 0).any():
    raise DataError(
      f"{path}: 'genres' has no names, and the films of each column, {counts.tolist()},"
      f" do not decrease, as those of {list(GENRES)} do; fetch the file again"
    )


def read_ids(file: Any) -> list[str]:
  """Returns the IMDb number of each film, or "row<i>" in a file without numbers."""
  if "imdb_ids" not in file:
    return [f"row{row}" for row in range(len(file["features"]))]
  return [name.decode() for name in file["imdb_ids"][:]]


def read_films(file: Any, rows: range, *, images: bool) -> Iterator[dict[str, Any]]:
  """Yields `features`, `vgg_features` and the indices of `genres` of some films.

  Args:
    file: The open file.
    rows: The films.
    images: Whether to yield the picture, too, as `image`.

  Raises:
    DataError: A number is not finite, or a genre is neither 0 nor 1.
  """
  for begin in range(rows.start, rows.stop, _ROWS):
    part = slice(begin, min(begin + _ROWS, rows.stop))
    arrays = {name: file[name][part] for name in (*SIZES, "genres")}
    _check(file, arrays, begin)
    pictures = file["images"][part] if images else None
    for row in range(part.stop - part.start):
      film = {name: arrays[name][row].astype(np.float32) for name in SIZES}
      film["genres"] = np.flatnonzero(arrays["genres"][row]).tolist()
      if pictures is not None:
        film["image"] = to_pixels(pictures[row])
      yield film


def _check(file: Any, arrays: Mapping[str, np.ndarray], begin: int) -> None:
  good = {name: np.isfinite(arrays[name]).all(axis=1) for name in SIZES}
  good["genres"] = np.isin(arrays["genres"], (0, 1)).all(axis=1)
  for name, rows in good.items():
    if not rows.all():
      row = int(np.argmin(rows))
      raise DataError(
        f"{file.filename}: row {begin + row} of {name!r} has a value that is not"
        f" {'0 or 1' if name == 'genres' else 'finite'}; fetch the file again"
      )


def to_pixels(image: np.ndarray) -> np.ndarray:
  """Recovers a picture, `[256, 160, 3]` uint8 of red, green and blue.

  The file has blue, green and red minus VGG's means, truncated to integers towards
  zero. This is inverted exactly except at 0, to which two neighbouring values were
  truncated.
  """
  above = np.ceil(_MEANS)[:, None, None]
  values = image + above - (image < 0)
  return np.clip(values, 0, 255).astype(np.uint8)[::-1].transpose(1, 2, 0)
