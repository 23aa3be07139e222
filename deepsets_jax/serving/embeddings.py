"""The vectors of a run's users and items as Parquet, for an index of any kind.

A file has a row per user or item: `id`, its `title` (of items), `vector`, the number of
its training `events`, and of users the number of events `known` that the vector is of.
The metadata says of what run and events it is, and whether vectors have length 1.
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
# Of users: as they are after all their events.
ALL = "all"
_FORMAT = "deepsets_jax embeddings 1"
_ADVICE = "write it again with python -m experiments.embed"
# Rows of a row group: some tens of megabytes.
_ROWS = 1 << 16


def digest(task: RetrievalTask, workdir: str | pathlib.Path) -> str:
  """Of the run in a folder and of its events: what its vectors depend on.

  Raises:
    ConfigError: The run has not ended, and its best parameters may change.
  """
  workdir = pathlib.Path(workdir)
  histories = task.histories
  try:
    found = hashlib.sha256((workdir / "results.json").read_bytes())
  except OSError as error:
    raise ConfigError(
      f"{workdir} has no results ({error}): its training has not ended; go on with"
      f" python -m experiments.main --config=FILE --workdir={workdir}"
    ) from error
  found.update((workdir / "config.json").read_bytes())
  for ids in (histories.users.ids, histories.items.ids):
    found.update("\n".join(ids).encode())
  for column in (histories.offsets, histories.rows, histories.times):
    found.update(np.ascontiguousarray(column))
  return found.hexdigest()


def of_items(task: RetrievalTask, params: PyTree, digest: str) -> pa.Table:
  """The vectors of all items, in the order of `task.histories.items`."""
  items = task.histories.items
  columns = {
    "id": pa.array(items.ids.tolist(), pa.string()),
    "title": pa.array(task.titles.tolist(), pa.string()),
    "vector": vectors_to_arrow(task.items(params), np.float32),
    "events": pa.array(task.histories.popularity(task.train_ends), pa.int64()),
  }
  return _table(columns, task, "items", ALL, digest)


def of_users(
  task: RetrievalTask,
  params: PyTree,
  items: Float[np.ndarray, "i d"],
  digest: str,
  split: str = ALL,
) -> pa.Table:
  """The vectors of users.

  Args:
    task: Of the run.
    params: Its parameters.
    items: The vectors of all items.
    digest: See `digest`.
    split: ALL for every user, after all its events; or one of `task.splits`, whose
      users are as they were before what they were to find.

  Raises:
    ConfigError: No such split.
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
  """Raises for what is no split of users.

  Raises:
    ConfigError: Neither ALL nor one of `task.splits`.
  """
  if split not in (ALL, *task.splits):
    raise ConfigError(f"no split {split!r}; there are {[ALL, *task.splits]}")


def write_embeddings(table: pa.Table, path: str | pathlib.Path) -> None:
  """Writes the file in row groups, or nothing at all; its folder is made."""
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
  """Whether the file has been written already.

  Raises:
    FileExistsError: There is something else.
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
      f"{path} exists, and is not {_described(kind, split)} of this run; remove it, or"
      " choose another --output"
    )
  return True


def read_items(path: str | pathlib.Path, digest: str) -> Float[np.ndarray, "i d"]:
  """The vectors of all items from their file, in the order of the run's items.

  Raises:
    DataError: The file is missing, damaged, or of another run or other events.
  """
  table = parquet.read_parquet(path, _FORMAT, _ADVICE)
  for key, wanted in _identity("items", ALL, digest).items():
    if table.schema.metadata.get(key) != wanted:
      raise DataError(
        f"{path} is not {_described('items', ALL)} of this run (its {key.decode()} is"
        f" another); {_ADVICE}"
      )
  return vectors_from_arrow(table["vector"])


def _table(
  columns: dict[str, pa.Array], task: RetrievalTask, kind: str, split: str, digest: str
) -> pa.Table:
  facts = {
    "dimensions": json.dumps(columns["vector"].type.list_size),
    "normalized": json.dumps(task.config.retrieval.normalize),
  }
  return pa.table(columns, metadata=_identity(kind, split, digest) | facts)


def _identity(kind: str, split: str, digest: str) -> dict[bytes, bytes]:
  """The part of the metadata that tells one file from another."""
  facts = {"format": _FORMAT, "kind": kind, "split": split, "run": digest}
  return {key.encode(): value.encode() for key, value in facts.items()}


def _described(kind: str, split: str) -> str:
  return f"the file of {kind}" + (f" of {split!r}" if split != ALL else "")
