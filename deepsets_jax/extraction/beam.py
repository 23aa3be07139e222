"""The same extraction as an Apache Beam pipeline, for what outgrows one machine.

The rows are cut into ranges, each of which a worker of the runner reads, extracts and
writes as a file of its own: `photos-00002-of-00012.parquet` holds the rows that follow
those of `-00001-`, in order, so that the files read by name are the rows of the input.
Together they are what `pipeline.run_pipeline` writes, but for rounding where a network
sees other pictures beside one. Input, output and cache are on a file system that all
workers see, and the input stays as it is meanwhile. A range that is
done again, after a failure or by a second run, finds its results in its own part of the
cache, as long as `shard_rows` and the number of rows are the same. Parquet is the input
to prefer: of JSON lines and CSV each range is read from the beginning.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from deepsets_jax.extraction import inputs, pipeline
from deepsets_jax.extraction.cache import Cache
from deepsets_jax.extraction.chunks import Problem
from deepsets_jax.extraction.pipeline import Settings, Summary
from deepsets_jax.extraction.worker import Make, Worker
from deepsets_jax.foundation.errors import ConfigError, DataError
from deepsets_jax.foundation.files import write_json


@dataclasses.dataclass(frozen=True)
class BeamExtraction:
  """What all workers are told.

  Attributes:
    path: Of the input.
    images: Its columns of pictures, see `inputs.open_input`.
    texts: Its columns of texts.
    output: `photos.parquet` stands for all `photos-*-of-*.parquet`.
    cache: Folder.
    make: Builds the extractors.
    settings: Of a worker, which is one process of the runner.
    shard_rows: Of a file.
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
      raise ConfigError(f"shard_rows {self.shard_rows}: expected at least 1")

  def open(self) -> inputs.Input:
    """The input."""
    return inputs.open_input(self.path, self.images, self.texts)

  def name(self, shard: int, shards: int) -> str:
    """The file of a range of rows."""
    path = pathlib.Path(self.output)
    return str(path.with_name(f"{path.stem}-{shard:05}-of-{shards:05}{path.suffix}"))


class Extract(beam.DoFn):
  """From the number of a range to its file; gives its number and summary."""

  def __init__(self, job: BeamExtraction, shards: int):
    self._job, self._shards = job, shards

  def setup(self) -> None:
    """Opens the input and builds the extractors, once in a process."""
    settings = self._job.settings
    self._given = self._job.open()
    one = Worker(self._job.make, settings.batch_size, settings.max_side)
    self._here = pipeline.Here(one)
    self._facts = self._here.facts()

  def process(self, shard: int) -> Iterator[tuple[int, Summary]]:
    """Writes one file."""
    job = self._job
    path = job.name(shard, self._shards)
    with Cache(pathlib.Path(job.cache, f"{shard:05}-of-{self._shards:05}")) as cache:
      summary = pipeline.write(
        *(self._given, path, self._here, self._facts, job.settings, cache),
        rows=(shard * job.shard_rows, (shard + 1) * job.shard_rows),
        # A runner may do a range twice at the same time: the last to end is kept.
        suffix=uuid.uuid4().hex,
      )
    yield shard, summary


class Total(beam.CombineFn):
  """The summary of all ranges, in their order."""

  def create_accumulator(self) -> list[tuple[int, Summary]]:
    """That of no range."""
    return []

  def add_input(self, some: list, one: tuple[int, Summary]) -> list:
    """With one more."""
    return [*some, one]

  def merge_accumulators(self, several: Iterable[list]) -> list:
    """Those of all."""
    return [one for some in several for one in some]

  def extract_output(self, some: list[tuple[int, Summary]]) -> Summary:
    """The sum."""
    summaries = [summary for _, summary in sorted(some, key=lambda one: one[0])]
    return sum(summaries, Summary())


def run_beam(job: BeamExtraction, options: Sequence[str]) -> Summary:
  """Writes the files of all rows, `<output>.summary.json` and a list of the problems.

  Args:
    job: What to do.
    options: Of Beam: `--runner=DirectRunner` and the like.

  Raises:
    DataError: See `pipeline.run_pipeline`; before the runner starts where that can be.
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
      | beam.Reshuffle()  # Else a runner may give all ranges to one worker.
      | beam.ParDo(Extract(job, shards))
      | beam.CombineGlobally(Total())
      | beam.Map(_write_summary, str(summary))
    )
  found = _read_summary(summary)
  pipeline.write_problems(job.output, found.problems)
  return found


def _check_files(job: BeamExtraction, shards: int) -> None:
  """Raises where a reader of the files would find those of another run as well."""
  path = pathlib.Path(job.output)
  there = sorted(path.parent.glob(f"{path.stem}-?????-of-?????{path.suffix}"))
  ours = {job.name(shard, shards) for shard in range(shards)}
  if stale := [file for file in there if str(file) not in ours]:
    raise DataError(
      f"{stale[0]} is there, of a run of another number of files than {shards}; remove"
      " them, or give another --output"
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
