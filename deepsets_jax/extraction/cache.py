"""What extractors have found, kept by content: a stopped run goes on where it was.

One SQLite file. A result is found by a digest of the input's bytes and the extractor's
fingerprint, whatever the input's name, and stands there whole or not at all. May be
removed at any time.
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
# Of a statement.
_MOST_PARAMETERS = 500
# Seconds to wait for another run that writes to the same cache.
_PATIENCE = 60.0


def digest(content: bytes | str) -> bytes:
  """The name of an input in the cache: 16 bytes; a text is not a file of its bytes."""
  kind, data = b"image", content
  if isinstance(content, str):
    kind, data = b"text", content.encode()
  return hashlib.blake2b(data, digest_size=16, person=kind).digest()


class Cache:
  """Results by extractor and content; a context manager.

  What was put is there once `put` has returned, whatever happens next.
  """

  def __init__(self, folder: str | pathlib.Path):
    """Opens the cache in a folder, or makes one.

    Raises:
      DataError: It is damaged, of another format, or cannot be written.
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
      # A crash of the machine, not of the run, may cost the last results, no more.
      self._connection.execute("PRAGMA synchronous = NORMAL")
      if found in (0, FORMAT):
        self._connection.execute(_TABLE)
        self._connection.execute(f"PRAGMA user_version = {FORMAT}")
    if found not in (0, FORMAT):
      raise DataError(
        f"{self._path}: format {found}, expected {FORMAT}; remove the folder, or give"
        " another --cache"
      )

  def __enter__(self) -> Cache:
    return self

  def __exit__(self, *error: object) -> None:
    self._connection.close()

  def has(self, extractor: str, contents: Sequence[bytes]) -> set[bytes]:
    """Those of some contents whose result is there."""
    rows = self._select("content", extractor, contents)
    return {row[0] for row in rows}

  def get(self, extractor: str, contents: Sequence[bytes]) -> dict[bytes, Extraction]:
    """The results that are there."""
    rows = self._select(_COLUMNS, extractor, contents)
    return {row[0]: _found(*row[1:]) for row in rows}

  def put(self, results: Mapping[str, Mapping[bytes, Extraction]]) -> None:
    """Keeps results by extractor and content: all of them, or none."""
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
        f"{self._path}: {error}; if it is damaged, remove the folder: what was in it is"
        " found again. Or give another --cache"
      ) from error


def _values(
  found: Extraction,
) -> tuple[int, bytes, bytes | None, bytes | None, str | None]:
  strings = found.strings
  return (
    found.vectors.shape[1],
    _blob(found.vectors),
    None if found.boxes is None else _blob(found.boxes),
    None if found.scores is None else _blob(found.scores),
    None if strings is None else json.dumps(list(strings)),
  )


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


def _blob(array: np.ndarray) -> bytes:
  return np.ascontiguousarray(array, "<f4").tobytes()


def _array(blob: bytes) -> np.ndarray:
  return np.frombuffer(blob, "<f4").astype(np.float32)
