"""Extraction as an Apache Beam pipeline, for inputs too large for one machine.

Each worker of the runner reads ranges of rows, extracts them and writes each range as a
file: `photos-00002-of-00012.parquet` has the rows after those of `-00001-`. The files
in the order of their names hold the rows of the input, and the same values as the file
of `pipeline.run_pipeline`, up to rounding where a network sees other pictures in a
batch.

Input, output and cache are on a file system that all workers see, and the input must
not change meanwhile. Each range has its own part of the cache. A range that is
repeated, after a failure or by a second run, finds its results there if `shard_rows`
and the number of rows are the same. Parquet is the best input: each range of a JSON
lines or CSV file is read from the beginning.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from deepsets_jax.extraction import inputs, output, pipeline
from deepsets_jax.extraction.cache import Cache
from deepsets_jax.extraction.chunks import Problem
from deepsets_jax.extraction.pipeline import Settings, Summary, WorkerPool
from deepsets_jax.extraction.worker import Make, Worker
from deepsets_jax.foundation.errors import ConfigError, DataError
from deepsets_jax.foundation.files import write_json


@dataclasses.dataclass(frozen=True)
class BeamExtraction:
  """Settings of an extraction, sent to all workers.

  Attributes:
    path: Path of the input.
    images: Columns of pictures, see `inputs.open_input`.
    texts: Columns of texts.
    output: Path of the output; `photos.parquet` stands for `photos-*-of-*.parquet`.
    cache: Folder of the cache.
    make: Builds the extractors.
    settings: Settings of a worker, which is one process of the runner.
    shard_rows: Number of rows of a file.
  """

  path: str
  images: Sequence[str]
  texts: Sequence[str]
  output: str
  cache: str
  make: Make
  settings: Settings
  shard_rows: int

  def __post_init__(self):
    if self.shard_rows < 1:
      raise ConfigError(f"shard_rows is {self.shard_rows}; expected at least 1")

  def open(self) -> inputs.Input:
    """Open the input."""
    return inputs.open_input(self.path, self.images, self.texts)

  def file(self, shard: int, shards: int) -> str:
    """The path of the file of a range of rows."""
    path = pathlib.Path(self.output)
    return str(path.with_name(f"{path.stem}-{shard:05}-of-{shards:05}{path.suffix}"))


class Extract(beam.DoFn):
  """Writes the file of a range, given by its number; returns number and summary."""

  def __init__(self, job: BeamExtraction, shards: int):
    self._job, self._shards = job, shards

  def setup(self) -> None:
    """Open the input and build the extractors, once per process."""
    settings = self._job.settings
    self._given = self._job.open()
    worker = Worker(self._job.make, settings.batch_size, settings.max_side)
    self._pool = WorkerPool(worker)
    self._modalities = output.extracted_modalities(self._given, self._pool.extractors)

  def process(self, shard: int) -> Iterator[tuple[int, Summary]]:
    """Write one file."""
    job = self._job
    path = job.file(shard, self._shards)
    with Cache(pathlib.Path(job.cache, f"{shard:05}-of-{self._shards:05}")) as cache:
      summary = pipeline.write_rows(
        *(self._given, path, self._pool, self._modalities, job.settings, cache),
        rows=(shard * job.shard_rows, (shard + 1) * job.shard_rows),
        # A runner may run a range twice at the same time; the last one stays.
        suffix=uuid.uuid4().hex,
      )
    yield shard, summary


def total(summaries: Sequence[tuple[int, Summary]]) -> Summary:
  """The sum of the summaries of numbered ranges, in the order of the ranges."""
  ordered = sorted(summaries, key=lambda pair: pair[0])
  return sum((summary for _, summary in ordered), Summary())


def run_beam(job: BeamExtraction, options: Sequence[str]) -> Summary:
  """Write the files of all rows, `<output>.summary.json` and a list of problems.

  Args:
    job: The extraction.
    options: Options of Beam, such as `--runner=DirectRunner`.

  Raises:
    DataError: See `pipeline.run_pipeline`; if possible before the runner starts.
  """
  given = job.open()
  shards = -(-_num_rows(given) // job.shard_rows)
  _check_files(job, shards)
  summary = pathlib.Path(f"{job.output}.summary.json")
  summary.parent.mkdir(parents=True, exist_ok=True)
  with beam.Pipeline(options=PipelineOptions(list(options))) as flow:
    (
      flow
      | beam.Create(range(shards))
      | beam.Reshuffle()  # Otherwise a runner may give all ranges to one worker.
      | beam.ParDo(Extract(job, shards))
      | beam.combiners.ToList()
      | beam.Map(total)
      | beam.Map(_write_summary, str(summary))
    )
  found = _read_summary(summary)
  pipeline.write_problems(job.output, found.problems)
  return found


def _check_files(job: BeamExtraction, shards: int) -> None:
  """Raise if there are files of another run, which readers would take for our own."""
  path = pathlib.Path(job.output)
  there = sorted(path.parent.glob(f"{path.stem}-?????-of-?????{path.suffix}"))
  ours = {job.file(shard, shards) for shard in range(shards)}
  if stale := [file for file in there if str(file) not in ours]:
    raise DataError(
      f"{stale[0]} is left from a run with another number of files than {shards}."
      " Remove such files, or give another --output."
    )


def _num_rows(given: inputs.Input) -> int:
  if given.source.num_rows is not None:
    return given.source.num_rows
  first = given.source.schema.names[:1]
  return sum(batch.num_rows for batch in given.source.batches(first))


def _write_summary(summary: Summary, path: str) -> None:
  write_json(path, dataclasses.asdict(summary))


def _read_summary(path: pathlib.Path) -> Summary:
  value: dict[str, Any] = json.loads(path.read_text("utf-8"))
  problems = [Problem(**problem) for problem in value["problems"]]
  return Summary(**value | {"problems": problems})
