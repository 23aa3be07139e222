"""Extraction on one machine: pictures and texts through extractors to a Parquet file.

Rows are read in chunks. Inputs whose results are not in the cache go to workers, and
rows are written in their order. Memory does not grow with the number of rows. A stopped
run continues from the cache.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import multiprocessing
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from deepsets_jax.extraction import chunks, output, worker
from deepsets_jax.extraction.cache import Cache
from deepsets_jax.extraction.chunks import Chunk, Problem
from deepsets_jax.extraction.inputs import Input
from deepsets_jax.extraction.output import ExtractedModality
from deepsets_jax.extraction.protocol import Extraction
from deepsets_jax.extraction.results import Results
from deepsets_jax.extraction.worker import (
  ExtractorInfo,
  Make,
  Worker,
  WorkItem,
  WorkResult,
)
from deepsets_jax.foundation.errors import ConfigError, DataError
from deepsets_jax.foundation.files import write_json

# Number of chunks per worker that are read before the first of them is written.
_AHEAD = 2


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of a run. Only `max_side` changes the results by more than rounding.

  Attributes:
    batch_size: Rows of a chunk, and inputs that an extractor gets at once.
    max_side: Larger pictures are scaled down to this width or height in pixels.
    workers: Number of processes; 1 stands for this process.
  """

  batch_size: int = 32
  max_side: int = 1024
  workers: int = 1

  def __post_init__(self):
    for name, value in dataclasses.asdict(self).items():
      if value < 1:
        raise ConfigError(f"{name} is {value}; expected at least 1")


@dataclasses.dataclass
class Summary:
  """Summary of a run.

  Attributes:
    rows: Number of rows written.
    elements: Number of elements by modality.
    problems: Inputs that could not be used, in the order of rows.
    extracted: Number of results, one for each input and extractor, found by this run.
    reused: Number of results from the cache or from an equal input of this run.
    licences: Licences of the weights by name of the extractor.
    seconds: Duration.
  """

  rows: int = 0
  elements: dict[str, int] = dataclasses.field(default_factory=dict)
  problems: list[Problem] = dataclasses.field(default_factory=list)
  extracted: int = 0
  reused: int = 0
  licences: dict[str, str] = dataclasses.field(default_factory=dict)
  seconds: float = 0.0

  @staticmethod
  def empty(modalities: Sequence[ExtractedModality]) -> Summary:
    """The summary before the first row."""
    extractors = [modality.extractor for modality in modalities]
    return Summary(
      elements={modality.name: 0 for modality in modalities},
      licences={extractor.name: extractor.licence for extractor in extractors},
    )

  def count(
    self, chunk: Chunk, found: Mapping[str, Sequence[Extraction | None]]
  ) -> None:
    """Add the rows of a chunk."""
    self.rows += len(chunk)
    for name, rows in found.items():
      self.elements[name] += sum(len(one.vectors) for one in rows if one is not None)
    self.problems += sorted(chunk.problems, key=lambda problem: problem.row)

  def __add__(self, other: Summary) -> Summary:
    """The summary of these rows followed by the other ones; seconds add up."""
    names = [*self.elements, *(n for n in other.elements if n not in self.elements)]
    return Summary(
      rows=self.rows + other.rows,
      elements={n: self.elements.get(n, 0) + other.elements.get(n, 0) for n in names},
      problems=[*self.problems, *other.problems],
      extracted=self.extracted + other.extracted,
      reused=self.reused + other.reused,
      licences=self.licences | other.licences,
      seconds=self.seconds + other.seconds,
    )


class WorkerPool:
  """Runs work items in this process, immediately."""

  def __init__(self, worker: Worker):
    self._worker = worker

  @functools.cached_property
  def extractors(self) -> list[ExtractorInfo]:
    """Descriptions of the extractors."""
    return self._worker.describe()

  def submit(self, item: WorkItem) -> Future[WorkResult]:
    """A future of the result."""
    future: Future[WorkResult] = Future()
    future.set_result(self._worker.work(item, self.extractors))
    return future


class ProcessPool(WorkerPool):
  """Runs work items in other processes, each of which builds the extractors once."""

  def __init__(self, executor: concurrent.futures.ProcessPoolExecutor):
    self._executor = executor

  @functools.cached_property
  def extractors(self) -> list[ExtractorInfo]:
    """Descriptions of the extractors."""
    return self._executor.submit(worker.describe).result()

  def submit(self, item: WorkItem) -> Future[WorkResult]:
    """A future of the result."""
    return self._executor.submit(worker.work, item, self.extractors)


