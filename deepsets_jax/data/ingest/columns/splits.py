"""The first look at a table: which part each row is in, its labels and its names."""

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
  """What is known of a table before anything is fitted.

  Attributes:
    parts: Of each row, `TRAIN`, `VALIDATION`, `TEST` or `LEFT_OUT`: `[b]` int8.
    labels: Names of labels or classes, in order; none of other kinds.
    label_counts: Rows with each, by name.
    id_size: Characters of the longest id.
  """

  parts: np.ndarray
  labels: tuple[str, ...]
  label_counts: Mapping[str, int]
  id_size: int

  def rows(self) -> dict[str, int]:
    """Number of rows of each part."""
    return {name: int((self.parts == i).sum()) for i, name in enumerate(PARTS)}


def located(
  error: cells.CellError, where: str, column: str, rows: Sequence[int] | np.ndarray
) -> DataError:
  """The error with its place in the file; `rows` are those of the cells, `[b]`."""
  row, column = rows[error.index], error.column or column
  return DataError(
    f"{where}: row {row}, column {column!r}: {error.problem}; {error.advice}"
  )


def numbered_batches(
  source: Source, columns: Sequence[str] | None = None, start: int = 0
) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
  """The batches of a source from a row on, with the numbers of their rows, `[b]`."""
  for batch in source.batches(columns, start=start):
    yield np.arange(start, start + len(batch)), batch
    start += len(batch)


def batches_with_parts(
  source: Source, columns: Sequence[str], parts: np.ndarray, start: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray, pa.RecordBatch]]:
  """The batches of some rows, with their numbers and their parts, `[b]` each.

  Args:
    source: The file.
    columns: To read.
    parts: Of each of the rows, the first of which is row `start`.
    start: See there.
  """
  stop = start + len(parts)
  for rows, batch in numbered_batches(source, columns, start):
    rows = rows[: stop - rows[0]]
    yield rows, parts[rows - start], batch.slice(0, len(rows))
    if rows[-1] + 1 == stop:
      return


def assign_splits(source: Source, spec: Spec, seed: int) -> SplitAssignment:
  """Reads label, id, split and group of every row.

  A random split depends on the seed and the number of rows; one by group on the seed
  and the groups, not on their order.

  Raises:
    DataError: A row without label, id or split, an id twice, no rows of a part, or
      nothing to learn; it names the row and the way out.
  """
  spec.check(source.schema, source.where)
  fitting = spec.label.fitting()
  marks = [c for c in (spec.label.column, spec.id, spec.split, spec.group) if c]
  given, split, group, ids = [], [], [], _Ids(source, spec.id)
  for rows, batch in numbered_batches(source, list(dict.fromkeys(marks))):
    label = batch[spec.label.column]
    try:
      there = spec.label.given(label)
    except cells.CellError as error:
      raise located(error, source.where, spec.label.column, rows) from error
    try:
      fitting.add(label.filter(pa.array(there)))
    except cells.CellError as error:
      rows_there = rows[there]
      raise located(error, source.where, spec.label.column, rows_there) from error
    given.append(there)
    ids.add(rows, batch)
    if spec.split is not None:
      split.append(_split_of(batch[spec.split], rows, source, spec))
    if spec.group is not None:
      group.append(_group_of(batch[spec.group], rows, seed))
  if not given or not np.concatenate(given).any():
    raise DataError(f"{source.where}: no row has a label in {spec.label.column!r}")
  ids.check()
  try:
    names = fitting.names()
  except ValueError as error:
    raise DataError(
      f"{source.where}: label column {spec.label.column!r}: {error}"
    ) from error
  there = np.concatenate(given)
  parts = _parts(
    there,
    np.concatenate(split) if split else np.where(there, TRAIN, LEFT_OUT),
    np.concatenate(group) if group else None,
    spec,
    seed,
    source.where,
  )
  return SplitAssignment(parts, names, dict(fitting.counts), ids.size)


