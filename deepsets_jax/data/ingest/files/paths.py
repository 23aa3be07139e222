"""The files that the name of a table stands for, and the folder of relative paths."""

from __future__ import annotations

import glob
import pathlib
import re

from deepsets_jax.foundation.errors import DataError

TFDS = "tfds:"
SQL = "sql:"
# The kind of a file, by the end of its name.
KIND_OF = {
  **dict.fromkeys((".parquet", ".pq"), "Parquet"),
  **dict.fromkeys((".arrow", ".feather", ".ipc"), "Arrow"),
  **dict.fromkeys((".jsonl", ".ndjson", ".json"), "JSON lines"),
  **dict.fromkeys((".csv", ".tsv", ".tab", ".data"), "CSV"),
}
for _end, _kind in list(KIND_OF.items()):
  if _kind in ("JSON lines", "CSV"):
    KIND_OF |= {f"{_end}.gz": _kind, f"{_end}.zst": _kind}
# Words by which files, folders and columns name a part of a table.
PART_WORDS = {
  **dict.fromkeys(("train", "training"), "train"),
  **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation"),
  **dict.fromkeys(("test", "testing", "holdout"), "test"),
}


def files(name: str) -> list[pathlib.Path]:
  """The files of a table: of a path, a folder, a pattern, a query or a TFDS data set.

  Raises:
    DataError: There is none.
  """
  if name.startswith(TFDS):
    from deepsets_jax.data.ingest.files import records

    return sorted(records.open_tfds(name).folder.iterdir())
  if name.startswith(SQL):
    # The files that the query names, as far as its text shows them.
    named = re.findall(r"'([^']+)'|\b([\w./-]+\.\w+)\b", name)
    found = {file for pair in named for file in glob.glob(max(pair))}
    return sorted(path for path in map(pathlib.Path, found) if path.is_file())
  path = pathlib.Path(name)
  if path.is_dir():
    return _files_in(path)
  matching = [path] if path.is_file() else map(pathlib.Path, glob.glob(str(path)))
  if found := sorted(file for file in matching if file.is_file()):
    return found
  raise DataError(f"{path}: no such file; give one, a folder, or a pattern of files")


def _files_in(folder: pathlib.Path) -> list[pathlib.Path]:
  inside = _visible(folder)
  for inner in inside[:]:
    if inner.is_dir() and inner.name.lower() in PART_WORDS:
      inside += _visible(inner)
  if parts := [file for file in inside if file.is_dir() and "=" in file.name]:
    raise DataError(
      f"{folder} is partitioned, as {parts[0].name} shows; columns in such names are"
      " not read; write it as one folder of files"
    )
  # A spec that describe wrote lies beside the files.
  found = [f for f in inside if f.is_file() and not f.name.endswith(".spec.json")]
  if found := [file for file in found if suffix(file)]:
    return found
  raise DataError(
    f"{folder} has no file that can be read; give a folder with files of"
    f" {sorted(KIND_OF)}"
  )


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
  return [file for file in sorted(folder.iterdir()) if file.name[0] not in "._"]


def suffix(path: pathlib.Path) -> str | None:
  """The longest known ending of a file's name; None if it has none."""
  fitting = filter(path.name.lower().endswith, KIND_OF)
  return max(fitting, key=len, default=None)


def have_types(name: str) -> bool:
  """Whether all files have types of their own, as Parquet and Arrow have."""
  kinds = {KIND_OF.get(suffix(file)) for file in files(name)}
  return kinds <= {"Parquet", "Arrow"}


def part_of(path: pathlib.Path, table: str) -> str | None:
  """The part of a table that the name of a file, or of its folder in the table, says.

  `train.csv`, `films-test-00000-of-00002.parquet` and `valid/0.jsonl` do; None for a
  name that says no part, or several.
  """
  inner = [path.parent.name] if path.parent.parent == pathlib.Path(table) else []
  for text in (path.name, *inner):
    words = re.split(r"[^a-z]+", text.lower())
    if named := [PART_WORDS[word] for word in words if word in PART_WORDS]:
      return named[0] if len(set(named)) == 1 else None
  return None


def folder(name: str) -> str:
  """The folder in which relative paths in a table begin: that of its file or files."""
  if name.startswith((TFDS, SQL)):
    return "."
  path = pathlib.Path(name)
  return str(path if path.is_dir() else path.parent)


def beside(path: str, main: str) -> str:
  """A path in the folder of the main table if it is there, else in the current one."""
  near = pathlib.Path(folder(main), path)
  return str(near) if near.exists() else path
