"""Work of one process: decode pictures and run extractors on inputs, in batches."""

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
from deepsets_jax.extraction.protocol import PARTS, Extraction, Extractor
from deepsets_jax.foundation.errors import ConfigError

# Builds all extractors. It is sent to other processes, so it must be a function of a
# module or a `functools.partial` of one.
Make = Callable[[], Sequence[Extractor]]
# Inputs to try an extractor with.
_PROBES = {"image": np.full((64, 64, 3), 128, np.uint8), "text": "Three cats."}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")


@dataclasses.dataclass(frozen=True)
class ExtractorInfo:
  """Description of an extractor, for processes that do not build it.

  Attributes:
    name: Name of the extractor.
    kind: "image" or "text".
    dimension: Size of its vectors.
    key: Key of its results in a cache. It changes with the extractor's weights and
      settings, and with the way in which pictures are decoded.
    licence: Licence of the weights.
    parts: The optional parts that it returns, of "boxes", "scores" and "strings".
  """

  name: str
  kind: str
  dimension: int
  key: str
  licence: str
  parts: Sequence[str]


@dataclasses.dataclass(frozen=True)
class WorkItem:
  """Inputs, and the extractors to run on them.

  Attributes:
    inputs: Bytes of pictures and texts, by digest.
    wanted: Digests of the inputs of each extractor, by its name.
  """

  inputs: Mapping[bytes, bytes | str]
  wanted: Mapping[str, Sequence[bytes]]


@dataclasses.dataclass
class WorkResult:
  """Result of a work item.

  Attributes:
    found: Extractions by name of the extractor and digest.
    broken: Reasons why pictures could not be decoded, by digest.
    failed: Reasons why an extractor failed, by its name and digest.
  """

  found: dict[str, dict[bytes, Extraction]]
  broken: dict[bytes, str]
  failed: dict[str, dict[bytes, str]]


class Worker:
  """Runs extractors, which it builds once, at first use.

  Args:
    make: Builds the extractors.
    batch_size: Number of inputs that an extractor gets at once.
    max_side: Larger pictures are scaled down to this width or height in pixels.
  """

  def __init__(self, make: Make, batch_size: int, max_side: int):
    self._make, self._batch_size, self._max_side = make, batch_size, max_side

  @functools.cached_property
  def _extractors(self) -> dict[str, Extractor]:
    extractors: dict[str, Extractor] = {}
    for extractor in self._make():
      if extractor.name in extractors:
        raise ConfigError(
          f"two extractors are named {extractor.name!r}. Remove one, or give it"
          " another name."
        )
      extractors[extractor.name] = extractor
    return extractors

  def describe(self) -> list[ExtractorInfo]:
    """Describe the extractors after trying each of them once.

    Raises:
      ConfigError: A result does not match the extractor's own description.
    """
    return [self._describe(extractor) for extractor in self._extractors.values()]

  def _describe(self, extractor: Extractor) -> ExtractorInfo:
    if extractor.kind not in _PROBES:
      raise ConfigError(
        f"extractor {extractor.name!r}: kind is {extractor.kind!r}; expected one of"
        f" {list(_PROBES)}"
      )
    (found,) = extractor([_PROBES[extractor.kind]])
    key = extractor.fingerprint
    if extractor.kind == "image":
      key += f", {pictures.FORMAT}, {self._max_side}"
    info = ExtractorInfo(
      name=extractor.name,
      kind=extractor.kind,
      dimension=extractor.dimension,
      key=key,
      licence=extractor.licence,
      parts=[part for part in PARTS if getattr(found, part) is not None],
    )
    if problem := _mismatch(found, info):
      raise ConfigError(f"extractor {info.name!r} returned {problem}")
    return info

  def work(self, item: WorkItem, extractors: Sequence[ExtractorInfo]) -> WorkResult:
    """Run the extractors on the inputs of an item.

    Unreadable inputs and failures of an extractor are part of the result, not errors.
    """
    names = [info.name for info in extractors]
    result = WorkResult({n: {} for n in names}, {}, {n: {} for n in names})
    for kind in _PROBES:
      used = [x for x in extractors if x.kind == kind and item.wanted.get(x.name)]
      digests = list(dict.fromkeys(d for x in used for d in item.wanted[x.name]))
      for begin in range(0, len(digests), self._batch_size):
        some = digests[begin : begin + self._batch_size]
        inputs = dict(self._read(kind, item, some, result))
        for info in used:
          wanted = set(item.wanted[info.name])
          self._extract(info, {d: x for d, x in inputs.items() if d in wanted}, result)
    return result

  def _read(
    self, kind: str, item: WorkItem, digests: Sequence[bytes], result: WorkResult
  ) -> Iterator[tuple[bytes, Any]]:
    for digest in digests:
      value = item.inputs[digest]
      if kind == "text":
        yield digest, value
        continue
      try:
        yield digest, pictures.decode(value, self._max_side)
      except PictureError as error:
        result.broken[digest] = str(error)

  def _extract(
    self, info: ExtractorInfo, inputs: Mapping[bytes, Any], result: WorkResult
  ) -> None:
    """Add the extractions of one extractor for a batch to `result`."""
    if not inputs:
      return
    try:
      found = self._extractors[info.name](list(inputs.values()))
    except Exception as error:  # Any library may raise anything on some input.
      if len(inputs) > 1:  # Find the input that fails.
        for digest, value in inputs.items():
          self._extract(info, {digest: value}, result)
      else:
        reason = f"{type(error).__name__}: {error}"
        result.failed[info.name][next(iter(inputs))] = reason
      return
    for digest, extraction in zip(inputs, found, strict=True):
      if problem := _mismatch(extraction, info):
        result.failed[info.name][digest] = problem
      else:
        result.found[info.name][digest] = extraction


