"""The tables of a file of columns as an Apache Beam pipeline, for many machines.

  python -m deepsets_jax.data.ingest.columns.beam 'films-*.parquet' --runner=FlinkRunner
  python -m experiments.main --config=configs/table.py \\
    --config.data.path='films-*.parquet'

The machine that starts it reads label, id, split and group of all rows. The workers of
the runner then read ranges of rows: once to fit what is merged to one encoding, and
once to write the tables of a range, which that machine joins in the order of rows. They
are those of `build.make` but for rounding of means and deviations, and are where a run
looks for them. The file, and the folder of `DEEPSETS_JAX_CACHE`, are on a file system
that all workers see. Parquet is the format to prefer: of JSON lines and CSV each range
is read from the beginning. Options that are not known here are Beam's.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from deepsets_jax.data.ingest.columns import build, spec
from deepsets_jax.data.ingest.columns.encoding import Encoding, Fitting
from deepsets_jax.data.ingest.columns.spec import PARTS, Spec
from deepsets_jax.data.ingest.columns.splits import assign_splits, batches_with_parts
from deepsets_jax.data.ingest.files import paths
from deepsets_jax.data.ingest.files.source import BATCH_ROWS, Source
from deepsets_jax.data.tables.table import open_table
from deepsets_jax.data.tables.table_writer import TableWriter

# The first of some rows, and the part of each of them.
Range = tuple[int, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Job:
  """What all workers are told.

  Attributes:
    path: Of the file, see `opening.open_source`.
    schema: Of its columns.
    spec: What they are.
    labels: As in `SplitAssignment`.
    id_size: As in `SplitAssignment`.
    folder: In which each range has one of its own, named by its first row.
  """

  path: str
  schema: pa.Schema
  spec: Spec
  labels: Sequence[str]
  id_size: int
  folder: pathlib.Path

  def open(self) -> Source:
    """The file."""
    return self.spec.open(self.path, self.schema)


class Fit(beam.DoFn):
  """From a range of rows to what is fitted on those of the training part."""

  def __init__(self, job: Job):
    self._job = job

  def process(self, some: Range) -> Iterator[Fitting]:
    """Reads the range."""
    start, parts = some
    fitting, source = Fitting(self._job.spec, self._job.path), self._job.open()
    for rows, of_rows, batch in batches_with_parts(
      source, self._job.spec.columns, parts, start
    ):
      fitting.add(batch, rows, of_rows)
    yield fitting


class Merge(beam.CombineFn):
  """From what is fitted on ranges, in any order, to the encoding."""

  def __init__(self, job: Job):
    self._job = job

  def create_accumulator(self) -> Fitting:
    """That of no row."""
    return Fitting(self._job.spec, self._job.path)

  def add_input(self, whole: Fitting, some: Fitting) -> Fitting:
    """With one more."""
    return self.merge_accumulators([whole, some])

  def merge_accumulators(self, several: Iterable[Fitting]) -> Fitting:
    """That of all."""
    whole = self.create_accumulator()
    for some in several:
      whole.merge(some)
    return whole

  def extract_output(self, whole: Fitting) -> Encoding:
    """What was fitted."""
    fitted = whole.result(self._job.schema, self._job.labels)
    return fitted.at(paths.folder(self._job.path))


class Write(beam.DoFn):
  """From a range of rows to a folder with a table of each part; gives nothing."""

  def __init__(self, job: Job):
    self._job = job

  def process(self, some: Range, fitted: Encoding) -> None:
    """Writes the folder."""
    job, (start, parts) = self._job, some
    # A runner may do a range twice, also at the same time: the first to end is kept.
    made, folder = job.folder / f".{uuid.uuid4().hex}", job.folder / f"{start:012}"
    made.mkdir()
    found = batches_with_parts(job.open(), job.spec.columns, parts, start)
    build.write(found, job.path, fitted, job.id_size, made)
    try:
      made.rename(folder)
    except OSError:
      if not folder.exists():
        raise


def make(
  path: str,
  of_spec: Spec,
  seed: int,
  folder: pathlib.Path,
  options: Sequence[str],
  range_rows: int,
) -> None:
  """Makes a folder of tables, or nothing; see `build.make`.

  Args:
    path: Of the file.
    of_spec: What its columns are.
    seed: Of a random split.
    folder: To be made.
    options: Of Beam.
    range_rows: Rows that a worker reads at a time.

  Raises:
    DataError: Bad data. What a worker finds, the runner may raise as an error of its
      own, with the same words.
  """
  source = of_spec.open(path)
  surveyed = assign_splits(source, of_spec, seed)
  parts, size = surveyed.parts, surveyed.id_size
  with build.made_whole(folder) as made:
    ranges = made / "ranges"
    ranges.mkdir()
    job = Job(path, source.schema, of_spec, surveyed.labels, size, ranges)
    starts = range(0, len(parts), range_rows)
    with beam.Pipeline(options=PipelineOptions(list(options))) as flow:
      given = flow | beam.Create([(n, parts[n : n + range_rows]) for n in starts])
      given |= beam.Reshuffle()  # Else a runner may give all ranges to one worker.
      fitted = given | beam.ParDo(Fit(job)) | beam.CombineGlobally(Merge(job))
      _ = fitted | beam.Map(build.write_encoding, made)
      _ = given | beam.ParDo(Write(job), beam.pvalue.AsSingleton(fitted))
    _join(ranges, made, size)
    build.join_unreadable(sorted(ranges.glob("[0-9]*")), made)
    shutil.rmtree(ranges)


def _join(ranges: pathlib.Path, made: pathlib.Path, id_size: int) -> None:
  """Writes the table of each part from those of the ranges, a batch at a time."""
  for part in PARTS:
    tables = [open_table(path) for path in sorted(ranges.glob(f"[0-9]*/{part}"))]
    with TableWriter(made / part, tables[0].schema, id_size) as writer:
      for table in tables:
        for begin in range(0, len(table), BATCH_ROWS):
          rows = np.arange(begin, min(begin + BATCH_ROWS, len(table)))
          writer.add(table.select(rows))


def main(arguments: Sequence[str] | None = None) -> None:
  """The command."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("path", help="file, folder, pattern of files, or tfds:NAME")
  parser.add_argument("--spec", help="JSON file; by default the one beside the file")
  parser.add_argument("--seed", type=int, default=0, help="that of the run's config")
  parser.add_argument("--range_rows", type=int, default=1 << 16, help="of a worker")
  flags, options = parser.parse_known_args(arguments)
  read = spec.read(flags.spec or spec.beside(flags.path))
  # Configs, which a run has its spec from, sort names.
  of_spec = dataclasses.replace(read, modalities=dict(sorted(read.modalities.items())))
  folder = build.folder_of(flags.path, of_spec, flags.seed)
  if not folder.exists():
    make(flags.path, of_spec, flags.seed, folder, options, flags.range_rows)
  if text := build.unreadable(folder, flags.path):
    print(text)
  rows = {part: len(table) for part, table in build.read(folder).items()}
  print(f"{flags.path}: rows {rows} in {folder}")


if __name__ == "__main__":
  main()