@contextlib.contextmanager
def open_worker_pool(make: Make, settings: Settings) -> Iterator[WorkerPool]:
  """Open a pool of `settings.workers` processes, or of this process alone."""
  one = Worker(make, settings.batch_size, settings.max_side)
  if settings.workers == 1:
    yield WorkerPool(one)
    return
  context = multiprocessing.get_context("spawn")
  with worker.limited_threads(settings.workers):
    executor = concurrent.futures.ProcessPoolExecutor(
      settings.workers,
      mp_context=context,
      initializer=worker.start_worker,
      initargs=(one, context.Value("i", 0), settings.workers),
    )
    try:
      yield ProcessPool(executor)
    except BrokenProcessPool as error:
      raise DataError(
        f"one of {settings.workers} workers was killed or could not start, perhaps for"
        " lack of memory. Finished results are in the cache: run it again, with fewer"
        " --workers."
      ) from error
    finally:
      executor.shutdown(cancel_futures=True)


def run_pipeline(
  given: Input,
  path: str | pathlib.Path,
  make: Make,
  settings: Settings,
  cache: str | pathlib.Path,
  progress: Callable[[int], Any] = lambda rows: None,
) -> Summary:
  """Write the file of all rows, and `<path>.problems.json` if there are problems.

  Args:
    given: The input.
    path: Parquet file; replaced when all rows are written.
    make: Builds the extractors, see `worker.Make`.
    settings: Settings of the run.
    cache: Folder of the cache.
    progress: Called with the number of finished rows.

  Raises:
    DataError: The input or the cache cannot be read, or columns and extractors do not
      match. A single picture or text that cannot be read is a `Problem`.
  """
  begin = time.monotonic()
  with open_worker_pool(make, settings) as pool:
    modalities = output.extracted_modalities(given, pool.extractors)
    with Cache(cache) as opened:
      summary = write_rows(
        given, path, pool, modalities, settings, opened, progress=progress
      )
  summary.seconds = time.monotonic() - begin
  write_problems(path, summary.problems)
  return summary


def write_rows(
  given: Input,
  path: str | pathlib.Path,
  pool: WorkerPool,
  modalities: Sequence[ExtractedModality],
  settings: Settings,
  cache: Cache,
  *,
  progress: Callable[[int], Any] = lambda rows: None,
  rows: tuple[int, int | None] = (0, None),
  suffix: str = "part",
) -> Summary:
  """Write the file of the rows from `rows[0]` to before `rows[1]`.

  Relative paths of pictures are rewritten relative to the folder of the file. `suffix`
  is that of `output.open_writer`. Other arguments as in `run_pipeline`.
  """
  begin, folder = time.monotonic(), pathlib.Path(path).parent
  schema = output.file_schema(given, modalities)
  summary = Summary.empty(modalities)
  results = Results(cache, modalities)
  read = chunks.read_chunks(given, settings.batch_size, *rows)
  ahead = _AHEAD * settings.workers
  with output.open_writer(path, schema, suffix) as writer:
    for chunk in _finished_chunks(read, pool, results, ahead):
      found = results.rows(chunk)
      batch = given.relocated(chunk.batch, folder)
      writer.add(output.file_rows(batch, schema, found, modalities))
      summary.count(chunk, found)
      progress(summary.rows)
  summary.extracted, summary.reused = results.extracted, results.reused
  summary.seconds = time.monotonic() - begin
  return summary


def _finished_chunks(
  read: Iterable[Chunk], pool: WorkerPool, results: Results, ahead: int
) -> Iterator[Chunk]:
  """Yield the chunks in order, each when the results of all its inputs are known.

  Results are put into the cache at once, even while an earlier chunk is unfinished.
  """
  queue: collections.deque[tuple[Chunk, Future[WorkResult] | None]]
  queue = collections.deque()
  running: set[Future[WorkResult]] = set()

  def settled(most: int) -> Iterator[Chunk]:
    """Yield finished chunks from the front until at most `most` are left."""
    while queue and (len(queue) > most or queue[0][1] not in running):
      while queue[0][1] in running:
        done, _ = concurrent.futures.wait(
          running, return_when=concurrent.futures.FIRST_COMPLETED
        )
        for future in done:
          results.add(future.result())
        running.difference_update(done)
      yield queue.popleft()[0]

  for chunk in read:
    item = results.missing_work(chunk)
    future = None if item is None else pool.submit(item)
    if future is not None:
      running.add(future)
    queue.append((chunk, future))
    yield from settled(ahead)
  yield from settled(0)


def write_problems(path: str | pathlib.Path, problems: Sequence[Problem]) -> None:
  """Write the problems beside the file, or remove an old list if there are none."""
  beside = pathlib.Path(f"{path}.problems.json")
  if problems:
    write_json(beside, [dataclasses.asdict(problem) for problem in problems])
  else:
    beside.unlink(missing_ok=True)
