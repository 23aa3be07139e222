"""Which files the name of a table stands for, and where the paths in it begin."""

from __future__ import annotations

import glob
import pathlib
import re

from deepsets_jax.foundation.errors import DataError

TFDS = "tfds:"
SQL = "sql:"
# The kind of a file, by the end of its name.
KIND_OF = {
  end: kind
  for kind, ends in {
    "Parquet": (".parquet", ".pq"),
    "Arrow": (".arrow", ".feather", ".ipc"),
    "JSON lines": (".jsonl", ".ndjson", ".json"),
    "CSV": (".csv", ".tsv", ".tab", ".data"),
  }.items()
  for end in ends
}
PACKED = (".gz", ".zst")
KIND_OF |= {
  end + packed: kind
  for end, kind in list(KIND_OF.items())
  for packed in PACKED
  if kind in ("JSON lines", "CSV")
}
# Words by which files, folders and columns name a part of a table.
PART_WORDS = {
  word: part
  for part, words in {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test", "testing", "holdout"),
  }.items()
  for word in words
}


def files(name: str) -> list[pathlib.Path]:
  """The files that a file, a folder, a pattern or a data set of TFDS stands for.

  Raises:
    DataError: There is none.
  """
  if name.startswith(TFDS):
    from deepsets_jax.data.ingest.files import records

    return sorted(records.open_tfds(name).folder.iterdir())
  if name.startswith(SQL):
    # Those that the query names, as far as they can be told.
    named = re.findall(r"'([^']+)'|\b([\w./-]+\.\w+)\b", name)
    found = {file for pair in named for file in glob.glob(max(pair))}
    return sorted(path for path in map(pathlib.Path, found) if path.is_file())
  path = pathlib.Path(name)
  if path.is_dir():
    inside = [file for file in sorted(path.iterdir()) if file.name[0] not in "._"]
    for folder in [file for file in inside if file.is_dir()]:
      if folder.name.lower() in PART_WORDS:
        inside += [f for f in sorted(folder.iterdir()) if f.name[0] not in "._"]
    if parts := [file for file in inside if file.is_dir() and "=" in file.name]:
      raise DataError(
        f"{path} is partitioned, as {parts[0].name} shows; columns in such names are"
        " not read; write it as one folder of files"
      )
    # A spec that describe wrote stands beside the files.
    inside = [file for file in inside if not file.name.endswith(".spec.json")]
    found = [file for file in inside if file.is_file() and suffix(file)]
    if not found:
      raise DataError(
        f"{path} has no file that can be read; give a folder with files of"
        f" {sorted(KIND_OF)}"
      )
    return found
  if path.is_file():
    return [path]
  matching = sorted(pathlib.Path(name) for name in glob.glob(str(path)))
  if found := [file for file in matching if file.is_file()]:
    return found
  raise DataError(f"{path}: no such file; give one, a folder, or a pattern of files")


def suffix(path: pathlib.Path) -> str | None:
  """The longest of the known endings that a file's name has."""
  name = path.name.lower()
  fitting = [end for end in KIND_OF if name.endswith(end)]
  return max(fitting, key=len, default=None)


def have_types(name: str) -> bool:
  """Whether all files have types of their own, as Parquet and Arrow have."""
  kinds = {KIND_OF.get(suffix(file)) for file in files(name)}
  return kinds <= {"Parquet", "Arrow"}


def part_of(path: pathlib.Path, table: str) -> str | None:
  """The part of a table that a file's name says it is, or that of a folder within it.

  `train.csv`, `films-test-00000-of-00002.parquet` and `valid/0.jsonl` say so.
  """
  inner = [path.parent.name] if path.parent.parent == pathlib.Path(table) else []
  for text in (path.name, *inner):
    words = re.split(r"[^a-z]+", text.lower())
    if named := [PART_WORDS[word] for word in words if word in PART_WORDS]:
      return named[0] if len(set(named)) == 1 else None
  return None


def folder(name: str) -> str:
  """Where relative paths in a table begin: the folder of its file, or of its files."""
  if name.startswith((TFDS, SQL)):
    return "."
  path = pathlib.Path(name)
  return str(path if path.is_dir() else path.parent)


def beside(path: str, main: str) -> str:
  """A path relative to the folder of the main table, or else to the current one."""
  near = pathlib.Path(folder(main), path)
  return str(near) if near.exists() else path
