"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np


@contextlib.contextmanager
def replacing(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
  """A temporary file that takes the place of `path` when the block ends.

  It lies in the folder of `path` and has its suffix, so that writers that look at the
  suffix write the right format. If the block raises, it is removed and `path` stays as
  it was.

  Args:
    path: The file to write; its folder is there.

  Yields:
    The path to write to; an empty file is there already.
  """
  path = pathlib.Path(path)
  handle, name = tempfile.mkstemp(
    prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent
  )
  os.close(handle)
  temporary = pathlib.Path(name)
  try:
    yield temporary
    # mkstemp lets nobody else read the file; a new file follows the umask.
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


def write_bytes(path: str | pathlib.Path, content: bytes) -> None:
  """Writes bytes, replacing the file."""
  with replacing(path) as temporary:
    temporary.write_bytes(content)


def write_text(path: str | pathlib.Path, text: str) -> None:
  """Writes UTF-8 text, replacing the file."""
  with replacing(path) as temporary:
    temporary.write_text(text, encoding="utf-8")


def write_json(path: str | pathlib.Path, value: Any) -> None:
  """Writes indented JSON, replacing the file; see `to_json`."""
  write_text(path, json.dumps(to_json(value), indent=2) + "\n")


def to_json(value: Any) -> Any:
  """The value as `json.dumps` takes it.

  Arrays become lists, tuples lists, and numbers that are not finite null, because JSON
  has no word for them.
  """
  if isinstance(value, dict):
    return {str(k): to_json(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [to_json(v) for v in value]
  if isinstance(value, np.generic | np.ndarray):
    return to_json(value.tolist())
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
