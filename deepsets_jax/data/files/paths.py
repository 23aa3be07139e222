"""Which files the name of a table stands for, and where the paths in it begin."""

from __future__ import annotations

import glob
import pathlib

from deepsets_jax.data.table import DataError

TFDS = "tfds:"
# The kind of a file, by the end of its name.
KIND_OF = {
  end: kind
  for kind, ends in {
    "Parquet": (".parquet", ".pq"),
    "Arrow": (".arrow", ".feather", ".ipc"),
    "JSON lines": (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz"),
    "CSV": (".csv", ".tsv", ".csv.gz", ".tsv.gz"),
  }.items()
  for end in ends
}


def files(name: str) -> list[pathlib.Path]:
  """The files that a file, a folder, a pattern or a data set of TFDS stands for.

  Raises:
    DataError: There is none.
  """
  if name.startswith(TFDS):
    from deepsets_jax.data.files import records

    return sorted(records.open_tfds(name).folder.iterdir())
  path = pathlib.Path(name)
  if path.is_dir():
    inside = [file for file in sorted(path.iterdir()) if file.name[0] not in "._"]
    if parts := [file for file in inside if file.is_dir() and "=" in file.name]:
      raise DataError(
        f"{path} is partitioned, as {parts[0].name} shows; columns in such names are"
        " not read; write it as one folder of files"
      )
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


def folder(name: str) -> str:
  """Where relative paths in a table begin: the folder of its file, or of its files."""
  if name.startswith(TFDS):
    return "."
  path = pathlib.Path(name)
  return str(path if path.is_dir() else path.parent)
