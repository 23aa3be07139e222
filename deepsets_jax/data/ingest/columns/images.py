"""A column of pictures as a modality of their pixels.

For what a pretrained network sees in them, use `experiments.extract` first.
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

# Fields of a struct that is a picture, as Hugging Face writes it.
_FIELDS = ("bytes", "path")
# Pictures that cannot be read and are listed; all are counted.
_LISTED = 20
# No picture is made smaller before it is resized to a square.
_ANY_SIDE = 1 << 30


@dataclasses.dataclass(frozen=True)
class ImageFolder:
  """Where paths begin that are not absolute: that of the table's file."""

  path: str = "."

  def to_json(self) -> dict[str, Any]:
    """Of plain values."""
    return {"path": self.path}


class Unreadable:
  """Counts the pictures that cannot be read, by column, and lists the first of them."""

  def __init__(self, counts: Mapping[str, int] | None = None, first: Any = ()):
    self.counts = collections.Counter(counts or {})
    self._first = list(first)

  def add(self, row: int, column: str, reason: str) -> None:
    """Takes in one."""
    self.counts[column] += 1
    if len(self._first) < _LISTED:
      self._first.append(f"row {row}, column {column!r}: {reason}")

  def merge(self, other: Unreadable) -> None:
    """Takes in those of other rows."""
    self.counts.update(other.counts)
    self._first = [*self._first, *other._first][:_LISTED]

  def to_json(self) -> dict[str, Any]:
    """Of plain values, the arguments of another."""
    return {"counts": dict(self.counts), "first": self._first}

  def describe(self, where: str) -> str:
    """Lines for a terminal; `where` is what to call the file."""
    count = self.counts.total()
    noun, verb = ("picture", "is") if count == 1 else ("pictures", "are")
    lines = [f"{where}: {count} {noun} cannot be read, and {verb} absent:"]
    lines += [f"  {line}" for line in self._first]
    if count > len(self._first):
      lines.append(f"  and {count - len(self._first)} more")
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class ImageColumn(cells.OneColumn):
  """Pictures, each as one vector of its colours: one, several, or none.

  A picture is its bytes or its path. It is turned as its EXIF orientation says; grey of
  16 bits becomes one of 8, CMYK and palettes become RGB, and what is transparent is on
  white.

  Attributes:
    column: Its name in the file.
    size: Pixels of the square that it is resized to; the vector has 3 * size ** 2
      numbers, -1 to 1.
    separator: Between the paths in a string, where there are several.
    unreadable: A picture that cannot be read is "absent", which is said, or an "error".
  """

  column: str
  size: int = 32
  separator: str | None = None
  unreadable: str = "absent"

  kind = "image"
  takes = "the bytes of a picture or its path, or a list of these"

  def __post_init__(self):
    if self.size < 1:
      raise ConfigError(f"size {self.size}: expected at least 1 pixel")
    if self.separator == "":
      raise ConfigError("separator '': expected a character, or null")
    if self.unreadable not in ("absent", "error"):
      raise ConfigError(f"unreadable {self.unreadable!r}: expected 'absent' or 'error'")

  @staticmethod
  def accepts(kind: pa.DataType) -> bool:
    """Whether a column of this type can be read so."""
    return _is_picture(kind.value_type if cells.is_list(kind) else kind)

  def fitting(self) -> _ImageFitting:
    """What takes in the training part."""
    return _ImageFitting()

  @staticmethod
  def restore(value: Mapping[str, Any]) -> ImageFolder:
    """What was fitted, from its plain values."""
    return ImageFolder(**value)

  def modality(self, fitted: ImageFolder) -> Modality:
    """What an element is."""
    del fitted
    return Modality("vectors", 3 * self.size**2)

  def encode(
    self,
    column: pa.Array,
    fitted: ImageFolder,
    skipped: Callable[[int, str], Any] | None = None,
  ) -> Ragged:
    """The pixels of some cells, `[n, d]` float32.

    Args:
      column: The cells.
      fitted: Where paths begin.
      skipped: Called with the cell and the reason for a picture that cannot be read and
        is absent. If there is none, such a picture is an error.

    Raises:
      CellError: A picture cannot be read, and that is an error.
    """
    values, lengths = [], np.zeros(len(column), np.int64)
    for index, cell in enumerate(column.to_pylist()):
      for picture in self._pictures(cell):
        try:
          values.append(self._pixels(picture, fitted.path))
        except PictureError as error:
          if skipped is None or self.unreadable == "error":
            raise cells.CellError(
              index,
              f"it cannot be read as a picture: {error}",
              "repair it, or leave it out: absence needs no placeholder",
            ) from error
          skipped(index, str(error))
        else:
          lengths[index] += 1
    shape = (-1, 3 * self.size**2)
    return from_lengths(np.array(values, np.float32).reshape(shape), lengths)

  def _pictures(self, cell: Any) -> Iterator[bytes | str]:
    """The bytes or paths in a cell; none where it is null or empty."""
    for picture in cell if isinstance(cell, list) else [cell]:
      if isinstance(picture, dict):
        picture = next((picture[n] for n in _FIELDS if picture.get(n)), None)
      if isinstance(picture, str) and self.separator is not None:
        yield from filter(None, map(str.strip, picture.split(self.separator)))
      elif picture:
        yield picture

  def _pixels(self, picture: bytes | str, folder: str) -> np.ndarray:
    data = pictures.read(picture, folder) if isinstance(picture, str) else picture
    try:
      decoded = pictures.decode(data, _ANY_SIDE)
    except PictureError as error:
      if not isinstance(picture, str):
        raise
      raise PictureError(f"{picture}: {error}") from error
    small = PIL.Image.fromarray(decoded).resize((self.size, self.size))
    return np.asarray(small, np.float32).reshape(-1) / 127.5 - 1


def _is_picture(kind: pa.DataType) -> bool:
  if pa.types.is_struct(kind):
    names = {field.name for field in kind}
    return bool(names & set(_FIELDS)) and all(
      _is_picture(field.type) for field in kind if field.name in _FIELDS
    )
  is_a = pa.types
  return is_a.is_binary(kind) or is_a.is_string(kind) or is_a.is_null(kind)


class _ImageFitting:
  """There is nothing to fit."""

  def __init__(self):
    self._some = False

  def add(self, column: pa.Array) -> None:
    """Takes in some cells."""
    self._some |= column.null_count < len(column)

  def merge(self, other: _ImageFitting) -> None:
    """Takes in what another has."""
    self._some |= other._some

  def result(self) -> ImageFolder:
    """Where paths begin, to be replaced by the folder of the file.

    Raises:
      ConfigError: There was no picture.
    """
    if not self._some:
      raise ConfigError("no training example has a value in it")
    return ImageFolder()