def _parts(
  there: np.ndarray,
  split: np.ndarray,
  group: np.ndarray | None,
  spec: Spec,
  seed: int,
  where: str,
) -> np.ndarray:
  """The part of each row: as given, and drawn from the training rows for the others."""
  parts = np.where(there, split, LEFT_OUT).astype(np.int8)
  rows = np.flatnonzero(parts == TRAIN)
  if not len(rows):
    raise DataError(
      f"{where}: no training row: none of column {spec.split!r} is 'train' and has a"
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
      f"{where}: {len(unique)} {what} to be split in {len(drawn) + 1} parts; give more,"
      " or a column that says the part of each row"
    )
  shares = np.array([spec.shares[TRAIN], *(spec.shares[part] for part in drawn)])
  cuts = np.round(np.cumsum(shares / shares.sum())[:-1] * len(unique)).astype(int)
  for i in range(len(cuts)):  # Each part has at least one.
    least = 1 if i == 0 else cuts[i - 1] + 1
    cuts[i] = np.clip(cuts[i], least, len(unique) - len(cuts) + i)
  which = np.array([TRAIN, *drawn], np.int8)
  parts[rows] = which[np.searchsorted(cuts, inverse, side="right")]
  return parts


def _split_of(
  column: pa.Array, rows: np.ndarray, source: Source, spec: Spec
) -> np.ndarray:
  """The part of each row, by the word in the column of the split: `[b]` int."""
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
      f"{source.where}: row {rows[index]}, column {spec.split!r}:"
      f" {column[index].as_py()!r} is no part; one of {list(part_of)}"
      + (' ("parts" of the spec)' if spec.parts else "")
    )
  return found


def _group_of(column: pa.Array, rows: np.ndarray, seed: int) -> np.ndarray:
  """A number for each row, the same for rows of one group: `[b]` uint64.

  A row without a group is one by itself.
  """
  strings = column.cast(pa.string()) if not pa.types.is_null(column.type) else None
  values = strings.to_pylist() if strings is not None else [None] * len(rows)
  known: dict[str, int] = {}
  found = np.zeros(len(rows), np.uint64)
  for index, (row, value) in enumerate(zip(rows.tolist(), values, strict=True)):
    key = f"row {row}" if value is None else f"group {value}"
    if key not in known:
      digest = hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest()
      known[key] = int.from_bytes(digest)
    found[index] = known[key]
  return found


class _Ids:
  """Looks at the ids: each row has one, and no two the same."""

  def __init__(self, source: Source, column: str | None):
    self._source, self._column = source, column
    self._hashes: list[np.ndarray] = []
    self.size = 20  # Enough for the number of any row.

  def add(self, rows: np.ndarray, batch: pa.RecordBatch) -> None:
    if self._column is None:
      return
    strings = example_names(batch[self._column], self._source.where, self._column, rows)
    self.size = max(self.size, max(map(len, strings), default=0))
    self._hashes.append(np.array([hash(name) for name in strings], np.int64))

  def check(self) -> None:
    """Raises for an id that two rows have."""
    if self._column is None:
      return
    hashes = np.concatenate(self._hashes)
    order = np.argsort(hashes, kind="stable")
    twins = np.flatnonzero(np.diff(hashes[order]) == 0)
    suspects = np.unique(np.concatenate([order[twins], order[twins + 1]]))
    if not len(suspects):
      return
    seen: dict[str, int] = {}
    wanted = set(suspects.tolist())
    for rows, batch in numbered_batches(self._source, [self._column]):
      strings = example_names(
        batch[self._column], self._source.where, self._column, rows
      )
      for row, name in zip(rows.tolist(), strings, strict=True):
        if row not in wanted:
          continue
        if name in seen:
          raise DataError(
            f"{self._source.where}: row {row}, column {self._column!r}: the id"
            f" {name[:60]!r} is that of row {seen[name]}, too; make the ids unique, or"
            ' set "id" of the spec to null and rows are called by their numbers'
          )
        seen[name] = row


def example_names(
  column: pa.Array | None, where: str, name: str | None, rows: np.ndarray
) -> list[str]:
  """What the examples of some rows are called: their ids, or the rows' numbers.

  Raises:
    DataError: A row without an id.
  """
  if column is None:
    return [str(row) for row in rows.tolist()]
  try:
    strings, lengths = cells.strings(column)
  except cells.CellError as error:
    raise located(error, where, name, rows) from error
  if not lengths.all():
    row = rows[int(np.argmin(lengths))]
    raise DataError(
      f'{where}: row {row}, column {name!r}: there is no id; fill it in, or set "id"'
      " of the spec to null"
    )
  return strings.to_pylist()
