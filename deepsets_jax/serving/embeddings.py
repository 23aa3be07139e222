"""Write the vectors of users and items of a run as Parquet, for any index.

A file has a row per user or item: `id`, `title` (items only), `vector`, the number of
training `events`, and for users the number of events `known` that the vector encodes.
The metadata identifies the run and its events, and has whether vectors have length 1.
"""

from __future__ import annotations

import hashlib
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, PyTree

from deepsets_jax.data.interactions import next_item
from deepsets_jax.data.tables import parquet
from deepsets_jax.data.tables.arrow_lists import vectors_from_arrow, vectors_to_arrow
from deepsets_jax.foundation.errors import ConfigError, DataError
from deepsets_jax.foundation.files import replacing
from deepsets_jax.tasks.retrieval.task import RetrievalTask

KINDS = ("items", "users")
# The split of users after all their events.
ALL = "all"
_FORMAT = "deepsets_jax embeddings 1"
_ADVICE = "write it again with python -m experiments.embed"
# Rows per row group, which makes some tens of megabytes.
_ROWS = 1 << 16


def digest(task: RetrievalTask, workdir: str | pathlib.Path) -> str:
  """Hash all that the vectors depend on: the run in a folder, and its events.

  Raises:
    ConfigError: The run has not ended, so that its best parameters may change.
  """
  workdir = pathlib.Path(workdir)
  histories = task.histories
  try:
    found = hashlib.sha256((workdir / "results.json").read_bytes())
  except OSError as error:
    raise ConfigError(
      f"{workdir} has no results ({error}), so its training has not ended; resume it"
      f" with python -m experiments.main --config=FILE --workdir={workdir}"
    ) from error
  found.update((workdir / "config.json").read_bytes())
  for ids in (histories.users.ids, histories.items.ids):
    found.update("\n".join(ids).encode())
  for column in (histories.offsets, histories.rows, histories.times):
    found.update(np.ascontiguousarray(column))
  return found.hexdigest()


def embed_items(task: RetrievalTask, params: PyTree, digest: str) -> pa.Table:
  """Return the vectors of all items, in the order of `task.histories.items`."""
  items = task.histories.items
  columns = {
    "id": pa.array(items.ids.tolist(), pa.string()),
    "title": pa.array(task.titles.tolist(), pa.string()),
    "vector": vectors_to_arrow(task.items(params), np.float32),
    "events": pa.array(task.histories.popularity(task.train_ends), pa.int64()),
  }
  return _table(columns, task, "items", ALL, digest)


def embed_users(
  task: RetrievalTask,
  params: PyTree,
  items: Float[np.ndarray, "i d"],
  digest: str,
  split: str = ALL,
) -> pa.Table:
  """Return the vectors of users.

  Args:
    task: The task of the run.
    params: Parameters of the run.
    items: The vectors of all items.
    digest: See `digest`.
    split: `ALL` for every user after all events, or one of `task.splits` for the users
      of a split before the events that they are evaluated on.

  Raises:
    ConfigError: There is no such split.
  """
  histories = task.histories
  check_split(task, split)
  if split == ALL:
    rows, ends = np.arange(len(histories.users)), histories.offsets[1:]
  else:
    rows, ends = task.splits[split].user_rows, task.splits[split].known_ends
  before = next_item.users_before(
    histories, rows, ends, task.config.data.histories.max_history
  )
  begins = histories.offsets[:-1][rows]
  columns = {
    "id": pa.array(before.ids.tolist(), pa.string()),
    "vector": vectors_to_arrow(task.users(params, items, before), np.float32),
    "events": pa.array(task.train_ends[rows] - begins, pa.int64()),
    "known": pa.array(ends - begins, pa.int64()),
  }
  return _table(columns, task, "users", split, digest)


def check_split(task: RetrievalTask, split: str) -> None:
  """Check the name of a split of users.

  Raises:
    ConfigError: The split is neither `ALL` nor one of `task.splits`.
  """
  if split not in (ALL, *task.splits):
    raise ConfigError(f"no split {split!r}; there are {[ALL, *task.splits]}")


def write_embeddings(table: pa.Table, path: str | pathlib.Path) -> None:
  """Write a file in row groups and make its folder; an error leaves no file."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with replacing(path) as temporary:
    pq.write_table(
      table,
      temporary,
      compression="zstd",
      row_group_size=_ROWS,
      write_page_checksum=True,
    )


def is_there(
  path: str | pathlib.Path, kind: str, digest: str, split: str = ALL
) -> bool:
  """Whether the file of a run exists.

  Raises:
    FileExistsError: The path has another file.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return False
  try:
    metadata = pq.read_schema(path).metadata or {}
  except (OSError, pa.ArrowException):
    metadata = {}
  wanted = _identity(kind, split, digest)
  if any(metadata.get(key) != value for key, value in wanted.items()):
    raise FileExistsError(
      f"{path} exists, but is not {_described(kind, split)} of this run; remove it, or"
      " choose another --output"
    )
  return True


def read_items(path: str | pathlib.Path, digest: str) -> Float[np.ndarray, "i d"]:
  """Read the vectors of all items, in the order of the run's items.

  Raises:
    DataError: The file is missing, damaged, or belongs to another run or other events.
  """
  table = parquet.read_parquet(path, _FORMAT, _ADVICE)
  for key, wanted in _identity("items", ALL, digest).items():
    if table.schema.metadata.get(key) != wanted:
      raise DataError(
        f"{path} is not {_described('items', ALL)} of this run, as its {key.decode()}"
        f" differs; {_ADVICE}"
      )
  return vectors_from_arrow(table["vector"])


def _table(
  columns: dict[str, pa.Array], task: RetrievalTask, kind: str, split: str, digest: str
) -> pa.Table:
  metadata = {
    "dimensions": json.dumps(columns["vector"].type.list_size),
    "normalized": json.dumps(task.config.retrieval.normalize),
  }
  return pa.table(columns, metadata=_identity(kind, split, digest) | metadata)


def _identity(kind: str, split: str, digest: str) -> dict[bytes, bytes]:
  """Return the metadata that identify a file."""
  metadata = {"format": _FORMAT, "kind": kind, "split": split, "run": digest}
  return {key.encode(): value.encode() for key, value in metadata.items()}


def _described(kind: str, split: str) -> str:
  return f"the file of {kind}" + (f" of {split!r}" if split != ALL else "")
