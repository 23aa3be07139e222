"""The first pass over a table: the part of each row, its labels, and its ids."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.data.ingest.columns import cells
from deepsets_jax.data.ingest.columns.spec import PARTS, Spec
from deepsets_jax.data.ingest.files.paths import PART_WORDS
from deepsets_jax.data.ingest.files.source import Source
from deepsets_jax.foundation.errors import DataError

TRAIN, VALIDATION, TEST, LEFT_OUT = 0, 1, 2, -1


@dataclasses.dataclass(frozen=True)
class SplitAssignment:
  """The part of each row of a table, and its labels, before anything is fitted.

  Attributes:
    parts: `TRAIN`, `VALIDATION`, `TEST` or `LEFT_OUT` per row: `[b]` int8.
    labels: Names of labels or classes, in order; empty for other kinds of label.
    label_counts: Number of rows per label.
    id_size: Number of characters of the longest id.
  """

  parts: np.ndarray
  labels: tuple[str, ...]
  label_counts: Mapping[str, int]
  id_size: int

  def rows(self) -> dict[str, int]:
    """Return the number of rows per part."""
    return {name: int((self.parts == i).sum()) for i, name in enumerate(PARTS)}


def numbered_batches(
  source: Source, columns: Sequence[str] | None = None, start: int = 0
) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
  """Yield the batches of a source from row `start` on, with their row numbers `[b]`."""
  for batch in source.batches(columns, start=start):
    yield np.arange(start, start + len(batch)), batch
    start += len(batch)


def batches_with_parts(
  source: Source, columns: Sequence[str], parts: np.ndarray, start: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray, pa.RecordBatch]]:
  """Yield row numbers `[b]`, parts `[b]` and cells of a range of rows, in batches.

  Args:
    source: The file.
    columns: Columns to read.
    parts: The part of each row of the range, `[n]`.
    start: Number of the first row of the range.
  """
  stop = start + len(parts)
  for rows, batch in numbered_batches(source, columns, start):
    rows = rows[: stop - rows[0]]
    yield rows, parts[rows - start], batch.slice(0, len(rows))
    if rows[-1] + 1 == stop:
      return


def assign_splits(source: Source, spec: Spec, seed: int) -> SplitAssignment:
  """Read label, id, split and group of every row, and assign rows to parts.

  A random split depends on the seed and the number of rows; a split by group depends on
  the seed and the groups, not on their order.

  Raises:
    DataError: A row without label, id or split, a repeated id, a part without rows, or
      nothing to learn; names the row and how to fix it.
  """
  spec.check(source.schema, source.where)
  fitting, where = spec.label.fitting(), source.where
  marks = [c for c in (spec.label.column, spec.id, spec.split, spec.group) if c]
  masks, split, group, ids = [], [], [], _Ids(source, spec.id)
  for rows, batch in numbered_batches(source, list(dict.fromkeys(marks))):
    label = batch[spec.label.column]
    with cells.locate_errors(where, spec.label.column, rows):
      mask = spec.label.label_mask(label)
    with cells.locate_errors(where, spec.label.column, rows[mask]):
      fitting.add(label.filter(pa.array(mask)))
    masks.append(mask)
    ids.add(rows, batch)
    if spec.split is not None:
      split.append(_parts_by_column(batch[spec.split], rows, where, spec))
    if spec.group is not None:
      group.append(_group_hashes(batch[spec.group], rows, seed))
  labelled = np.concatenate([np.zeros(0, bool), *masks])
  if not labelled.any():
    raise DataError(f"{where}: no row has a label in column {spec.label.column!r}")
  ids.check()
  try:
    names = fitting.names()
  except ValueError as error:
    raise DataError(f"{where}: label column {spec.label.column!r}: {error}") from error
  parts = np.concatenate(split) if split else np.full(len(labelled), TRAIN)
  parts = np.where(labelled, parts, LEFT_OUT).astype(np.int8)
  groups = np.concatenate(group) if group else None
  parts = _draw_missing_parts(parts, groups, spec, seed, where)
  return SplitAssignment(parts, names, dict(fitting.counts), ids.size)


def _draw_missing_parts(
  parts: np.ndarray, group: np.ndarray | None, spec: Spec, seed: int, where: str
) -> np.ndarray:
  """Draw the parts that have no rows from the training rows."""
  rows = np.flatnonzero(parts == TRAIN)
  if not len(rows):
    raise DataError(
      f"{where}: no training row: no row with 'train' in column {spec.split!r} has a"
      " label"
    )
  drawn = [part for part in (VALIDATION, TEST) if not (parts == part).any()]
  if not drawn:
    return parts
  rng = np.random.default_rng(seed)
  keys = rng.permutation(len(rows)) if group is None else group[rows]
  unique, inverse = np.unique(keys, return_inverse=True)
  if len(unique) <= len(drawn):
    what = "rows" if group is None else f"values of {spec.group!r}"
    raise DataError(
      f"{where}: cannot split {len(unique)} {what} into {len(drawn) + 1} parts; add"
      " rows, or a column with the part of each row"
    )
  shares = np.array([spec.shares[TRAIN], *(spec.shares[part] for part in drawn)])
  cuts = np.round(np.cumsum(shares / shares.sum())[:-1] * len(unique)).astype(int)
  for i in range(len(cuts)):  # Each part gets at least one.
    least = 1 if i == 0 else cuts[i - 1] + 1
    cuts[i] = np.clip(cuts[i], least, len(unique) - len(cuts) + i)
  which = np.array([TRAIN, *drawn], np.int8)
  parts[rows] = which[np.searchsorted(cuts, inverse, side="right")]
  return parts


def _parts_by_column(
  column: pa.Array, rows: np.ndarray, where: str, spec: Spec
) -> np.ndarray:
  """Return the part of each row by the words of the split column: `[b]` int."""
  part_of = {word: PARTS.index(part) for word, part in PART_WORDS.items()}
  if spec.parts is not None:
    part_of = {
      str(word).lower(): PARTS.index(part)
      for part, words in spec.parts.items()
      for word in words
    }
  encoded = column.cast(pa.string()).dictionary_encode()
  words = encoded.dictionary.to_pylist()
  parts = np.array([part_of.get(w.strip().lower(), LEFT_OUT) for w in words] + [-1])
  indices = pc.fill_null(encoded.indices, len(words)).to_numpy(zero_copy_only=False)
  found = parts[indices]
  if (found < 0).any():
    index = int(np.argmin(found))
    raise DataError(
      f"{where}: row {rows[index]}, column {spec.split!r}: {column[index].as_py()!r}"
      f" is not a part; expected one of {list(part_of)}"
      + (' ("parts" of the spec)' if spec.parts else "")
    )
  return found


def _group_hashes(column: pa.Array, rows: np.ndarray, seed: int) -> np.ndarray:
  """Return a number per row that rows of one group share: `[b]` uint64.

  A row without a group is a group of its own.
  """
  known: dict[str, int] = {}
  found = np.zeros(len(rows), np.uint64)
  values = column.cast(pa.string()).to_pylist()
  for index, (row, value) in enumerate(zip(rows.tolist(), values, strict=True)):
    key = f"row {row}" if value is None else f"group {value}"
    if key not in known:
      digest = hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest()
      known[key] = int.from_bytes(digest)
    found[index] = known[key]
  return found


class _Ids:
  """Checks that each row has an id, and that no two ids are equal."""

  def __init__(self, source: Source, column: str | None):
    self._source, self._column = source, column
    self._hashes: list[np.ndarray] = []
    self.size = 20  # Enough for any row number.

  def _names(self, rows: np.ndarray, batch: pa.RecordBatch) -> list[str]:
    return example_names(batch[self._column], self._source.where, self._column, rows)

  def add(self, rows: np.ndarray, batch: pa.RecordBatch) -> None:
    if self._column is None:
      return
    names = self._names(rows, batch)
    self.size = max(self.size, max(map(len, names), default=0))
    self._hashes.append(np.array([hash(name) for name in names], np.int64))

  def check(self) -> None:
    """Raise for an id of two rows; rows with equal hashes are read again."""
    if self._column is None:
      return
    hashes = np.concatenate(self._hashes)
    order = np.argsort(hashes, kind="stable")
    twins = np.flatnonzero(np.diff(hashes[order]) == 0)
    suspects = set(np.concatenate([order[twins], order[twins + 1]]).tolist())
    if not suspects:
      return
    seen: dict[str, int] = {}
    for rows, batch in numbered_batches(self._source, [self._column]):
      for row, name in zip(rows.tolist(), self._names(rows, batch), strict=True):
        if row not in suspects:
          continue
        if name in seen:
          raise DataError(
            f"{self._source.where}: row {row}, column {self._column!r}: row"
            f" {seen[name]} has the same id {name[:60]!r}; make the ids unique, or set"
            ' "id" of the spec to null to name rows by their numbers'
          )
        seen[name] = row


def example_names(
  column: pa.Array | None, where: str, name: str | None, rows: np.ndarray
) -> list[str]:
  """Return the ids of some rows, or the row numbers where there is no id column.

  Args:
    column: Cells of the id column, or None.
    where: Name of the file in messages.
    name: Name of the column.
    rows: Row numbers, `[b]`.

  Raises:
    DataError: A row without an id.
  """
  if column is None:
    return [str(row) for row in rows.tolist()]
  with cells.locate_errors(where, name, rows):
    strings, lengths = cells.strings(column)
  if not lengths.all():
    row = rows[int(np.argmin(lengths))]
    raise DataError(
      f'{where}: row {row}, column {name!r}: the id is missing; add it, or set "id" of'
      " the spec to null"
    )
  return strings.to_pylist()
