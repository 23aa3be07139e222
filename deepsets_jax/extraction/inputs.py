"""Inputs: a folder of pictures and texts, or columns of a table."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from deepsets_jax.data.ingest import pictures
from deepsets_jax.data.ingest.files import opening, paths
from deepsets_jax.data.ingest.files.source import Source
from deepsets_jax.foundation.errors import DataError

# Rows per batch of a folder.
_ROWS = 64


class Folder:
  """A folder of pictures and texts as a `Source` with the columns `id`, `path`, `text`.

  `cat.jpg` and `cat.txt` form one row; either may be missing. The id is the path
  without its suffix. Ids and paths are relative to the folder. Subfolders are included;
  hidden files and files with other suffixes are left out. Rows are sorted by id.

  Attributes:
    left_out: Number of files that are left out, except hidden ones, by suffix.
  """

  def __init__(self, where: str):
    """List the files without reading them.

    Raises:
      DataError: There is no picture and no text, or two pictures have one stem.
    """
    self.where = where
    self.schema = pa.schema(
      {"id": pa.string(), "path": pa.string(), "text": pa.string()}
    )
    self._images, self._texts, self.left_out = _listed(pathlib.Path(where))
    self._ids = sorted(self._images.keys() | self._texts.keys())
    self.num_rows = len(self._ids)

  def batches(
    self, columns: Sequence[str] | None = None, *, start: int = 0
  ) -> Iterator[pa.RecordBatch]:
    """As `Source.batches`.

    Raises:
      DataError: A text cannot be opened.
    """
    schema = self.schema
    if columns is not None:
      schema = pa.schema([self.schema.field(name) for name in columns])
    for begin in range(start, self.num_rows, _ROWS):
      ids = self._ids[begin : begin + _ROWS]
      values = {
        "id": ids,
        "path": [self._images.get(name) for name in ids],
        "text": [self._text(name) for name in ids] if "text" in schema.names else (),
      }
      arrays = [pa.array(values[name], pa.string()) for name in schema.names]
      yield pa.RecordBatch.from_arrays(arrays, schema=schema)

  def _text(self, name: str) -> str | None:
    if name not in self._texts:
      return None
    path = pathlib.Path(self.where, self._texts[name])
    try:
      # Replaced characters become a problem of the row when its text is used.
      return path.read_text("utf-8-sig", errors="replace")
    except OSError as error:
      raise DataError(
        f"{path} cannot be read ({error}). Repair it, or remove it: a missing text"
        " needs no placeholder."
      ) from error


def _listed(
  folder: pathlib.Path,
) -> tuple[dict[str, str], dict[str, str], collections.Counter[str]]:
  """Pictures and texts of a folder, as paths by id; the numbers of other files."""
  images: dict[str, str] = {}
  texts: dict[str, str] = {}
  left_out: collections.Counter[str] = collections.Counter()
  for parent, folders, names in os.walk(folder):
    folders[:] = [name for name in folders if not name.startswith(".")]
    for name in sorted(names):
      path = pathlib.Path(parent, name).relative_to(folder)
      suffix = path.suffix.lower()
      found = texts if suffix == ".txt" else images
      if name.startswith("."):
        continue
      if suffix not in (*pictures.SUFFIXES, ".txt"):
        left_out[suffix or "without suffix"] += 1
        continue
      stem = path.with_suffix("").as_posix()
      if stem in found:
        raise DataError(
          f"{folder}: {found[stem]!r} and {path.as_posix()!r} both belong to example"
          f" {stem!r}. Rename one of them."
        )
      try:
        stem.encode()
      except UnicodeEncodeError as error:
        raise DataError(
          f"{folder}: the name {path.as_posix()!r} is not UTF-8. Rename the file."
        ) from error
      found[stem] = path.as_posix()
  if not images and not texts:
    raise DataError(
      f"{folder} has no picture and no text"
      + (f", but {counted(left_out)}" if left_out else "")
      + f". Names must end in {', '.join((*pictures.SUFFIXES, '.txt'))}."
    )
  return images, texts, left_out


def counted(suffixes: Mapping[str, int]) -> str:
  """Numbers of files by suffix as text, most frequent first: "2 .heic, 1 .pdf"."""
  ranked = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
  return ", ".join(f"{count} {suffix}" for suffix, count in ranked)


@dataclasses.dataclass(frozen=True)
class Input:
  """A source, and its columns of pictures and texts.

  Attributes:
    source: The rows.
    root: Folder that relative paths of pictures start from.
    images: Columns of pictures, as bytes or paths.
    texts: Columns of texts, as strings or lists of strings.
  """

  source: Source
  root: str
  images: Sequence[str]
  texts: Sequence[str]

  @property
  def left_out(self) -> collections.Counter[str]:
    """Number of files of a folder that are not read, by suffix."""
    folder = isinstance(self.source, Folder)
    return self.source.left_out if folder else collections.Counter()

  @property
  def kept(self) -> list[str]:
    """The columns to copy to the output: all but bytes of pictures."""
    return [
      field.name
      for field in self.source.schema
      if field.name not in self.images or not pa.types.is_binary(field.type)
    ]

  def relocated(
    self, batch: pa.RecordBatch, folder: str | pathlib.Path
  ) -> pa.RecordBatch:
    """The rows with relative paths of pictures rewritten relative to `folder`."""
    prefix = os.path.relpath(os.path.realpath(self.root), os.path.realpath(folder))
    paths = [name for name in self.images if name in batch.schema.names]
    for name in paths if prefix != "." else ():
      place = batch.schema.get_field_index(name)
      cells = batch[name].to_pylist()
      seen = [cell and pathlib.PurePath(prefix, cell).as_posix() for cell in cells]
      field = batch.schema.field(place)
      batch = batch.set_column(place, field, pa.array(seen, field.type))
    return batch

  def columns(self, kind: str) -> Sequence[str]:
    """The columns of kind "image" or "text"."""
    return self.images if kind == "image" else self.texts


def open_input(
  path: str, images: Sequence[str] = (), texts: Sequence[str] = ()
) -> Input:
  """Open a folder of pictures and texts, or a table.

  Args:
    path: A folder with pictures or texts; otherwise as in `opening.open_source`.
    images: Columns of pictures; for a table only.
    texts: Columns of texts; for a table only.

  Raises:
    DataError: The input or a column does not exist, or has another type.
  """
  if pathlib.Path(path).is_dir() and not images and not texts:
    return Input(Folder(path), path, ["path"], ["text"])
  # Columns that have types keep them.
  schema = pa.schema([]) if paths.have_types(path) else None
  source = opening.open_source(path, schema=schema)
  if not images and not texts:
    raise DataError(
      f"{path}: no columns of pictures or texts are given. Set --images=COLUMN,"
      f" --texts=COLUMN or both; possible columns: {_possible(source.schema)}"
    )
  for option, columns in (("images", images), ("texts", texts)):
    for column in columns:
      _check(source, option, column)
  twice = [column for column in images if column in texts]
  if twice:
    raise DataError(
      f"{path}: column {twice[0]!r} is in --images and in --texts. Choose one."
    )
  return Input(source, paths.folder(path), list(images), list(texts))


def _check(source: Source, option: str, column: str) -> None:
  if column not in source.schema.names:
    raise DataError(
      f"{source.where}: no column {column!r}, which --{option} names; the columns are"
      f" {source.schema.names}"
    )
  found = source.schema.field(column).type
  if not _TAKES[option](found):
    raise DataError(
      f"{source.where}: column {column!r} of --{option} is {found}, expected"
      f" {_EXPECTED[option]}; possible columns: {_possible(source.schema)}"
    )


def _is_image(kind: pa.DataType) -> bool:
  return pa.types.is_binary(kind) or _is_string(kind)


def _is_text(kind: pa.DataType) -> bool:
  of_list = pa.types.is_list(kind) and _is_string(kind.value_type)
  return of_list or _is_string(kind)


def _is_string(kind: pa.DataType) -> bool:
  return pa.types.is_string(kind) or pa.types.is_null(kind)


_TAKES = {"images": _is_image, "texts": _is_text}
_EXPECTED = {"images": "bytes or paths", "texts": "strings or lists of strings"}


def _possible(schema: pa.Schema) -> Mapping[str, list[str]]:
  return {
    f"--{option}": [field.name for field in schema if takes(field.type)]
    for option, takes in _TAKES.items()
  }


def contents_of(kind: str, cell: object, root: str) -> list[bytes | str] | None:
  """The pictures (bytes) or texts in a cell; None if the cell is empty.

  Args:
    kind: "image" or "text".
    cell: A value of a column of that kind.
    root: Folder that relative paths start from.

  Raises:
    PictureError: A file cannot be read.
  """
  if cell is None:
    return None
  if kind == "text":
    texts = cell if isinstance(cell, list) else [cell]
    return [text for text in texts if text and text.strip()]
  if isinstance(cell, bytes):
    return [cell]
  return [pictures.read(str(cell), root)] if cell else None
