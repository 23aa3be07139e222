"""Times a file of a million rows and five modalities, to tables and to batches.

  python -m benchmarks.table --rows=1000000
  python -m benchmarks.table --rows=1000000 --csv

A row has a text of 12 words on average, 8 of 20,000 tokens, up to three vectors of 16
numbers, a number, a category and a label; text, number and category may be missing. The
benchmark prints the time from the file to the tables on disk, the peak memory, and the
rate of training batches from the tables.
"""

from __future__ import annotations

import argparse
import csv
import json
import pathlib
import tempfile
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.input import examples_per_second
from benchmarks.timing import peak_memory_gb
from deepsets_jax.data.ingest.columns import build, spec
from deepsets_jax.data.ingest.columns.profiling import profile_columns
from deepsets_jax.data.ingest.columns.proposal import propose
from deepsets_jax.data.ingest.files import opening
from deepsets_jax.data.ingest.files.reading import Reading
from deepsets_jax.data.tables.arrow_lists import vectors_to_arrow

_CHUNK = 50_000


def write(path: pathlib.Path, rows: int, seed: int = 0) -> None:
  """Write a Parquet file of random rows, row group by row group."""
  rng = np.random.default_rng(seed)
  words = np.array([f"word{n}" for n in range(50_000)])
  tokens = np.array([f"token {n}" for n in range(20_000)])
  writer = None
  for begin in range(0, rows, _CHUNK):
    table = _chunk(rng, min(_CHUNK, rows - begin), begin, words, tokens)
    writer = writer or pq.ParquetWriter(path, table.schema)
    writer.write_table(table)
  writer.close()


def write_csv(parquet: pathlib.Path, path: pathlib.Path) -> None:
  """Write the rows of a Parquet file as CSV, with lists as JSON."""
  with path.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(pq.read_schema(parquet).names)
    for batch in pq.ParquetFile(parquet).iter_batches(_CHUNK):
      for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
        writer.writerow(json.dumps(x) if isinstance(x, list) else x for x in row)


def _chunk(
  rng: np.random.Generator, rows: int, begin: int, words: np.ndarray, tokens: np.ndarray
) -> pa.Table:
  def lists(elements, lengths):
    offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int32())
    return pa.ListArray.from_arrays(offsets, elements)

  def some(array):
    missing = pa.array(rng.random(rows) < 0.1)
    return pa.compute.if_else(missing, pa.scalar(None, array.type), array)

  def zipf(names, many):
    return pa.array(names).take(pa.array((rng.zipf(1.3, many) - 1) % len(names)))

  length = rng.geometric(1 / 12, rows)
  text = pa.compute.binary_join(lists(zipf(words, length.sum()), length), " ")
  length = rng.geometric(1 / 8, rows)
  token = lists(zipf(tokens, length.sum()), length)
  length = rng.integers(0, 4, rows)
  flat = rng.standard_normal((length.sum(), 16), np.float32)
  vectors = lists(vectors_to_arrow(flat), length)
  return pa.table(
    {
      "id": [f"row {n}" for n in range(begin, begin + rows)],
      "text": some(text),
      "token": token,
      "vector": vectors,
      "number": some(pa.array(rng.standard_normal(rows))),
      "category": some(pa.array(rng.integers(0, 50, rows)).cast(pa.string())),
      "label": pa.array(rng.integers(0, 5, rows)),
    }
  )


def main(arguments: Sequence[str] | None = None) -> None:
  """Prints times, memory and rates."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--rows", type=int, default=1_000_000)
  parser.add_argument("--csv", action="store_true", help="a CSV file, not Parquet")
  given = parser.parse_args(arguments)
  rows = given.rows
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "rows.parquet")
    write(path, rows)
    if given.csv:
      parquet, path = path, path.with_suffix(".csv")
      write_csv(parquet, path)
    size, before = path.stat().st_size, peak_memory_gb()
    print(f"{rows:,} rows, {size / 1e9:.2f} GB; {before:.2f} GB of memory so far")
    start = time.perf_counter()
    source = opening.open_source(str(path))
    proposed, _ = propose(profile_columns(source), source.where)
    proposed = spec.with_reading(proposed, source, Reading())
    seconds = time.perf_counter() - start
    print(f"described in {seconds:.0f} s, {peak_memory_gb():.2f} GB")
    start = time.perf_counter()
    made = pathlib.Path(folder, "tables")
    build.build_tables(str(path), spec.from_json(proposed.to_json(), "spec"), 0, made)
    seconds = time.perf_counter() - start
    kept = sum(file.stat().st_size for file in made.rglob("*.npy")) / 1e9
    print(f"tables of {kept:.2f} GB in {seconds:.0f} s, {peak_memory_gb():.2f} GB")
    train = build.read_tables(made)["train"]
    rates = [examples_per_second(train) for _ in range(5)]
    print(f"batches: {np.median(rates):,.0f} examples/s (median of {len(rates)})")


if __name__ == "__main__":
  main()
