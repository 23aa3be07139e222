"""The DuckDB database of this process: reads text, joins tables, sorts on disk."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterator

import duckdb
import pyarrow as pa

# Beyond this much DuckDB writes to disk. Each thread that reads has buffers of its own.
_MEMORY, _THREADS = "1GB", 4


@functools.cache
def _database() -> tuple[duckdb.DuckDBPyConnection, tempfile.TemporaryDirectory]:
  # What does not fit in memory goes to this folder, which ends with the process.
  folder = tempfile.TemporaryDirectory(prefix="deepsets_jax_")
  config = {
    "temp_directory": folder.name,
    "memory_limit": _MEMORY,
    "threads": min(_THREADS, os.cpu_count() or 1),
    "preserve_insertion_order": True,
    "autoinstall_known_extensions": False,
  }
  return duckdb.connect(f"{folder.name}/spill.duckdb", config=config), folder


def connect() -> duckdb.DuckDBPyConnection:
  """A connection of its own to the database, for one query at a time."""
  return _database()[0].cursor()


def stream(
  connection: duckdb.DuckDBPyConnection, query: str, rows: int = 2048
) -> Iterator[pa.RecordBatch]:
  """The batches of a query's result, in order, as they are computed.

  Raises:
    duckdb.Error: The query fails, at once or on the way.
  """
  yield from connection.sql(query).to_arrow_reader(rows)


def text(value: str) -> str:
  """A string of SQL."""
  return "'" + value.replace("'", "''") + "'"


def name(value: str) -> str:
  """A name of SQL."""
  return '"' + value.replace('"', '""') + '"'
