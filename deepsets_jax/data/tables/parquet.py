"""Parquet files of the package: written atomically, checked when they are read.

Their metadata has a `format`, which names the kind of file and its version.
"""

from __future__ import annotations

import pathlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deepsets_jax.foundation.errors import DataError
from deepsets_jax.foundation.files import replacing


def read_parquet(path: str | pathlib.Path, format: str, advice: str) -> pa.Table:
  """Reads a file that `write_parquet` wrote.

  Args:
    path: The file.
    format: The `format` that its metadata must have.
    advice: How to get a good file, for error messages.

  Raises:
    DataError: The file is missing, damaged or of another format.
  """
  try:
    table = pq.read_table(path, page_checksum_verification=True)
  except (OSError, pa.ArrowException) as error:
    raise DataError(
      f"{path} is missing, truncated or damaged ({error}); {advice}"
    ) from error
  found = (table.schema.metadata or {}).get(b"format", b"").decode(errors="replace")
  if found != format:
    raise DataError(f"{path}: format {found!r}, expected {format!r}; {advice}")
  return table


def write_parquet(table: pa.Table, path: str | pathlib.Path, **options: Any) -> None:
  """Writes the file atomically; the same table gives the same bytes.

  The file has one row group, zstd compression and checksums of its pages.

  Args:
    table: A table with a `format` in its metadata.
    path: The file; its folder is created.
    **options: Further options of `pyarrow.parquet.write_table`.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with replacing(path) as temporary:
    pq.write_table(
      table,
      temporary,
      compression="zstd",
      row_group_size=max(len(table), 1),
      write_page_checksum=True,
      **options,
    )
