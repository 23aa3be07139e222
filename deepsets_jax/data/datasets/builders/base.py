"""What the builders share: array_record, the manual folder, pictures."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from deepsets_jax.data.ingest.files.records import AT_MOST_ONE
from deepsets_jax.foundation.errors import DataError


class SetBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A builder that writes array_record, which TFDS reads and writes without TensorFlow.

  Records stay in the order of the source.
  """

  def __init__(self, *, file_format: str | None = None, **kwargs: Any):
    super().__init__(file_format=file_format or "array_record", **kwargs)

  def info_of(
    self,
    features: Mapping[str, Any],
    *,
    homepage: str,
    licence: str,
  ) -> tfds.core.DatasetInfo:
    """The description of the data set; the rest is in the files beside the builder."""
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features),
      homepage=homepage,
      license=licence,
      disable_shuffling=True,
    )

  def manual_path(
    self, dl_manager: tfds.download.DownloadManager, names: Sequence[str]
  ) -> pathlib.Path:
    """The first of these files or folders that is in the manual folder.

    Raises:
      DataError: None is there; it says which folder, and how to come by the files.
    """
    try:
      folder = pathlib.Path(dl_manager.manual_dir)
    except AssertionError as error:
      # No such folder, or nothing in it; TFDS says where and quotes the instructions.
      raise DataError(f"{self.name}: {error}") from error
    for name in names:
      if (folder / name).exists():
        return folder / name
    raise DataError(
      f"{self.name}: none of {list(names)} in the manual folder {folder}.\n"
      f"{self.MANUAL_DOWNLOAD_INSTRUCTIONS}"
    )

  def check_counts(
    self, where: pathlib.Path, found: Mapping[str, int], expected: Mapping[str, int]
  ) -> None:
    """Raises for a source that does not hold as much as the published one.

    Raises:
      DataError: It names what was found and what was expected.
    """
    if dict(found) != dict(expected):
      raise DataError(
        f"{self.name}: {where} has {dict(found)}, expected {dict(expected)}: the file"
        f" is cut off, or another one.\n{self.MANUAL_DOWNLOAD_INSTRUCTIONS}"
      )


def optional_picture(desc: str) -> tfds.features.Sequence:
  """The feature of one picture, or none where there is none."""
  return tfds.features.Sequence(
    tfds.features.Image(),
    doc=tfds.features.Documentation(desc=desc, value_range=AT_MOST_ONE),
  )


def picture(path: pathlib.Path, what: str) -> bytes:
  """The bytes of a picture's file, looked at so far as to know that it is one.

  Raises:
    DataError: The file cannot be read as a picture.
  """
  try:
    content = path.read_bytes()
    with PIL.Image.open(io.BytesIO(content)):
      pass
  except (OSError, PIL.Image.DecompressionBombError) as error:
    raise DataError(
      f"{what}: {path} is no picture that can be read ({error}); replace the file, or"
      " remove it, and the picture is absent"
    ) from error
  return content


def png(pixels: np.ndarray) -> bytes:
  """PNG of `[height, width, 3]` uint8: TFDS itself would need TensorFlow for that."""
  buffer = io.BytesIO()
  PIL.Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
  return buffer.getvalue()


def unique(ids: Iterable[str], where: str) -> None:
  """Raises for an id that is there twice: the same example in two places.

  Raises:
    DataError: It names the first such id.
  """
  seen = set()
  for row, name in enumerate(ids):
    if name in seen:
      raise DataError(
        f"{where}: id {name!r} of row {row} is there before; each example has an id of"
        " its own, so remove one of them"
      )
    seen.add(name)
