"""MM-IMDb: the genres of 25,959 films, from their plots and posters.

Arevalo, Solorio, Montes-y-Gomez and Gonzalez, "Gated Multimodal Units for Information
Fusion", ICLR workshop 2017, arXiv 1702.01992.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from deepsets_jax.data.datasets.builders import base
from deepsets_jax.data.datasets.builders.mm_imdb import features, raw
from deepsets_jax.data.datasets.builders.mm_imdb.genres import GENRES

# Films of each split, in the order of the file of features.
COUNTS = {"train": 15552, "validation": 2608, "test": 7799}


class Builder(base.SetBuilder):
  """One example per film, in the standard splits."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "The first."}  # noqa: RUF012
  MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
  From http://lisi1.unal.edu.co/mmimdb/, or johnarevalo/mmimdb at Kaggle, put into the
  manual folder
  * for the configs features and images: {features.FILE}
  * for the config raw: {raw.ARCHIVES[0]}, or {raw.ARCHIVES[1]}, or what is in it, the
    folder dataset/ with split.json beside it
  """
  BUILDER_CONFIGS = [  # noqa: RUF012
    tfds.core.BuilderConfig(
      name="features", description="Vectors of plot (word2vec) and poster (VGG)."
    ),
    tfds.core.BuilderConfig(
      name="images", description="As features, with posters of 160 x 256 pixels."
    ),
    tfds.core.BuilderConfig(
      name="raw", description="Plots, names of people, and the original posters."
    ),
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    declared = {"imdb_id": tfds.features.Text()}
    if self.builder_config.name == "raw":
      declared |= _RAW
    else:
      declared |= {
        name: tfds.features.Tensor(shape=(size,), dtype=np.float32)
        for name, size in features.SIZES.items()
      }
    if self.builder_config.name == "images":
      channels, height, width = features.IMAGE
      declared["image"] = tfds.features.Image(shape=(height, width, channels))
    declared["genres"] = tfds.features.Sequence(
      tfds.features.ClassLabel(names=list(GENRES))
    )
    return self.info_of(
      declared,
      homepage="http://lisi1.unal.edu.co/mmimdb/",
      licence="Not stated; plots and posters are IMDb's and their owners'.",
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
    if self.builder_config.name == "raw":
      path = self.manual_path(dl_manager, (*raw.FOLDERS, *raw.ARCHIVES))
      if path.is_file():
        path = raw.unpack(path, pathlib.Path(dl_manager.download_dir))
      root = raw.find_root(path)
      names = raw.read_splits(root)
      counts = {split: len(films) for split, films in names.items()}
      self.check_counts(root / "split.json", counts, COUNTS)
      return {
        split: self._generate_examples(root, films) for split, films in names.items()
      }
    path = self.manual_path(dl_manager, (features.FILE,))
    with features.open_films(path, images=self.builder_config.name == "images") as file:
      names = features.read_ids(file)
    self.check_counts(path, {"films": len(names)}, {"films": sum(COUNTS.values())})
    base.check_unique(names, str(path))
    cuts = np.cumsum([0, *COUNTS.values()]).tolist()
    return {
      split: self._generate_examples(path, names[begin:end], begin)
      for split, begin, end in zip(COUNTS, cuts[:-1], cuts[1:], strict=True)
    }

  def _generate_examples(
    self, path: pathlib.Path, names: list[str], begin: int = 0
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the films `names`, which begin at row `begin` of a file of features."""
    if self.builder_config.name == "raw":
      for row, name in enumerate(names):
        yield row, raw.read_film(path, name)
      return
    images = self.builder_config.name == "images"
    rows = range(begin, begin + len(names))
    with features.open_films(path, images=images) as file:
      for row, film in enumerate(features.read_films(file, rows, images=images)):
        if images:
          film["image"] = base.encode_png(film["image"])
        yield row, {"imdb_id": names[row], **film}


_text = tfds.features.Text
_RAW = {
  "title": _text(),
  "year": tfds.features.Scalar(np.float32, doc="NaN if unknown."),
  "plot": _text(doc="The longest of the plots; empty if there is none."),
  "plots": tfds.features.Sequence(_text()),
  "plot_outline": _text(doc="Empty if there is none."),
  "cast": tfds.features.Sequence(_text()),
  "directors": tfds.features.Sequence(_text()),
  "poster": base.optional_picture("The original, of any size."),
  "other_genres": tfds.features.Sequence(
    _text(), doc="Genres outside the 23, which are not labels."
  ),
}
