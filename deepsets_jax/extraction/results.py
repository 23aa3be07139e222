"""What came of the inputs so far, and what is on its way: nothing is done twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from deepsets_jax.extraction.cache import Cache
from deepsets_jax.extraction.chunks import Chunk, Problem
from deepsets_jax.extraction.output import ExtractedModality
from deepsets_jax.extraction.protocol import Extraction
from deepsets_jax.extraction.worker import Done, WorkItem
from deepsets_jax.foundation.errors import DataError


class Results:
  """What was found in the inputs, by content, and why nothing was.

  Attributes:
    extracted: Results that were found in this run, of an input by an extractor.
    reused: Those that were there: of an earlier run, or of the same input before.
  """

  def __init__(self, cache: Cache, modalities: Sequence[ExtractedModality]):
    self._cache, self._modalities = cache, modalities
    self._keys = {column.facts.name: column.facts.key for column in modalities}
    self._pending: set[tuple[str, bytes]] = set()
    self._broken: dict[bytes, str] = {}
    self._failed: dict[tuple[str, bytes], str] = {}
    self.extracted = self.reused = 0

  def task(self, chunk: Chunk) -> WorkItem | None:
    """What is still to be looked at; None if nothing is. Empties the inputs."""
    wanted: dict[str, list[bytes]] = {}
    for column in self._modalities:
      name = column.facts.name
      found = [d for cell in chunk.digests[column.source] for d in cell or ()]
      digests = list(dict.fromkeys(found))
      there = self._cache.has(self._keys[name], digests)
      missing = [d for d in digests if d not in there and self._unseen(name, d)]
      self.reused += len(found) - len(missing)
      self._pending.update((name, digest) for digest in missing)
      wanted.setdefault(name, []).extend(missing)
    needed = {digest for digests in wanted.values() for digest in digests}
    task = WorkItem({d: chunk.inputs[d] for d in chunk.inputs if d in needed}, wanted)
    chunk.inputs.clear()
    return task if needed else None

  def _unseen(self, name: str, digest: bytes) -> bool:
    seen = digest in self._broken or (name, digest) in self._failed
    return not seen and (name, digest) not in self._pending

  def add(self, done: Done) -> None:
    """Keeps what came of a task."""
    self._cache.put({self._keys[name]: found for name, found in done.found.items()})
    self._broken.update(done.broken)
    for name, reasons in done.failed.items():
      self._failed.update({(name, digest): why for digest, why in reasons.items()})
      settled = (*done.found[name], *reasons, *done.broken)
      self._pending.difference_update((name, digest) for digest in settled)
    self.extracted += sum(map(len, done.found.values()))

  def of(self, chunk: Chunk) -> dict[str, list[Extraction | None]]:
    """By name of the modality, what is in each row; adds the chunk's problems.

    All tasks of the chunk, and of those before it, must have been added.
    """
    for column, cells in chunk.digests.items():
      for index, digests in enumerate(cells):
        for digest in digests or ():
          if digest in self._broken:
            _put_down(chunk, index, column, None, self._broken[digest])
    return {column.name: list(self._rows(chunk, column)) for column in self._modalities}

  def _rows(
    self, chunk: Chunk, column: ExtractedModality
  ) -> Iterator[Extraction | None]:
    cells, name = chunk.digests[column.source], column.facts.name
    digests = list(dict.fromkeys(d for cell in cells for d in cell or ()))
    results = self._cache.get(self._keys[name], digests)
    for index, cell in enumerate(cells):
      if cell is None:
        yield None
        continue
      good = [results[d] for d in cell if d in results]
      for digest in cell:
        if (name, digest) in self._failed:
          why = self._failed[name, digest]
          _put_down(chunk, index, column.source, name, why)
        elif digest not in results and digest not in self._broken:
          raise DataError(
            f"row {chunk.row + index}, column {column.source!r}: its {name!r} were in"
            " the cache and are there no more; run it again, and leave the cache alone"
            " meanwhile"
          )
      yield None if cell and not good else _joined(good, column)


def _put_down(
  chunk: Chunk, index: int, column: str, extractor: str | None, reason: str
) -> None:
  value = chunk.values[column][index] if column in chunk.values else "text"
  chunk.problems.append(Problem(chunk.row + index, column, value, extractor, reason))


def _joined(found: Sequence[Extraction], column: ExtractedModality) -> Extraction:
  """One after the other: a cell may hold several texts, or none."""
  if len(found) == 1:
    return found[0]
  shapes = {"vectors": (0, column.facts.dimension), "boxes": (0, 4), "scores": (0,)}
  parts = {}
  for part in ("vectors", *column.facts.parts):
    values = [getattr(one, part) for one in found]
    if part == "strings":
      parts[part] = [string for value in values for string in value]
    else:
      parts[part] = np.concatenate([np.zeros(shapes[part], np.float32), *values])
  return Extraction(**parts)
