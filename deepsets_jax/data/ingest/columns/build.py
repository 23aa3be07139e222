"""Build the tables of a file of columns once, keep them, and open them memory-mapped.

The file is streamed three times: for labels, ids and parts; for scales and vocabularies
of the training part; and for the tables. They are kept in the folder "tables" of the
cache, under a hash of the file's name and time, the spec and the seed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from deepsets_jax.data.ingest.columns import encoding
from deepsets_jax.data.ingest.columns.encoding import Encoding
from deepsets_jax.data.ingest.columns.images import ImageColumn, Unreadable
from deepsets_jax.data.ingest.columns.spec import PARTS, Spec
from deepsets_jax.data.ingest.columns.splits import assign_splits, batches_with_parts
from deepsets_jax.data.ingest.files import paths
from deepsets_jax.data.tables.table import Table, open_table
from deepsets_jax.data.tables.table_writer import TableWriter
from deepsets_jax.foundation import cache
from deepsets_jax.foundation.errors import DataError

_ENCODING = "encoding.json"
_UNREADABLE = "unreadable.json"
# Format of the kept tables; those of another format are built again.
_FORMAT = "tables 2"
Report = Callable[[str], Any]


def tables(path: str, spec: Spec, seed: int, report: Report) -> dict[str, Table]:
  """Open the tables "train", "validation" and "test" of a file; build missing ones.

  Args:
    path: Path of the file, see `opening.open_source`.
    spec: The roles of its columns.
    seed: Seed of a random split.
    report: Receives lines about slow work, how files are read, and unreadable images.

  Raises:
    DataError: Bad data; names file, row and column.
  """
  folder = folder_of(path, spec, seed)
  if not folder.exists():
    report(f"reading {path} into {folder}")
    build_tables(path, spec, seed, folder, report)
  if text := unreadable_images(folder, path):
    report(f"{text}\n  after a repair, remove {folder} to read them again")
  return read_tables(folder)


def encoding_of(path: str, spec: Spec, seed: int) -> Encoding:
  """Read the encoding of the tables that `tables` has built of the same arguments."""
  return read_encoding(folder_of(path, spec, seed) / _ENCODING)


def read_encoding(path: pathlib.Path) -> Encoding:
  """Read an encoding from a JSON file.

  Raises:
    DataError: The file is missing or damaged.
  """
  try:
    value = json.loads(path.read_text("utf-8"))
  except (OSError, ValueError) as error:
    raise DataError(
      f"{path} is missing or damaged ({error}); train the run again"
    ) from error
  return encoding.from_json(value, str(path))


def folder_of(path: str, spec: Spec, seed: int) -> pathlib.Path:
  """Return the folder for the tables of a file in its present state."""
  # The time of change (ctime) also changes where a tool sets mtime back.
  states = [
    (str(file), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    for file in [*paths.files(path), *spec.files(path)]
    for stat in [file.stat()]
  ]
  content = [_FORMAT, encoding.FORMAT, path, states, spec.to_json(), seed]
  digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
  return cache.folder("tables") / digest[:32]


def read_tables(folder: pathlib.Path) -> dict[str, Table]:
  """Open the tables in a folder of `build_tables`, memory-mapped."""
  return {part: open_table(folder / part) for part in PARTS}


def build_tables(
  path: str,
  spec: Spec,
  seed: int,
  folder: pathlib.Path,
  report: Report = lambda line: None,
) -> None:
  """Build a folder of tables, see `tables`; an error leaves no folder."""
  source = spec.open(path)
  for note in source.notes:
    report(f"{path}: {note}")
  splits = assign_splits(source, spec, seed)
  fitted = encoding.fit_encoding(source, spec, splits).with_image_folder(
    paths.folder(path)
  )
  with whole_folder(folder) as made:
    write_encoding(fitted, made)
    rows = batches_with_parts(source, spec.columns, splits.parts)
    absent = write_tables(rows, source.where, fitted, splits.id_size, made)
    _check_some_readable(absent, fitted, made, source.where)


def unreadable_images(folder: pathlib.Path, where: str) -> str:
  """Describe the images that could not be read for tables; "" if all could."""
  path = folder / _UNREADABLE
  return _read_unreadable(path).describe(where) if path.exists() else ""


def join_unreadable(folders: Iterable[pathlib.Path], folder: pathlib.Path) -> None:
  """Merge the lists of unreadable images of several folders into one folder."""
  whole = Unreadable()
  for path in (some / _UNREADABLE for some in folders):
    if path.exists():
      whole.merge(_read_unreadable(path))
  _write_unreadable(whole, folder)


def _read_unreadable(path: pathlib.Path) -> Unreadable:
  return Unreadable(**json.loads(path.read_text("utf-8")))


def _write_unreadable(found: Unreadable, folder: pathlib.Path) -> None:
  if found.counts:
    (folder / _UNREADABLE).write_text(json.dumps(found.to_json()), "utf-8")


def _check_some_readable(
  absent: Unreadable, fitted: Encoding, folder: pathlib.Path, where: str
) -> None:
  """Raise if no image of a column can be read: its paths may start elsewhere."""
  for name, kind in fitted.spec.modalities.items():
    count = absent.counts[kind.column] if isinstance(kind, ImageColumn) else 0
    parts = read_tables(folder).values() if count else ()
    if count and not any(len(table.modalities[name].values) for table in parts):
      raise DataError(
        f"{absent.describe(where)}\nno image of column {kind.column!r} can be read;"
        " give paths relative to the folder of the file, or leave the column out of"
        " the spec"
      )


def write_encoding(fitted: Encoding, folder: pathlib.Path) -> None:
  """Write the encoding into a folder of tables."""
  (folder / _ENCODING).write_text(json.dumps(fitted.to_json()), "utf-8")


@contextlib.contextmanager
def whole_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yield a temporary folder to fill, which is renamed to `folder` at the end.

  If the block raises, nothing is left. If another process has made `folder` in the
  meantime, that folder stays.

  Raises:
    OSError: The folder cannot be renamed for any other reason.
  """
  folder.parent.mkdir(parents=True, exist_ok=True)
  made = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
  try:
    yield made
    made.chmod(0o755)
    try:
      made.rename(folder)
    except OSError as error:
      # The error of renaming over a folder that has files in it; see rename(2).
      if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) or not folder.is_dir():
        raise
  finally:
    shutil.rmtree(made, ignore_errors=True)


def write_tables(
  batches: Iterable[tuple[np.ndarray, np.ndarray, pa.RecordBatch]],
  where: str,
  fitted: Encoding,
  id_size: int,
  folder: pathlib.Path,
) -> Unreadable:
  """Write one table per part of the given rows, batch by batch.

  Args:
    batches: Row numbers, parts and cells, see `batches_with_parts`.
    where: Name of the file in messages.
    fitted: Encoding of cells.
    id_size: Number of characters of the longest id.
    folder: Folder that receives a subfolder per part.

  Returns:
    The images that cannot be read; they are absent from the tables.

  Raises:
    DataError: A value that does not fit the spec; names row and column.
  """
  writers: dict[str, TableWriter] = {}
  absent = Unreadable()
  with contextlib.ExitStack() as stack:
    for rows, parts, batch in batches:
      for index, part in enumerate(PARTS):
        mask = parts == index
        if not mask.any():
          continue
        if part not in writers:
          writer = TableWriter(folder / part, fitted.schema, id_size)
          writers[part] = stack.enter_context(writer)
        cells = batch.filter(pa.array(mask))
        table = fitted.table(cells, rows[mask], where, labelled=True, unreadable=absent)
        writers[part].add(table)
  _write_unreadable(absent, folder)
  return absent
