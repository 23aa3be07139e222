"""The DuckDB database of this process: reads text, joins tables, sorts on disk."""

from __future__ import annotations

import functools
import os
import re
import tempfile
from collections.abc import Iterator

import duckdb
import pyarrow as pa

# DuckDB writes to disk what exceeds this. Each reading thread has buffers of its own.
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
  """A new connection to the database, for one query at a time."""
  return _database()[0].cursor()


def stream(query: str, rows: int = 2048) -> Iterator[pa.RecordBatch]:
  """The batches of a query's result, in order, as they are computed.

  Raises:
    duckdb.Error: The query fails, at once or on the way.
  """
  yield from connect().sql(query).to_arrow_reader(rows)


def schema(query: str) -> pa.Schema:
  """Names and types of a query's result; the query is not run."""
  found = connect().sql(f"SELECT * FROM ({query}) LIMIT 0")
  return found.to_arrow_reader(1).schema


def text(value: str) -> str:
  """A string as SQL."""
  return "'" + value.replace("'", "''") + "'"


def path(value: str) -> str:
  """A path as SQL, without patterns: `*` stands for itself."""
  return text(re.sub(r"([\[*?])", r"[\1]", value))


def name(value: str) -> str:
  """A name as SQL."""
  return '"' + value.replace('"', '""') + '"'
