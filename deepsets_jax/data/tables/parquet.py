"""The Parquet files that are ours: written whole, checked when they are read.

Their metadata has a `format`, which names what is in them and its version.
"""

from __future__ import annotations

import pathlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deepsets_jax.foundation.errors import DataError
from deepsets_jax.foundation.files import replacing


def read_parquet(path: str | pathlib.Path, format: str, advice: str) -> pa.Table:
  """The table in a file of ours.

  Args:
    path: File.
    format: That its metadata must have.
    advice: How to come by a good file, for messages.

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
  """Writes the file, or nothing at all; the same table gives the same bytes.

  In one row group, packed by zstd, with checksums of its pages.

  Args:
    table: With a `format` in its metadata.
    path: File; its folder is made.
    **options: Others of `pyarrow.parquet.write_table`.
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
