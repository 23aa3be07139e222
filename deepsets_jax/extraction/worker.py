"""The work of one process: pictures decoded, inputs through extractors, in batches."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from deepsets_jax.data.ingest import pictures
from deepsets_jax.data.ingest.pictures import PictureError
from deepsets_jax.extraction.protocol import Extraction, Extractor
from deepsets_jax.extraction.registry import build_extractor
from deepsets_jax.foundation.errors import ConfigError

# Builds all extractors; goes to other processes, so that it is a function of a module,
# or a `functools.partial` of one.
Make = Callable[[], Sequence[Extractor]]
# What an extractor is tried with, to see what it gives.
_PROBES = {"image": np.full((64, 64, 3), 128, np.uint8), "text": "Three cats."}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")


@dataclasses.dataclass(frozen=True)
class ExtractorInfo:
  """What an extractor is, for processes that do not build it.

  Attributes:
    name: Of the column.
    kind: "image" or "text".
    dimension: Of the vectors.
    key: Of its results in a cache: changes with its weights and settings, and with
      the way in which pictures are decoded.
    licence: Of the weights.
    parts: Of "boxes", "scores" and "strings", those that it gives.
  """

  name: str
  kind: str
  dimension: int
  key: str
  licence: str
  parts: Sequence[str]


@dataclasses.dataclass(frozen=True)
class WorkItem:
  """Some inputs, each of which goes to some extractors.

  Attributes:
    inputs: By digest: bytes of pictures, and texts.
    wanted: By name of the extractor, the digests of its inputs.
  """

  inputs: Mapping[bytes, bytes | str]
  wanted: Mapping[str, Sequence[bytes]]


@dataclasses.dataclass
class Done:
  """What came of a task.

  Attributes:
    found: By name of the extractor and digest.
    broken: By digest of a picture, why it could not be decoded.
    failed: By name of the extractor and digest, why it found nothing to give.
  """

  found: dict[str, dict[bytes, Extraction]]
  broken: dict[bytes, str]
  failed: dict[str, dict[bytes, str]]


def of_registry(
  names: Sequence[str], settings: Mapping[str, Mapping[str, Any]]
) -> list[Extractor]:
  """Extractors by name, with the settings that there are for each: a `Make`.

  Raises:
    ConfigError: There is none of a name.
    ModuleNotFoundError: See `registry.build_extractor`.
  """
  return [build_extractor(name, **settings.get(name, {})) for name in names]


class Worker:
  """Extractors, built when they are first needed, and once.

  Attributes:
    batch_size: Inputs that an extractor gets at once.
    max_side: Of a picture, in pixels.
  """

  def __init__(self, make: Make, batch_size: int, max_side: int):
    self._make = make
    self.batch_size, self.max_side = batch_size, max_side

  @functools.cached_property
  def _extractors(self) -> dict[str, Extractor]:
    found: dict[str, Extractor] = {}
    for extractor in self._make():
      if extractor.name in found:
        raise ConfigError(
          f"two extractors are named {extractor.name!r}; leave one out, or give the"
          " other a name"
        )
      found[extractor.name] = extractor
    return found

  def facts(self) -> list[ExtractorInfo]:
    """What the extractors are; each is tried once.

    Raises:
      ConfigError: One gives what is not as it says.
    """
    return [self._facts(extractor) for extractor in self._extractors.values()]

  def _facts(self, extractor: Extractor) -> ExtractorInfo:
    if extractor.kind not in _PROBES:
      raise ConfigError(
        f"extractor {extractor.name!r}: kind {extractor.kind!r}; one of {list(_PROBES)}"
      )
    (found,) = extractor([_PROBES[extractor.kind]])
    parts = [p for p in ("boxes", "scores", "strings") if getattr(found, p) is not None]
    key = extractor.fingerprint
    if extractor.kind == "image":
      key += f", {pictures.FORMAT}, {self.max_side}"
    facts = ExtractorInfo(
      name=extractor.name,
      kind=extractor.kind,
      dimension=extractor.dimension,
      key=key,
      licence=extractor.licence,
      parts=parts,
    )
    if problem := mismatch(found, facts):
      raise ConfigError(f"extractor {facts.name!r}: {problem}; mend the extractor")
    return facts

  def work(self, task: WorkItem, facts: Sequence[ExtractorInfo]) -> Done:
    """What the extractors find in the inputs.

    What cannot be read, or what an extractor fails on, is a reason, and no error.
    """
    done = Done({f.name: {} for f in facts}, {}, {f.name: {} for f in facts})
    for kind in _PROBES:
      of_kind = [f for f in facts if f.kind == kind and task.wanted.get(f.name)]
      digests = list(dict.fromkeys(d for f in of_kind for d in task.wanted[f.name]))
      for begin in range(0, len(digests), self.batch_size):
        some = digests[begin : begin + self.batch_size]
        inputs = dict(self._read(kind, task, some, done))
        for f in of_kind:
          wanted = set(task.wanted[f.name])
          self._extract(f, {d: x for d, x in inputs.items() if d in wanted}, done)
    return done

  def _read(
    self, kind: str, task: WorkItem, digests: Sequence[bytes], done: Done
  ) -> Iterator[tuple[bytes, Any]]:
    for digest in digests:
      value = task.inputs[digest]
      if kind == "text":
        yield digest, value
        continue
      try:
        yield digest, pictures.decode(value, self.max_side)
      except PictureError as error:
        done.broken[digest] = str(error)

  def _extract(
    self, facts: ExtractorInfo, inputs: Mapping[bytes, Any], done: Done
  ) -> None:
    """Puts what one extractor finds in a batch into `done`."""
    if not inputs:
      return
    extractor = self._extractors[facts.name]
    try:
      found = extractor(list(inputs.values()))
    except Exception as error:  # Of any library, by any input.
      if len(inputs) > 1:  # Which one?
        for digest, value in inputs.items():
          self._extract(facts, {digest: value}, done)
      else:
        reason = f"{type(error).__name__}: {error}"
        done.failed[facts.name][next(iter(inputs))] = reason
      return
    for digest, one in zip(inputs, found, strict=True):
      if problem := mismatch(one, facts):
        done.failed[facts.name][digest] = problem
      else:
        done.found[facts.name][digest] = one


def mismatch(found: Extraction, facts: ExtractorInfo) -> str | None:
  """How a result is not what its extractor says; None where it is."""
  n = len(found.vectors)
  shapes = {"vectors": (n, facts.dimension), "boxes": (n, 4), "scores": (n,)}
  for part in ("vectors", "boxes", "scores", "strings"):
    value = getattr(found, part)
    if (value is not None) != (part == "vectors" or part in facts.parts):
      return f"{part} are{'' if value is None else ' not'} missing, unlike before"
    if value is None:
      continue
    if part == "strings":
      if len(value) != n or not all(isinstance(string, str) for string in value):
        return f"strings {list(value)[:3]!r}, expected {n} strings"
      continue
    if value.shape != shapes[part] or value.dtype != np.float32:
      return f"{part} {value.dtype} {value.shape}, expected float32 {shapes[part]}"
    if not np.isfinite(value).all():
      return f"{part} that are not finite"
  return None


# The worker of a process of a pool.
_worker: Worker | None = None


def start(worker: Worker, counter: Any, workers: int) -> None:
  """Makes this process one of `workers`, with its share of the cores.

  Libraries start as many threads as they see cores: on the cores of all workers they
  would fight.

  Args:
    worker: What it does.
    counter: A shared number: of the workers that have started.
    workers: Of the pool.
  """
  global _worker
  # The first process tells the others when to stop.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  with counter.get_lock():
    index = counter.value
    counter.value += 1
  if hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[index % len(cores) :: workers])
  _worker = worker


def facts() -> list[ExtractorInfo]:
  """`Worker.facts` of this process."""
  return _worker.facts()


def work(task: WorkItem, facts: Sequence[ExtractorInfo]) -> Done:
  """`Worker.work` of this process."""
  return _worker.work(task, facts)


@contextlib.contextmanager
def few_threads(workers: int) -> Iterator[None]:
  """Processes started in it have their share of threads, and no accelerator.

  Libraries read these variables when they are loaded. Several workers on one
  accelerator would each want all of its memory.
  """
  threads = str(max(available_cores() // workers, 1))
  values = dict.fromkeys(_THREADS, threads) | {"JAX_PLATFORMS": "cpu"}
  before = {name: os.environ.get(name) for name in values}
  os.environ.update({k: v for k, v in values.items() if before[k] is None})
  try:
    yield
  finally:
    for name, value in before.items():
      if value is None:
        os.environ.pop(name, None)


def available_cores() -> int:
  """The cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
