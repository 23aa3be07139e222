"""Ads-Parallelity: is the slogan of an ad parallel to its picture? From a user's files.

Zhang, Hwa and Kovashka, "Equal But Not The Same", BMVC 2018, arXiv 1807.08205. No
published format of these data is known, so the manual folder has a simple one, below.
"""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from deepsets_jax.data.datasets.builders import base
from deepsets_jax.foundation.errors import DataError

_SPLITS = ("train", "validation", "test")
_FOLDS = 5


@dataclasses.dataclass(frozen=True)
class _Ad:
  """A row of the file: where it is, for messages, and what it has."""

  where: str
  id: str
  image: str
  slogan: str
  parallel: int
  split: str


class Builder(base.SetBuilder):
  """One example for each ad: a picture and a slogan, of which one may be absent."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "The first."}  # noqa: RUF012
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
  Ask the authors of https://arxiv.org/abs/1807.08205 for the annotations, and get the
  pictures of the Pitt ads data set, https://people.cs.pitt.edu/~kovashka/ads/. Put into
  the manual folder:
  * annotations.csv, UTF-8, with a header: image (a path below images/; empty where
    there is no picture), slogan (empty where there is none), parallel (0 or 1), and, if
    you like, id and split (train, validation or test)
  * images/, the folder of the pictures
  """
  BUILDER_CONFIGS = [  # noqa: RUF012
    tfds.core.BuilderConfig(
      name="splits", description="Split by the column `split` of the annotations."
    ),
    *(
      tfds.core.BuilderConfig(
        name=f"fold{fold}",
        description=f"Fold {fold} of {_FOLDS} is the test part, the next validation.",
      )
      for fold in range(_FOLDS)
    ),
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      "id": tfds.features.Text(),
      "image": base.optional_picture("The ad."),
      "slogan": tfds.features.Text(doc="Empty where there is none."),
      "parallel": tfds.features.ClassLabel(names=["non-parallel", "parallel"]),
    }
    return self.info_of(
      features,
      homepage="https://arxiv.org/abs/1807.08205",
      licence="Of the annotations: ask the authors. Of the ads: their owners'.",
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
    path = self.manual_path(dl_manager, ("annotations.csv",))
    ads = _read(path)
    base.unique((ad.id for ad in ads), str(path))
    config = self.builder_config.name
    if config == "splits":
      parts = [_checked_split(ad) for ad in ads]
    else:
      parts = _folded(ads, int(config.removeprefix("fold")))
    images = path.parent / "images"
    return {
      split: self._generate_examples(
        [ad for ad, part in zip(ads, parts, strict=True) if part == split], images
      )
      for split in _SPLITS
    }

  def _generate_examples(
    self, ads: list[_Ad], images: pathlib.Path
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, ad in enumerate(ads):
      pictures = [base.picture(images / ad.image, ad.where)] if ad.image else []
      yield (
        row,
        {
          "id": ad.id,
          "image": pictures,
          "slogan": ad.slogan,
          "parallel": ad.parallel,
        },
      )


def _read(path: pathlib.Path) -> list[_Ad]:
  """The rows of the file, checked one by one."""
  try:
    # With a byte order mark or without.
    with path.open(newline="", encoding="utf-8-sig") as file:
      reader = csv.DictReader(file)
      missing = {"image", "slogan", "parallel"} - set(reader.fieldnames or ())
      if missing:
        raise DataError(
          f"{path}: no column {sorted(missing)[0]!r}; it has {reader.fieldnames}, and"
          " needs image, slogan and parallel"
        )
      return [_ad(path, row, fields) for row, fields in enumerate(reader)]
  except (UnicodeDecodeError, csv.Error) as error:
    raise DataError(f"{path}: {error}; save it as CSV in UTF-8") from error


def _ad(path: pathlib.Path, row: int, fields: dict[str, str]) -> _Ad:
  where = f"{path}: row {row}"
  value = {name: (text or "").strip() for name, text in fields.items() if name}
  if value["parallel"] not in ("0", "1"):
    raise DataError(f"{where}: parallel is {value['parallel']!r}; expected 0 or 1")
  if not value["image"] and not value["slogan"]:
    raise DataError(f"{where} has neither image nor slogan; leave the row out")
  if value["image"] and not (path.parent / "images" / value["image"]).is_file():
    raise DataError(
      f"{where}: no file {value['image']!r} in {path.parent / 'images'}; put it there,"
      " or leave the field empty, and the picture is absent"
    )
  return _Ad(
    where,
    value.get("id") or str(row),
    value["image"],
    value["slogan"],
    int(value["parallel"]),
    value.get("split", ""),
  )


def _checked_split(ad: _Ad) -> str:
  if ad.split not in _SPLITS:
    raise DataError(
      f"{ad.where}: split is {ad.split!r}; expected one of {list(_SPLITS)}, or build"
      " the configs fold0 to fold4, which need none"
    )
  return ad.split


def _folded(ads: list[_Ad], fold: int) -> list[str]:
  """The split of each ad. All slogans of one picture are in one fold.

  The paper's folds are not known; these come from one shuffle of the pictures.
  """
  # Ads without a picture are alone with their id.
  keys = [ad.image or f"\0{ad.id}" for ad in ads]
  unique = sorted(set(keys))
  order = np.random.default_rng(0).permutation(len(unique))
  fold_of = {unique[place]: i % _FOLDS for i, place in enumerate(order)}
  parts = {fold: "test", (fold + 1) % _FOLDS: "validation"}
  return [parts.get(fold_of[key], "train") for key in keys]
