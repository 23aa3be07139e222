"""Tables of a file of columns, made once and kept, opened memory-mapped.

Three looks at the file, each streamed: labels, ids and parts; what is fitted on the
training part; and the tables, which grow on disk. They are kept in the folder "tables"
of the cache, by name and time of the file, spec and seed.
"""

from __future__ import annotations

import contextlib
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
# Format of the tables that are kept; those of another format are made again.
_FORMAT = "tables 2"
Report = Callable[[str], Any]


def tables(path: str, spec: Spec, seed: int, report: Report) -> dict[str, Table]:
  """The tables "train", "validation" and "test" of a file, memory-mapped.

  Args:
    path: Of the file, see `opening.open_source`.
    spec: What its columns are.
    seed: Of a random split.
    report: Told what takes long, how files are read, and which pictures cannot be.

  Raises:
    DataError: Bad data; names file, row and column.
  """
  folder = folder_of(path, spec, seed)
  if not folder.exists():
    report(f"reading {path} into {folder}")
    make(path, spec, seed, folder, report)
  if text := unreadable(folder, path):
    report(f"{text}\n  once they are repaired, remove {folder}, where tables are kept")
  return read(folder)


def encoding_of(path: str, spec: Spec, seed: int) -> Encoding:
  """The encoding of the tables that `tables` has made with the same arguments."""
  return read_encoding(folder_of(path, spec, seed) / _ENCODING)


def read_encoding(path: pathlib.Path) -> Encoding:
  """The encoding in a file.

  Raises:
    DataError: No such file, or it is damaged.
  """
  try:
    value = json.loads(path.read_text("utf-8"))
  except (OSError, ValueError) as error:
    raise DataError(
      f"{path} is missing or damaged ({error}); train the run anew"
    ) from error
  return encoding.from_json(value, str(path))


def folder_of(path: str, spec: Spec, seed: int) -> pathlib.Path:
  """Where the tables of a file as it is now are kept."""
  # The last is of any change, also by what sets back the time of the content.
  facts = [
    (str(file), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    for file in [*paths.files(path), *spec.files(path)]
    for stat in [file.stat()]
  ]
  content = [_FORMAT, encoding.FORMAT, path, facts, spec.to_json(), seed]
  digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
  return cache.folder("tables") / digest[:32]


def read(folder: pathlib.Path) -> dict[str, Table]:
  """The tables in a folder that `make` has made, memory-mapped."""
  return {part: open_table(folder / part) for part in PARTS}


def make(
  path: str,
  spec: Spec,
  seed: int,
  folder: pathlib.Path,
  report: Report = lambda line: None,
) -> None:
  """Makes a folder of tables, or nothing; see `tables`."""
  source = spec.open(path)
  for note in source.notes:
    report(f"{path}: {note}")
  surveyed = assign_splits(source, spec, seed)
  fitted = encoding.fit(source, spec, surveyed).at(paths.folder(path))
  with made_whole(folder) as made:
    write_encoding(fitted, made)
    rows = batches_with_parts(source, spec.columns, surveyed.parts)
    absent = write(rows, source.where, fitted, surveyed.id_size, made)
    _check_some_readable(absent, fitted, made, source.where)


def unreadable(folder: pathlib.Path, where: str) -> str:
  """A sentence on the pictures that tables lack; "" if they lack none."""
  path = folder / _UNREADABLE
  if not path.exists():
    return ""
  return Unreadable(**json.loads(path.read_text("utf-8"))).describe(where)


def join_unreadable(folders: Iterable[pathlib.Path], folder: pathlib.Path) -> None:
  """Writes into a folder of tables which pictures those that it is made of lack."""
  whole = Unreadable()
  for path in (some / _UNREADABLE for some in folders):
    if path.exists():
      whole.merge(Unreadable(**json.loads(path.read_text("utf-8"))))
  _write_unreadable(whole, folder)


def _write_unreadable(found: Unreadable, folder: pathlib.Path) -> None:
  if found.counts:
    (folder / _UNREADABLE).write_text(json.dumps(found.to_json()), "utf-8")


def _check_some_readable(
  absent: Unreadable, fitted: Encoding, folder: pathlib.Path, where: str
) -> None:
  """Raises if no picture of a column can be read: its paths may begin elsewhere."""
  for name, kind in fitted.spec.modalities.items():
    count = absent.counts[kind.column] if isinstance(kind, ImageColumn) else 0
    if count and not any(len(t.modalities[name].values) for t in read(folder).values()):
      raise DataError(
        f"{absent.describe(where)}\nnone of the pictures of column {kind.column!r} can"
        " be read: give paths that begin in the folder of the file, or leave the column"
        " out of the spec"
      )


def write_encoding(fitted: Encoding, folder: pathlib.Path) -> None:
  """Writes the encoding into a folder of tables."""
  (folder / _ENCODING).write_text(json.dumps(fitted.to_json()), "utf-8")


@contextlib.contextmanager
def made_whole(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """A folder to fill, which becomes `folder` at the end of the context, or nothing."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  made = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
  try:
    yield made
    made.chmod(0o755)
    # Another process may have made the same meanwhile.
    with contextlib.suppress(FileExistsError, OSError):
      made.rename(folder)
  finally:
    shutil.rmtree(made, ignore_errors=True)


def write(
  some: Iterable[tuple[np.ndarray, np.ndarray, pa.RecordBatch]],
  where: str,
  fitted: Encoding,
  id_size: int,
  folder: pathlib.Path,
) -> Unreadable:
  """Writes the table of each part that some rows are of, batch by batch.

  Args:
    some: Numbers, parts and cells of the rows, see `batches_with_parts`.
    where: What to call the file in a message.
    fitted: From cells to a table.
    id_size: Characters of the longest id.
    folder: For a folder of each part.

  Returns:
    The pictures that cannot be read, and are absent.

  Raises:
    DataError: A value that cannot be what the spec says; names row and column.
  """
  writers: dict[str, TableWriter] = {}
  absent = Unreadable()
  with contextlib.ExitStack() as stack:
    for rows, parts, batch in some:
      for index, part in enumerate(PARTS):
        mask = parts == index
        if not mask.any():
          continue
        if part not in writers:
          writer = TableWriter(folder / part, fitted.schema, id_size)
          writers[part] = stack.enter_context(writer)
        there = batch.filter(pa.array(mask))
        table = fitted.table(there, rows[mask], where, labelled=True, unreadable=absent)
        writers[part].add(table)
  _write_unreadable(absent, folder)
  return absent
