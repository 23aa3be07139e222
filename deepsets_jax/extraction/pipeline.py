"""From raw to sets: pictures and texts through extractors into a Parquet file.

Rows are read in chunks, by content looked up in the cache, what is new goes to workers,
and rows are written in their order. Memory does not grow with the number of rows. A
stopped run goes on with what is in the cache.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

from deepsets_jax.extraction import chunks, output, worker
from deepsets_jax.extraction.cache import Cache
from deepsets_jax.extraction.chunks import Chunk, Problem
from deepsets_jax.extraction.inputs import Input
from deepsets_jax.extraction.output import ExtractedModality
from deepsets_jax.extraction.protocol import Extraction
from deepsets_jax.extraction.results import Results
from deepsets_jax.extraction.worker import Done, ExtractorInfo, Make, Worker, WorkItem
from deepsets_jax.foundation.errors import ConfigError, DataError
from deepsets_jax.foundation.files import write_json

# Chunks that are read ahead of the one to be written, for each worker.
_AHEAD = 2


@dataclasses.dataclass(frozen=True)
class Settings:
  """How the work is done; none but `max_side` changes what is found, beyond rounding.

  Attributes:
    batch_size: Rows of a chunk, and inputs that an extractor gets at once.
    max_side: Larger pictures are made smaller, to this width or height in pixels.
    workers: Processes; with one it is this process.
  """

  batch_size: int = 32
  max_side: int = 1024
  workers: int = 1

  def __post_init__(self):
    for field in dataclasses.fields(self):
      if (value := getattr(self, field.name)) < 1:
        raise ConfigError(f"{field.name} {value}: expected at least 1")


@dataclasses.dataclass
class Summary:
  """What was done.

  Attributes:
    rows: Written.
    elements: By name of the modality.
    problems: In the order of rows.
    extracted: Results that were found, of an input by an extractor.
    reused: Results that were in the cache, or of an input that came twice.
    licences: By name of the extractor, of its weights.
    seconds: It took.
  """

  rows: int = 0
  elements: dict[str, int] = dataclasses.field(default_factory=dict)
  problems: list[Problem] = dataclasses.field(default_factory=list)
  extracted: int = 0
  reused: int = 0
  licences: dict[str, str] = dataclasses.field(default_factory=dict)
  seconds: float = 0.0

  @staticmethod
  def of(modalities: Sequence[ExtractedModality]) -> Summary:
    """That of no rows."""
    return Summary(
      elements={column.name: 0 for column in modalities},
      licences={column.facts.name: column.facts.licence for column in modalities},
    )

  def count(
    self, chunk: Chunk, found: Mapping[str, Sequence[Extraction | None]]
  ) -> None:
    """Adds the rows of a chunk."""
    self.rows += len(chunk)
    for name, rows in found.items():
      self.elements[name] += sum(len(one.vectors) for one in rows if one is not None)
    self.problems += sorted(chunk.problems, key=lambda problem: problem.row)

  def __add__(self, other: Summary) -> Summary:
    """That of the rows of both, other rows after these; seconds of work add up."""
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


class WorkerPool(Protocol):
  """What does tasks."""

  def facts(self) -> list[ExtractorInfo]: ...

  def submit(self, task: WorkItem, facts: Sequence[ExtractorInfo]) -> Future[Done]: ...


class Here:
  """Does tasks in this process, at once."""

  def __init__(self, one: Worker):
    self._worker = one

  def facts(self) -> list[ExtractorInfo]:
    """What the extractors are."""
    return self._worker.facts()

  def submit(self, task: WorkItem, facts: Sequence[ExtractorInfo]) -> Future[Done]:
    """A future that is there already."""
    future: Future[Done] = Future()
    future.set_result(self._worker.work(task, facts))
    return future


class Processes:
  """Does tasks in other processes, each of which builds the extractors once."""

  def __init__(self, executor: concurrent.futures.ProcessPoolExecutor):
    self._executor = executor

  def facts(self) -> list[ExtractorInfo]:
    """What the extractors are."""
    return self._executor.submit(worker.facts).result()

  def submit(self, task: WorkItem, facts: Sequence[ExtractorInfo]) -> Future[Done]:
    """A future of the result."""
    return self._executor.submit(worker.work, task, facts)


@contextlib.contextmanager
def pool(make: Make, settings: Settings) -> Iterator[WorkerPool]:
  """This process, or several others."""
  one = Worker(make, settings.batch_size, settings.max_side)
  if settings.workers == 1:
    yield Here(one)
    return
  context = multiprocessing.get_context("spawn")
  with worker.few_threads(settings.workers):
    executor = concurrent.futures.ProcessPoolExecutor(
      settings.workers,
      mp_context=context,
      initializer=worker.start,
      initargs=(one, context.Value("i", 0), settings.workers),
    )
    try:
      yield Processes(executor)
    except BrokenProcessPool as error:
      raise DataError(
        f"one of {settings.workers} workers was killed or could not start, perhaps for"
        " want of memory; what was done is kept: run it again, with fewer --workers"
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
  """Writes the file of all rows, and `<path>.problems.json` if there is a problem.

  Args:
    given: What is read.
    path: Parquet file; replaced when all is done.
    make: Builds the extractors, see `worker.Make`.
    settings: How.
    cache: Its folder.
    progress: Told the number of rows that are done.

  Raises:
    DataError: The input or the cache cannot be read, or columns and extractors do not
      fit. A single picture or text that cannot be is a `Problem`.
  """
  begin = time.monotonic()
  with pool(make, settings) as workers:
    facts = workers.facts()
    with Cache(cache) as kept:
      summary = write(given, path, workers, facts, settings, kept, progress=progress)
  summary.seconds = time.monotonic() - begin
  write_problems(path, summary.problems)
  return summary


def write(
  given: Input,
  path: str | pathlib.Path,
  workers: WorkerPool,
  facts: Sequence[ExtractorInfo],
  settings: Settings,
  cache: Cache,
  *,
  progress: Callable[[int], Any] = lambda rows: None,
  rows: tuple[int, int | None] = (0, None),
  suffix: str = "part",
) -> Summary:
  """Writes the file of some rows, from the first to before the second of `rows`.

  Relative paths of pictures in it begin in its folder. `suffix` is that of
  `output.writing`.
  """
  begin, folder = time.monotonic(), pathlib.Path(path).parent
  modalities = output.columns(given, facts)
  whole = output.schema(given, modalities)
  summary = Summary.of(modalities)
  results = Results(cache, modalities)
  read = chunks.read(given, settings.batch_size, *rows)
  ahead = _AHEAD * settings.workers
  with output.writing(path, whole, suffix) as writer:
    for chunk in in_order(read, workers, facts, results, ahead):
      found = results.of(chunk)
      batch = given.moved(chunk.batch, folder)
      writer.add(output.table(batch, whole, found, modalities))
      summary.count(chunk, found)
      progress(summary.rows)
  summary.extracted, summary.reused = results.extracted, results.reused
  summary.seconds = time.monotonic() - begin
  return summary


def in_order(
  read: Iterable[Chunk],
  workers: WorkerPool,
  facts: Sequence[ExtractorInfo],
  results: Results,
  ahead: int,
) -> Iterator[Chunk]:
  """The chunks in order, each once all that is in it is known.

  What is done is kept at once, also where an earlier chunk is not done yet.
  """
  queue: collections.deque[tuple[Chunk, Future[Done] | None]] = collections.deque()
  running: set[Future[Done]] = set()

  def settled(most: int) -> Iterator[Chunk]:
    """Those in front that are done, until at most so many are left."""
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
    task = results.task(chunk)
    future = None if task is None else workers.submit(task, facts)
    if future is not None:
      running.add(future)
    queue.append((chunk, future))
    yield from settled(ahead)
  yield from settled(0)


def write_problems(path: str | pathlib.Path, problems: Sequence[Problem]) -> None:
  """Writes the problems beside the file; removes an old list if there are none."""
  beside = pathlib.Path(f"{path}.problems.json")
  if problems:
    write_json(beside, [dataclasses.asdict(problem) for problem in problems])
  else:
    beside.unlink(missing_ok=True)
