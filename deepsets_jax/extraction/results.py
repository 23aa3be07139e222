"""Results of the inputs of a run, so that no input is processed twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from deepsets_jax.extraction.cache import Cache
from deepsets_jax.extraction.chunks import Chunk, Problem
from deepsets_jax.extraction.output import ExtractedModality
from deepsets_jax.extraction.protocol import Extraction
from deepsets_jax.extraction.worker import WorkItem, WorkResult
from deepsets_jax.foundation.errors import DataError


class Results:
  """Extractions by content of the input, and the reasons of failures.

  Attributes:
    extracted: Number of results found by this run, one for each input and extractor.
    reused: Number of results from an earlier run or from an equal input of this run.
  """

  def __init__(self, cache: Cache, modalities: Sequence[ExtractedModality]):
    self._cache, self._modalities = cache, modalities
    self._keys = {m.extractor.name: m.extractor.key for m in modalities}
    self._pending: set[tuple[str, bytes]] = set()
    self._broken: dict[bytes, str] = {}
    self._failed: dict[tuple[str, bytes], str] = {}
    self.extracted = self.reused = 0

  def missing_work(self, chunk: Chunk) -> WorkItem | None:
    """The inputs of a chunk without results, or None; clears the chunk's inputs."""
    wanted: dict[str, list[bytes]] = {}
    for modality in self._modalities:
      name = modality.extractor.name
      found = [d for cell in chunk.digests[modality.source] for d in cell or ()]
      digests = list(dict.fromkeys(found))
      cached = self._cache.has(self._keys[name], digests)
      missing = [d for d in digests if d not in cached and not self._is_seen(name, d)]
      self.reused += len(found) - len(missing)
      self._pending.update((name, digest) for digest in missing)
      wanted.setdefault(name, []).extend(missing)
    needed = {digest for digests in wanted.values() for digest in digests}
    item = WorkItem({d: chunk.inputs[d] for d in chunk.inputs if d in needed}, wanted)
    chunk.inputs.clear()
    return item if needed else None

  def _is_seen(self, name: str, digest: bytes) -> bool:
    key = (name, digest)
    return digest in self._broken or key in self._failed or key in self._pending

  def add(self, result: WorkResult) -> None:
    """Keep the result of a work item."""
    self._cache.put({self._keys[name]: found for name, found in result.found.items()})
    self._broken.update(result.broken)
    for name, reasons in result.failed.items():
      self._failed.update({(name, digest): why for digest, why in reasons.items()})
      settled = (*result.found[name], *reasons, *result.broken)
      self._pending.difference_update((name, digest) for digest in settled)
    self.extracted += sum(map(len, result.found.values()))

  def rows(self, chunk: Chunk) -> dict[str, list[Extraction | None]]:
    """The extraction of each row, by modality; adds problems to the chunk.

    The results of this chunk and of all earlier ones must have been added.

    Raises:
      DataError: A result has disappeared from the cache.
    """
    for column, cells in chunk.digests.items():
      for index, digests in enumerate(cells):
        for digest in digests or ():
          if digest in self._broken:
            _add_problem(chunk, index, column, None, self._broken[digest])
    return {m.name: list(self._rows(chunk, m)) for m in self._modalities}

  def _rows(
    self, chunk: Chunk, modality: ExtractedModality
  ) -> Iterator[Extraction | None]:
    column, name = modality.source, modality.extractor.name
    cells = chunk.digests[column]
    digests = list(dict.fromkeys(d for cell in cells for d in cell or ()))
    results = self._cache.get(self._keys[name], digests)
    for index, cell in enumerate(cells):
      if cell is None:
        yield None
        continue
      good = [results[d] for d in cell if d in results]
      for digest in cell:
        if (name, digest) in self._failed:
          _add_problem(chunk, index, column, name, self._failed[name, digest])
        elif digest not in results and digest not in self._broken:
          raise DataError(
            f"row {chunk.row + index}, column {column!r}: the {name!r} have disappeared"
            " from the cache. Run it again, and do not change the cache meanwhile."
          )
      yield None if cell and not good else _joined(good, modality)


def _add_problem(
  chunk: Chunk, index: int, column: str, extractor: str | None, reason: str
) -> None:
  value = chunk.values[column][index] if column in chunk.values else "text"
  chunk.problems.append(Problem(chunk.row + index, column, value, extractor, reason))


def _joined(found: Sequence[Extraction], modality: ExtractedModality) -> Extraction:
  """The extractions of a cell in a row: a cell can hold several texts, or none."""
  if len(found) == 1:
    return found[0]
  shapes = {"vectors": (0, modality.extractor.dimension), "boxes": (0, 4)}
  parts = {}
  for part in ("vectors", *modality.extractor.parts):
    values = [getattr(one, part) for one in found]
    if part == "strings":
      parts[part] = [string for value in values for string in value]
    else:
      empty = np.zeros(shapes.get(part, 0), np.float32)
      parts[part] = np.concatenate([empty, *values])
  return Extraction(**parts)
