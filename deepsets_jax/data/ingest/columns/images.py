"""Read a column of images as a modality of their pixels.

To use features of a pretrained network instead, run `experiments.extract` first.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa

from deepsets_jax.data.ingest import pictures
from deepsets_jax.data.ingest.columns import cells
from deepsets_jax.data.ingest.pictures import PictureError
from deepsets_jax.data.tables.schema import Modality
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged, from_lengths

# Fields of a struct with an image, as Hugging Face writes it.
_FIELDS = ("bytes", "path")
# Number of unreadable images that are listed; all are counted.
_LISTED = 20
# Images are not made smaller before they are resized to a square.
_ANY_SIDE = 1 << 30


@dataclasses.dataclass(frozen=True)
class ImageFolder:
  """The folder that relative paths of images start from: that of the table's file."""

  path: str = "."

  def to_json(self) -> dict[str, Any]:
    """Return the state as values of JSON."""
    return {"path": self.path}


class Unreadable:
  """The number of unreadable images per column, and a list of the first of them."""

  def __init__(self, counts: Mapping[str, int] | None = None, first: Any = ()):
    self.counts = collections.Counter(counts or {})
    self._first = list(first)

  def add(self, row: int, column: str, reason: str) -> None:
    """Add one image."""
    self.counts[column] += 1
    if len(self._first) < _LISTED:
      self._first.append(f"row {row}, column {column!r}: {reason}")

  def merge(self, other: Unreadable) -> None:
    """Add the images of other rows."""
    self.counts.update(other.counts)
    self._first = [*self._first, *other._first][:_LISTED]

  def to_json(self) -> dict[str, Any]:
    """Return the arguments of `Unreadable` as values of JSON."""
    return {"counts": dict(self.counts), "first": self._first}

  def describe(self, where: str) -> str:
    """Return lines for a terminal; `where` is the name of the file."""
    count = self.counts.total()
    noun, verb = ("image", "is") if count == 1 else ("images", "are")
    lines = [f"{where}: {count} {noun} cannot be read and {verb} absent:"]
    lines += [f"  {line}" for line in self._first]
    if count > len(self._first):
      lines.append(f"  and {count - len(self._first)} more")
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class ImageColumn(cells.OneColumn):
  """Any number of images per cell, each a vector of its pixels.

  An image is given by its bytes or its path. It is turned to its EXIF orientation.
  16-bit grey becomes 8-bit grey, CMYK and palettes become RGB, and transparent pixels
  are drawn on white.

  Attributes:
    column: Name of the column in the file.
    size: Side of the square that images are resized to, in pixels. Vectors have
      3 * size ** 2 numbers from -1 to 1.
    separator: Text between several paths in one string; None for one path.
    unreadable: An image that cannot be read is "absent", with a report, or an "error".
  """

  column: str
  size: int = 32
  separator: str | None = None
  unreadable: str = "absent"

  kind = "image"
  takes = "the bytes or the path of an image, or a list of these"

  def __post_init__(self):
    if self.size < 1:
      raise ConfigError(f"size {self.size}: expected at least 1 pixel")
    if self.separator == "":
      raise ConfigError("separator '': expected a character, or null")
    if self.unreadable not in ("absent", "error"):
      raise ConfigError(f"unreadable {self.unreadable!r}: expected 'absent' or 'error'")

  @staticmethod
  def accepts(kind: pa.DataType) -> bool:
    """Whether columns of this Arrow type can be read as this column type."""
    return _is_image(kind.value_type if cells.is_list(kind) else kind)

  def fitting(self) -> _ImageFitting:
    """Return an object that fits the state on the training part."""
    return _ImageFitting()

  @staticmethod
  def restore(value: Mapping[str, Any]) -> ImageFolder:
    """Restore the state from values of JSON."""
    return ImageFolder(**value)

  def modality(self, fitted: ImageFolder) -> Modality:
    """Return the schema of the modality."""
    del fitted
    return Modality("vectors", 3 * self.size**2)

  def encode(
    self,
    column: pa.Array,
    fitted: ImageFolder,
    skipped: Callable[[int, str], Any] | None = None,
  ) -> Ragged:
    """Encode cells as pixels, `[n, d]` float32.

    Args:
      column: The cells.
      fitted: The folder that relative paths start from.
      skipped: Called with the index of the cell and the reason for each image that
        cannot be read and is absent. With None, such an image raises.

    Raises:
      CellError: An image cannot be read, and `skipped` is None or `unreadable` is
        "error".
    """
    values, lengths = [], np.zeros(len(column), np.int64)
    for index, cell in enumerate(column.to_pylist()):
      for image in self._images(cell):
        try:
          values.append(self._pixels(image, fitted.path))
        except PictureError as error:
          if skipped is None or self.unreadable == "error":
            raise cells.CellError(
              index,
              f"the image cannot be read: {error}",
              "repair it, or leave the cell empty",
            ) from error
          skipped(index, str(error))
        else:
          lengths[index] += 1
    shape = (-1, 3 * self.size**2)
    return from_lengths(np.array(values, np.float32).reshape(shape), lengths)

  def _images(self, cell: Any) -> Iterator[bytes | str]:
    """Yield the bytes or paths in a cell; none if it is null or empty."""
    for image in cell if isinstance(cell, list) else [cell]:
      if isinstance(image, dict):
        image = next((image[n] for n in _FIELDS if image.get(n)), None)
      if isinstance(image, str) and self.separator is not None:
        yield from filter(None, map(str.strip, image.split(self.separator)))
      elif image:
        yield image

  def _pixels(self, image: bytes | str, folder: str) -> np.ndarray:
    data = pictures.read(image, folder) if isinstance(image, str) else image
    try:
      decoded = pictures.decode(data, _ANY_SIDE)
    except PictureError as error:
      if not isinstance(image, str):
        raise
      raise PictureError(f"{image}: {error}") from error
    small = PIL.Image.fromarray(decoded).resize((self.size, self.size))
    return np.asarray(small, np.float32).reshape(-1) / 127.5 - 1


def _is_image(kind: pa.DataType) -> bool:
  if pa.types.is_struct(kind):
    names = {field.name for field in kind}
    return bool(names & set(_FIELDS)) and all(
      _is_image(field.type) for field in kind if field.name in _FIELDS
    )
  is_a = pa.types
  return is_a.is_binary(kind) or is_a.is_string(kind) or is_a.is_null(kind)


class _ImageFitting:
  """Checks that there is an image; no state depends on the data."""

  def __init__(self):
    self._some = False

  def add(self, column: pa.Array) -> None:
    """Add some cells."""
    self._some |= column.null_count < len(column)

  def merge(self, other: _ImageFitting) -> None:
    """Merge the fitting of other rows."""
    self._some |= other._some

  def result(self) -> ImageFolder:
    """Return the folder at hand, to be replaced by `Encoding.with_image_folder`.

    Raises:
      ConfigError: There was no image.
    """
    if not self._some:
      raise ConfigError("no training example has a value in it")
    return ImageFolder()
