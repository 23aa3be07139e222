"""Writes a table that may be larger than memory, part by part."""

from __future__ import annotations

import contextlib
import pathlib
from typing import BinaryIO

import numpy as np

from deepsets_jax.data.tables.schema import Schema
from deepsets_jax.data.tables.table import Table, new_folder


class TableWriter:
  """A context manager to add the parts of a table; the folder appears when it exits.

  Only the current part is in memory. After an error nothing is left on disk.

  Args:
    path: The folder to write, in the format of `Table.write`.
    schema: The schema of all parts.
    id_size: Number of characters of the longest id.

  Raises:
    FileExistsError: `path` exists.
  """

  def __init__(self, path: pathlib.Path, schema: Schema, id_size: int):
    self._stack = contextlib.ExitStack()
    self._folder = self._stack.enter_context(new_folder(path, schema))
    self._columns: dict[str, _Column] = {}
    self._id_type = np.dtype((np.str_, max(id_size, 1)))
    self._ends = dict.fromkeys(schema.modalities, 0)

  def __enter__(self) -> TableWriter:
    return self

  def add(self, part: Table) -> None:
    """Appends examples of the schema."""
    for name, ragged in part.modalities.items():
      self._column(f"{name}.values").add(ragged.values)
      for attribute in ("weights", "times"):
        if (array := getattr(ragged, attribute)) is not None:
          self._column(f"{name}.{attribute}").add(array)
      offsets = self._column(f"{name}.offsets")
      if not offsets.rows:
        offsets.add(np.zeros(1, np.int64))
      offsets.add(ragged.offsets[1:].astype(np.int64) + self._ends[name])
      self._ends[name] += len(ragged.values)
    self._column("targets").add(part.targets)
    self._column("ids").add(part.ids.astype(self._id_type))

  def __exit__(self, *exception) -> None:
    for column in self._columns.values():
      column.close()
    self._stack.__exit__(*exception)

  def _column(self, name: str) -> _Column:
    if name not in self._columns:
      self._columns[name] = _Column(open(self._folder / f"{name}.npy", "wb"))
    return self._columns[name]


class _Column:
  """A growing `.npy` file, whose header of fixed length is written at the end."""

  # Long enough for any shape, and a multiple of 64, which the format requires.
  _HEADER = 256

  def __init__(self, file: BinaryIO):
    self._file, self.rows = file, 0
    self._shape: tuple[int, ...] = ()
    self._type = np.dtype(np.float32)
    file.write(b" " * self._HEADER)

  def add(self, array: np.ndarray) -> None:
    self._shape, self._type = array.shape[1:], array.dtype
    self.rows += len(array)
    self._file.write(array.tobytes())

  def close(self) -> None:
    shape = (self.rows, *self._shape)
    text = repr({"descr": self._type.str, "fortran_order": False, "shape": shape})
    magic = np.lib.format.magic(1, 0)
    size = self._HEADER - len(magic) - 2
    header = magic + size.to_bytes(2, "little") + text.ljust(size - 1).encode() + b"\n"
    self._file.seek(0)
    self._file.write(header)
    self._file.close()
