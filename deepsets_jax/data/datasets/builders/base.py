"""Shared by the builders: array_record files, the manual folder, pictures."""

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
  """A builder that writes array_record, the format that needs no TensorFlow.

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
    """Returns the description of the data set, with the files beside the builder."""
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features),
      homepage=homepage,
      license=licence,
      disable_shuffling=True,
    )

  def manual_path(
    self, dl_manager: tfds.download.DownloadManager, names: Sequence[str]
  ) -> pathlib.Path:
    """Returns the first of these files or folders that the manual folder has.

    Raises:
      DataError: It has none. The message names the folder and where to get the files.
    """
    try:
      folder = pathlib.Path(dl_manager.manual_dir)
    except AssertionError as error:
      # The folder is missing or empty; the message of TFDS has the instructions.
      raise DataError(f"{self.name}: {error}") from error
    for name in names:
      if (folder / name).exists():
        return folder / name
    raise DataError(
      f"{self.name}: none of {list(names)} is in the manual folder {folder}.\n"
      f"{self.MANUAL_DOWNLOAD_INSTRUCTIONS}"
    )

  def check_counts(
    self, where: pathlib.Path, found: Mapping[str, int], expected: Mapping[str, int]
  ) -> None:
    """Checks that a source holds as many examples as the published data set.

    Raises:
      DataError: A count differs; the message names what was found and expected.
    """
    if dict(found) != dict(expected):
      raise DataError(
        f"{self.name}: {where} has {dict(found)}, expected {dict(expected)}: it is"
        f" truncated or another file.\n{self.MANUAL_DOWNLOAD_INSTRUCTIONS}"
      )


def optional_picture(desc: str) -> tfds.features.Sequence:
  """Returns the TFDS feature of at most one picture."""
  return tfds.features.Sequence(
    tfds.features.Image(),
    doc=tfds.features.Documentation(desc=desc, value_range=AT_MOST_ONE),
  )


def read_picture(path: pathlib.Path, what: str) -> bytes:
  """Returns the bytes of a picture file, after a check of its header.

  Args:
    path: The file.
    what: The example that it belongs to, for messages.

  Raises:
    DataError: The file cannot be read as a picture.
  """
  try:
    content = path.read_bytes()
    with PIL.Image.open(io.BytesIO(content)):
      pass
  except (OSError, PIL.Image.DecompressionBombError) as error:
    raise DataError(
      f"{what}: {path} cannot be read as a picture ({error}); replace the file, or"
      " remove it to make the picture absent"
    ) from error
  return content


def encode_png(pixels: np.ndarray) -> bytes:
  """Returns `[height, width, 3]` uint8 as PNG; TFDS would need TensorFlow for that."""
  buffer = io.BytesIO()
  PIL.Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
  return buffer.getvalue()


def check_unique(ids: Iterable[str], where: str) -> None:
  """Checks that no id occurs twice, which would be one example twice.

  Raises:
    DataError: One does; the message names the first.
  """
  seen = set()
  for row, name in enumerate(ids):
    if name in seen:
      raise DataError(
        f"{where}: row {row} has the id {name!r} of an earlier row; ids are unique, so"
        " remove one of the two"
      )
    seen.add(name)
