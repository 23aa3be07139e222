"""Writes a table that is larger than memory: part after part, to the folder of one."""

from __future__ import annotations

import json
import pathlib
import shutil
import tempfile
from typing import BinaryIO

import numpy as np

from deepsets_jax.data.tables.schema import Schema
from deepsets_jax.data.tables.table import FORMAT, Table


class TableWriter:
  """A context in which parts of a table are added; the folder appears at its end.

  It holds no more than the part at hand and the lengths of rows. If it ends with an
  error nothing is left.

  Args:
    path: Folder to write, as `Table.write` does.
    schema: Of all parts.
    id_size: Characters of the longest id.

  Raises:
    FileExistsError: There is something at `path`.
  """

  def __init__(self, path: pathlib.Path, schema: Schema, id_size: int):
    if path.exists():
      raise FileExistsError(f"{path} exists; remove it or choose another folder")
    self._path, self._schema = path, schema
    path.parent.mkdir(parents=True, exist_ok=True)
    self._folder = pathlib.Path(
      tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
    )
    self._columns: dict[str, _Column] = {}
    self._id_type = np.dtype((np.str_, max(id_size, 1)))
    self._ends = dict.fromkeys(schema.modalities, 0)

  def __enter__(self) -> TableWriter:
    return self

  def add(self, part: Table) -> None:
    """Takes in some examples, of the schema."""
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

  def __exit__(self, kind, *exception) -> None:
    for column in self._columns.values():
      column.close()
    if kind is not None:
      shutil.rmtree(self._folder, ignore_errors=True)
      return
    header = {"format": FORMAT, "schema": self._schema.to_json()}
    (self._folder / "table.json").write_text(json.dumps(header, indent=2))
    self._folder.chmod(0o755)
    self._folder.rename(self._path)

  def _column(self, name: str) -> _Column:
    if name not in self._columns:
      self._columns[name] = _Column(open(self._folder / f"{name}.npy", "wb"))
    return self._columns[name]


class _Column:
  """A `.npy` file that grows; its header, of a fixed length, is written at the end."""

  # Room for any shape; a multiple of 64, as the format wants it.
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
    room = self._HEADER - len(magic) - 2
    header = magic + room.to_bytes(2, "little") + text.ljust(room - 1).encode() + b"\n"
    self._file.seek(0)
    self._file.write(header)
    self._file.close()
