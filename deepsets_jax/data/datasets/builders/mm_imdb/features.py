"""`multimodal_imdb.hdf5`: films in the order of the splits, a row of each array a film.

Arrays, as make_dataset.py of github.com/johnarevalo/gmu-mmimdb writes them: `features
[n, 300]` float32, the mean word2vec of the longest plot; `vgg_features [n, 4096]`
float32; `genres [n, 23]` of 0 and 1; `imdb_ids [n]` of seven digits; `images
[n, 3, 256, 160]` int32. There are others, which are not read.
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

# What was taken off the channels of a picture, blue, green and red: the means of VGG.
_MEANS = np.array([103.939, 116.779, 123.68])
# Films read at a time: 9 MB of vectors, and 252 MB where pictures are read, too.
_ROWS = 512


@contextlib.contextmanager
def opened(path: pathlib.Path, *, images: bool) -> Iterator[Any]:
  """The file, its arrays' shapes and genres' names checked.

  Raises:
    DataError: It is no such file.
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
          f" {['films', *shape]}; it has {sorted(file)}: fetch the file again"
        )
    _check_names(file["genres"], path)
    yield file


def import_h5py() -> Any:
  """The module.

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
  """Raises where the columns are other genres, or in another order."""
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


def ids(file: Any) -> list[str]:
  """IMDb's number of each film, or its row where the file has none."""
  if "imdb_ids" not in file:
    return [f"row{row}" for row in range(len(file["features"]))]
  return [name.decode() for name in file["imdb_ids"][:]]


def films(file: Any, rows: range, *, images: bool) -> Iterator[dict[str, Any]]:
  """The arrays of each of these films: `features`, `vgg_features`, genres' indices.

  Raises:
    DataError: A number that is not finite, a genre that is neither 0 nor 1.
  """
  for begin in range(rows.start, rows.stop, _ROWS):
    part = slice(begin, min(begin + _ROWS, rows.stop))
    arrays = {name: file[name][part] for name in (*SIZES, "genres")}
    _check(file, arrays, begin)
    pictures = file["images"][part] if images else None
    for place in range(part.stop - part.start):
      film = {name: arrays[name][place].astype(np.float32) for name in SIZES}
      film["genres"] = np.flatnonzero(arrays["genres"][place]).tolist()
      if pictures is not None:
        film["image"] = pixels(pictures[place])
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


def pixels(image: np.ndarray) -> np.ndarray:
  """The picture, `[256, 160, 3]` uint8 of red, green and blue.

  The file has blue, green, red less VGG's means, cut to whole numbers towards zero.
  That is undone exactly but for 0, where two neighbouring values were cut to one.
  """
  above = np.ceil(_MEANS)[:, None, None]
  values = image + above - (image < 0)
  return np.clip(values, 0, 255).astype(np.uint8)[::-1].transpose(1, 2, 0)