def _mismatch(found: Extraction, info: ExtractorInfo) -> str | None:
  """How an extraction differs from its extractor's description; None if it does not."""
  n = len(found.vectors)
  shapes = {"vectors": (n, info.dimension), "boxes": (n, 4), "scores": (n,)}
  for part in ("vectors", *PARTS):
    value, expected = getattr(found, part), part == "vectors" or part in info.parts
    if (value is not None) != expected:
      return f"{'no ' if expected else ''}{part}, unlike for the first input"
    if value is None:
      continue
    if part == "strings":
      if len(value) != n or not all(isinstance(string, str) for string in value):
        return f"strings {list(value)[:3]!r}, expected {n} strings"
    elif value.shape != shapes[part] or value.dtype != np.float32:
      return f"{part} {value.dtype} {value.shape}, expected float32 {shapes[part]}"
    elif not np.isfinite(value).all():
      return f"{part} that are not finite"
  return None


# The worker of this process, if it belongs to a pool.
_worker: Worker | None = None


def start_worker(worker: Worker, counter: Any, workers: int) -> None:
  """Make this process one of a pool of `workers`, with its share of the cores.

  Libraries start one thread for each core that they see. Without shares, each process
  would start as many threads as the machine has cores.

  Args:
    worker: Its extractors.
    counter: A shared number, the workers that have started.
    workers: Number of workers in the pool.
  """
  global _worker
  # The main process handles an interrupt and stops the others.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  with counter.get_lock():
    index = counter.value
    counter.value += 1
  if hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[index % len(cores) :: workers])
  _worker = worker


def describe() -> list[ExtractorInfo]:
  """`Worker.describe` of this process."""
  return _worker.describe()


def work(item: WorkItem, extractors: Sequence[ExtractorInfo]) -> WorkResult:
  """`Worker.work` of this process."""
  return _worker.work(item, extractors)


@contextlib.contextmanager
def limited_threads(workers: int) -> Iterator[None]:
  """Give processes that start in this context their share of threads, and no GPU.

  It sets environment variables that libraries read when they are loaded. On a GPU, each
  of several workers would claim all of the memory.
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
  """Number of cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
