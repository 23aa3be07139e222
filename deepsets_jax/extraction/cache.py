"""Cache of extractions by content, with which a stopped run continues.

It is one SQLite file. The key of a result is a digest of the input's bytes and the
extractor's fingerprint, not the input's name. A result is in the cache as a whole or
not at all. The cache may be removed at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from deepsets_jax.extraction.protocol import Extraction
from deepsets_jax.foundation.errors import DataError

FORMAT = 1
_FILE = "found.sqlite"
_TABLE = """
CREATE TABLE IF NOT EXISTS found (
  extractor TEXT NOT NULL, content BLOB NOT NULL,
  dimension INTEGER NOT NULL, vectors BLOB NOT NULL,
  boxes BLOB, scores BLOB, strings TEXT,
  PRIMARY KEY (extractor, content)
)
"""
_COLUMNS = "content, dimension, vectors, boxes, scores, strings"
# Most parameters of one SQL statement.
_MOST_PARAMETERS = 500
# Seconds to wait for another run that writes to the same cache.
_PATIENCE = 60.0


def content_digest(content: bytes | str) -> bytes:
  """The key of an input: 16 bytes; a text differs from a picture of equal bytes."""
  kind, data = b"image", content
  if isinstance(content, str):
    kind, data = b"text", content.encode()
  return hashlib.blake2b(data, digest_size=16, person=kind).digest()


class Cache:
  """Extractions by extractor and content; a context manager.

  What `put` has returned from is stored, whatever happens next.
  """

  def __init__(self, folder: str | pathlib.Path):
    """Open the cache in a folder, or create one.

    Raises:
      DataError: It is damaged, has another format, or cannot be written.
    """
    self._path = pathlib.Path(folder) / _FILE
    with self._errors():
      self._path.parent.mkdir(parents=True, exist_ok=True)
      self._connection = sqlite3.connect(self._path, timeout=_PATIENCE)
    try:
      self._open()
    except BaseException:
      self._connection.close()
      raise

  def _open(self) -> None:
    with self._errors(), self._connection:
      found = self._connection.execute("PRAGMA user_version").fetchone()[0]
      # Only a crash of the machine, not one of the run, can lose the last results.
      self._connection.execute("PRAGMA synchronous = NORMAL")
      if found in (0, FORMAT):
        self._connection.execute(_TABLE)
        self._connection.execute(f"PRAGMA user_version = {FORMAT}")
    if found not in (0, FORMAT):
      raise DataError(
        f"{self._path}: the format is {found}, expected {FORMAT}. Remove the folder, or"
        " give another --cache."
      )

  def __enter__(self) -> Cache:
    return self

  def __exit__(self, *error: object) -> None:
    self._connection.close()

  def has(self, extractor: str, contents: Sequence[bytes]) -> set[bytes]:
    """The contents that have a result."""
    rows = self._select("content", extractor, contents)
    return {row[0] for row in rows}

  def get(self, extractor: str, contents: Sequence[bytes]) -> dict[bytes, Extraction]:
    """The results of the contents that have one."""
    rows = self._select(_COLUMNS, extractor, contents)
    return {row[0]: _found(*row[1:]) for row in rows}

  def put(self, results: Mapping[str, Mapping[bytes, Extraction]]) -> None:
    """Store results by extractor and content: all of them, or none."""
    rows = [
      (extractor, content, *_values(found))
      for extractor, by_content in results.items()
      for content, found in by_content.items()
    ]
    with self._errors(), self._connection:
      self._connection.executemany(
        f"INSERT OR REPLACE INTO found (extractor, {_COLUMNS})"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        rows,
      )

  def _select(
    self, columns: str, extractor: str, contents: Sequence[bytes]
  ) -> Iterator[tuple]:
    for begin in range(0, len(contents), _MOST_PARAMETERS):
      some = contents[begin : begin + _MOST_PARAMETERS]
      marks = ", ".join("?" * len(some))
      statement = (
        f"SELECT {columns} FROM found WHERE extractor = ? AND content IN ({marks})"
      )
      with self._errors():
        yield from self._connection.execute(statement, (extractor, *some)).fetchall()

  @contextlib.contextmanager
  def _errors(self) -> Iterator[None]:
    try:
      yield
    except (sqlite3.Error, OSError) as error:
      raise DataError(
        f"{self._path}: {error}. If it is damaged, remove the folder, which costs no"
        " more than time; or give another --cache."
      ) from error


def _values(found: Extraction) -> tuple[int, *tuple[bytes | str | None, ...]]:
  """The values of `_COLUMNS` after the content."""
  arrays = (found.vectors, found.boxes, found.scores)
  blobs = (None if x is None else np.asarray(x, "<f4").tobytes() for x in arrays)
  strings = None if found.strings is None else json.dumps(list(found.strings))
  return found.vectors.shape[1], *blobs, strings


def _found(
  dimension: int,
  vectors: bytes,
  boxes: bytes | None,
  scores: bytes | None,
  strings: str | None,
) -> Extraction:
  return Extraction(
    vectors=_array(vectors).reshape(-1, dimension),
    boxes=None if boxes is None else _array(boxes).reshape(-1, 4),
    scores=None if scores is None else _array(scores),
    strings=None if strings is None else json.loads(strings),
  )


def _array(blob: bytes) -> np.ndarray:
  return np.frombuffer(blob, "<f4").astype(np.float32)
