"""A column of pictures as a modality of their pixels.

For what a pretrained network sees in them, use `experiments.extract` first.
"""

from __future__ import annotations

import dataclasses
import io
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa

from deepsets_jax.data.columns import cells
from deepsets_jax.ragged import Ragged, from_lengths
from deepsets_jax.schema import Modality


@dataclasses.dataclass(frozen=True)
class Folder:
  """Where paths begin that are not absolute: that of the table's file."""

  path: str = "."

  def to_json(self) -> dict[str, Any]:
    """Of plain values."""
    return {"path": self.path}


@dataclasses.dataclass(frozen=True)
class Image(cells.OneColumn):
  """The bytes of a picture or its path, or none: its colours as one vector.

  Attributes:
    column: Its name in the file.
    size: Pixels of the square that it is resized to; the vector has 3 * size ** 2
      numbers, -1 to 1.
  """

  column: str
  size: int = 32

  kind = "image"
  takes = "the bytes of a picture, or its path"

  def __post_init__(self):
    if self.size < 1:
      raise ValueError(f"size {self.size}: expected at least 1 pixel")

  @staticmethod
  def accepts(kind: pa.DataType) -> bool:
    """Whether a column of this type can be read so."""
    return (
      pa.types.is_binary(kind) or pa.types.is_string(kind) or pa.types.is_null(kind)
    )

  def fitting(self) -> _ImageFitting:
    """What takes in the training part."""
    return _ImageFitting()

  @staticmethod
  def restore(value: Mapping[str, Any]) -> Folder:
    """What was fitted, from its plain values."""
    return Folder(**value)

  def modality(self, fitted: Folder) -> Modality:
    """What an element is."""
    del fitted
    return Modality("vectors", 3 * self.size**2)

  def encode(self, column: pa.Array, fitted: Folder) -> Ragged:
    """The pixels of some cells, `[n, d]` float32.

    Raises:
      CellError: No picture there, or a broken one.
    """
    values, lengths = [], np.zeros(len(column), np.int64)
    for index, cell in enumerate(column.to_pylist()):
      if cell:
        values.append(self._pixels(index, cell, fitted.path))
        lengths[index] = 1
    shape = (-1, 3 * self.size**2)
    return from_lengths(np.array(values, np.float32).reshape(shape), lengths)

  def _pixels(self, index: int, cell: bytes | str, folder: str) -> np.ndarray:
    path = pathlib.Path(folder, cell) if isinstance(cell, str) else None
    try:
      with PIL.Image.open(path or io.BytesIO(cell)) as picture:
        small = picture.convert("RGB").resize((self.size, self.size))
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as e:
      raise cells.CellError(
        index,
        f"{path or f'{len(cell)} bytes'} cannot be read as a picture ({e})",
        "mend it, or leave the cell empty: absence needs no placeholder",
      ) from e
    return np.asarray(small, np.float32).reshape(-1) / 127.5 - 1


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

  def result(self) -> Folder:
    """Where paths begin, to be replaced by the folder of the file.

    Raises:
      ValueError: There was no picture.
    """
    if not self._some:
      raise ValueError("no training example has a value in it")
    return Folder()
