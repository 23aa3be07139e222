"""Build the tables of a file as an Apache Beam pipeline, on many machines.

`experiments.build_tables` is the command. The machine that starts the pipeline reads
label, id, split and group of all rows. The workers then read ranges of rows twice: once
to fit scales and vocabularies, which are merged into one encoding, and once to write
the tables of each range. The first machine joins these in the order of the rows.

The tables equal those of `build.build_tables` up to rounding of means and deviations.
All workers must see the file and the cache (`DEEPSETS_JAX_CACHE`) on one file system.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from deepsets_jax.data.ingest.columns import build
from deepsets_jax.data.ingest.columns.encoding import Encoding, Fitting
from deepsets_jax.data.ingest.columns.spec import PARTS, Spec
from deepsets_jax.data.ingest.columns.splits import assign_splits, batches_with_parts
from deepsets_jax.data.ingest.files import paths
from deepsets_jax.data.ingest.files.source import BATCH_ROWS
from deepsets_jax.data.tables.table import open_table
from deepsets_jax.data.tables.table_writer import TableWriter

# The number of the first row of a range, and the part of each of its rows.
Range = tuple[int, np.ndarray]


@dataclasses.dataclass(frozen=True)
class BeamJob:
  """The arguments that all workers share.

  Attributes:
    path: Path of the file, see `opening.open_source`.
    schema: Types of its columns.
    spec: The roles of its columns.
    labels: See `SplitAssignment`.
    id_size: See `SplitAssignment`.
    folder: Folder that receives a subfolder per range, named by its first row.
  """

  path: str
  schema: pa.Schema
  spec: Spec
  labels: Sequence[str]
  id_size: int
  folder: pathlib.Path

  def batches(
    self, rows: Range
  ) -> Iterator[tuple[np.ndarray, np.ndarray, pa.RecordBatch]]:
    """Read a range of rows, see `batches_with_parts`."""
    start, parts = rows
    source = self.spec.open(self.path, self.schema)
    return batches_with_parts(source, self.spec.columns, parts, start)


class FitRange(beam.DoFn):
  """Fit the encoding on the training rows of a range."""

  def __init__(self, job: BeamJob):
    self._job = job

  def process(self, some: Range) -> Iterator[Fitting]:
    """Read the range and yield one `Fitting`."""
    fitting = Fitting(self._job.spec, self._job.path)
    for rows, parts, batch in self._job.batches(some):
      fitting.add(batch, rows, parts)
    yield fitting


class MergeFittings(beam.CombineFn):
  """Merge the fittings of all ranges, in any order, into one encoding."""

  def __init__(self, job: BeamJob):
    self._job = job

  def create_accumulator(self) -> Fitting:
    """Return the fitting of no rows."""
    return Fitting(self._job.spec, self._job.path)

  def add_input(self, whole: Fitting, some: Fitting) -> Fitting:
    """Merge one more fitting."""
    return self.merge_accumulators([whole, some])

  def merge_accumulators(self, several: Iterable[Fitting]) -> Fitting:
    """Merge several fittings."""
    whole = self.create_accumulator()
    for some in several:
      whole.merge(some)
    return whole

  def extract_output(self, whole: Fitting) -> Encoding:
    """Return the encoding."""
    fitted = whole.result(self._job.schema, self._job.labels)
    return fitted.with_image_folder(paths.folder(self._job.path))


class WriteRange(beam.DoFn):
  """Write a range of rows to a folder with one table per part; yields nothing."""

  def __init__(self, job: BeamJob):
    self._job = job

  def process(self, some: Range, fitted: Encoding) -> None:
    """Write the folder."""
    job = self._job
    # A runner may process a range twice, even at the same time; the first folder stays.
    with build.whole_folder(job.folder / f"{some[0]:012}") as made:
      build.write_tables(job.batches(some), job.path, fitted, job.id_size, made)


def build_tables(
  path: str,
  of_spec: Spec,
  seed: int,
  folder: pathlib.Path,
  options: Sequence[str],
  range_rows: int,
) -> None:
  """Build a folder of tables in a Beam pipeline; an error leaves no folder.

  Args:
    path: Path of the file, see `opening.open_source`.
    of_spec: The roles of its columns.
    seed: Seed of a random split.
    folder: The folder to make.
    options: Options of Beam and its runner, such as "--runner=FlinkRunner".
    range_rows: Number of rows that a worker reads at a time.

  Raises:
    DataError: Bad data. For errors in a worker the runner may raise an error of its own
      with the same message.
  """
  source = of_spec.open(path)
  splits = assign_splits(source, of_spec, seed)
  parts, id_size = splits.parts, splits.id_size
  with build.whole_folder(folder) as made:
    ranges = made / "ranges"
    ranges.mkdir()
    job = BeamJob(path, source.schema, of_spec, splits.labels, id_size, ranges)
    starts = range(0, len(parts), range_rows)
    with beam.Pipeline(options=PipelineOptions(list(options))) as flow:
      rows = flow | beam.Create([(n, parts[n : n + range_rows]) for n in starts])
      # Without a reshuffle a runner may give all ranges to one worker.
      rows |= beam.Reshuffle()
      fitted = rows | beam.ParDo(FitRange(job))
      fitted |= beam.CombineGlobally(MergeFittings(job))
      _ = fitted | beam.Map(build.write_encoding, made)
      _ = rows | beam.ParDo(WriteRange(job), beam.pvalue.AsSingleton(fitted))
    _join_tables(ranges, made, id_size)
    build.join_unreadable(sorted(ranges.glob("[0-9]*")), made)
    shutil.rmtree(ranges)


def _join_tables(ranges: pathlib.Path, made: pathlib.Path, id_size: int) -> None:
  """Concatenate the tables of the ranges part by part, a batch at a time."""
  for part in PARTS:
    tables = [open_table(path) for path in sorted(ranges.glob(f"[0-9]*/{part}"))]
    with TableWriter(made / part, tables[0].schema, id_size) as writer:
      for table in tables:
        for begin in range(0, len(table), BATCH_ROWS):
          rows = np.arange(begin, min(begin + BATCH_ROWS, len(table)))
          writer.add(table.select(rows))
