"""The columnar table that every data source becomes: a `Ragged` per modality.

On disk, a table is a folder of `.npy` files, `<modality>.values.npy`,
`<modality>.offsets.npy` and so on, with the schema in `table.json`. It is opened
memory-mapped, in milliseconds at any size. Nothing in it is pickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping

import numpy as np

from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.foundation.errors import DataError
from deepsets_jax.ragged import Ragged, offsets_from_lengths

FORMAT = "deepsets_jax table 1"
# Rows of a column checked together, which bounds the memory of a check.
_CHECK_ROWS = 1 << 18
# Kinds of target with a row of numbers, `[b, k]`; for "none" the row is empty.
_WIDE = ("multilabel", "regression", "none")


@dataclasses.dataclass(frozen=True)
class Table:
  """All examples of one split.

  Attributes:
    schema: The modalities and the target.
    modalities: Every modality of the schema; offsets are int64.
    targets: `[b, k]` or `[b]`, see `schema.Target`.
    ids: The name of each example, for messages and predictions: `[b]` strings.
  """

  schema: Schema
  modalities: Mapping[str, Ragged]
  targets: np.ndarray
  ids: np.ndarray

  def __len__(self) -> int:
    return len(self.targets)

  def lengths(self, name: str) -> np.ndarray:
    """Returns the number of elements of each example in one modality: `[b]` int64."""
    return np.diff(self.modalities[name].offsets)

  def lengths_of(self, name: str, rows: np.ndarray) -> np.ndarray:
    """Returns the number of elements of these rows in one modality."""
    offsets = self.modalities[name].offsets
    return offsets[1:][rows] - offsets[:-1][rows]

  def select(self, rows: np.ndarray) -> Table:
    """Returns the table of these rows, in this order, in memory."""
    return dataclasses.replace(
      self,
      modalities={k: take_rows(v, rows) for k, v in self.modalities.items()},
      targets=self.targets[rows],
      ids=self.ids[rows],
    )

  def validate(self, where: str) -> Table:
    """Checks every value, and returns the table itself.

    Args:
      where: The name of the table in messages, such as a split or a file.

    Raises:
      DataError: There are no examples; modalities differ from the schema; offsets
        decrease; a value has another shape or type, is not finite, or is out of range.
        The message names the example and how to repair it.
    """
    if not len(self):
      raise DataError(f"{where}: no examples; a split needs at least one")
    unknown = sorted(set(self.modalities) ^ set(self.schema.modalities))
    if unknown:
      raise DataError(
        f"{where}: modality {unknown[0]!r} is not in both the data"
        f" {sorted(self.modalities)} and the schema"
        f" {sorted(self.schema.modalities)}"
      )
    if len(self.ids) != len(self):
      raise DataError(f"{where}: {len(self.ids)} ids for {len(self)} examples")
    for name, modality in self.schema.modalities.items():
      _check_modality(self, name, modality, f"{where}, modality {name!r}")
    _check_targets(self, self.schema.target, f"{where}, target")
    return self

  def write(self, path: str | pathlib.Path) -> None:
    """Writes the folder `path` atomically.

    Raises:
      FileExistsError: `path` exists.
      DataError: The table is not valid.
    """
    with new_folder(pathlib.Path(path), self.schema) as folder:
      self.validate(str(path))
      for name, ragged in self.modalities.items():
        np.save(folder / f"{name}.values.npy", ragged.values)
        np.save(folder / f"{name}.offsets.npy", ragged.offsets)
        for attribute in ("weights", "times"):
          if (array := getattr(ragged, attribute)) is not None:
            np.save(folder / f"{name}.{attribute}.npy", array)
      np.save(folder / "targets.npy", self.targets)
      np.save(folder / "ids.npy", np.asarray(self.ids, np.str_))


@contextlib.contextmanager
def new_folder(path: pathlib.Path, schema: Schema) -> Iterator[pathlib.Path]:
  """Creates the folder of a table atomically, with its `table.json`.

  Args:
    path: The folder to create.
    schema: The schema of the table.

  Yields:
    A temporary folder to write the columns to. It becomes `path` when the block ends,
    and is removed if the block raises.

  Raises:
    FileExistsError: `path` exists.
  """
  if path.exists():
    raise FileExistsError(f"{path} exists; remove it or choose another folder")
  path.parent.mkdir(parents=True, exist_ok=True)
  folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
  try:
    yield folder
    header = {"format": FORMAT, "schema": schema.to_json()}
    (folder / "table.json").write_text(json.dumps(header, indent=2))
    folder.chmod(0o755)
    folder.rename(path)
  except BaseException:
    shutil.rmtree(folder, ignore_errors=True)
    raise


def table_without_target(
  modalities: Mapping[str, Ragged], kinds: Mapping[str, Modality], ids: np.ndarray
) -> Table:
  """Returns a table whose target is of kind "none", such as a table of users or items.

  Args:
    modalities: The columns.
    kinds: The schema of each modality, in the order of the schema.
    ids: The name of each example.
  """
  targets = np.zeros((len(ids), 0), np.float32)
  return Table(Schema(kinds, Target("none", 0)), modalities, targets, ids)


def blank(schema: Schema) -> Table:
  """Returns a table of one example without elements and with target 0."""
  modalities = {}
  for name, modality in schema.modalities.items():
    vectors = modality.kind == "vectors"
    shape, kind = ((0, modality.size), np.float32) if vectors else ((0,), np.int32)
    modalities[name] = Ragged(
      np.zeros(shape, kind),
      np.zeros(2, np.int64),
      weights=np.zeros(0, np.float32) if modality.weighted else None,
      times=np.zeros(0, np.float32) if modality.timed else None,
    )
  target = schema.target
  targets = np.zeros(
    (1, target.size) if target.kind in _WIDE else 1,
    np.int32 if target.kind == "multiclass" else np.float32,
  )
  return Table(schema, modalities, targets, np.array([""]))


def open_table(path: str | pathlib.Path) -> Table:
  """Opens the table in a folder, memory-mapped, in milliseconds at any size.

  Raises:
    DataError: The folder has no table, or a file of it is missing or truncated.
  """
  path = pathlib.Path(path)
  try:
    header = json.loads((path / "table.json").read_text())
  except (OSError, ValueError) as error:
    raise DataError(
      f"{path} is not a table ({error}): expected a folder with a table.json, as"
      " Table.write makes it"
    ) from error
  found = header.get("format") if isinstance(header, dict) else None
  if found != FORMAT:
    raise DataError(
      f"{path / 'table.json'}: format {found!r}, expected {FORMAT!r}; write the"
      " table again"
    )
  schema = Schema.from_json(header["schema"])
  modalities = {}
  for name, modality in schema.modalities.items():
    modalities[name] = Ragged(
      values=_map(path / f"{name}.values.npy"),
      offsets=_map(path / f"{name}.offsets.npy"),
      weights=_map(path / f"{name}.weights.npy") if modality.weighted else None,
      times=_map(path / f"{name}.times.npy") if modality.timed else None,
    )
  targets = _map(path / "targets.npy")
  return Table(schema, modalities, targets, ids=_map(path / "ids.npy"))


def _map(path: pathlib.Path) -> np.ndarray:
  """The array in a file, memory-mapped."""
  try:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    raise DataError(
      f"{path} is missing, truncated or damaged ({error}); write the table again"
    ) from error
  return array


def take_rows(ragged: Ragged, rows: np.ndarray) -> Ragged:
  """Returns a host `Ragged` with copies of some rows, in this order."""
  begins, ends = ragged.offsets[:-1][rows], ragged.offsets[1:][rows]
  return _take(ragged, *slots_between(begins, ends))


def take_elements(ragged: Ragged, keep: np.ndarray) -> Ragged:
  """Returns a host `Ragged` without the elements where `keep`, `[n]` bool, is False."""
  return _take(ragged, keep, offsets_from_lengths(keep)[ragged.offsets])


def _take(ragged: Ragged, which: np.ndarray, offsets: np.ndarray) -> Ragged:
  """The selected elements, with their weights and times."""
  return Ragged(
    ragged.values[which],
    offsets,
    weights=None if ragged.weights is None else ragged.weights[which],
    times=None if ragged.times is None else ragged.times[which],
  )


def slots_between(
  begins: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the slots of runs, `begins[i]` to before `ends[i]`, and their offsets."""
  lengths = ends - begins
  offsets = np.zeros(len(lengths) + 1, np.int64)
  np.cumsum(lengths, out=offsets[1:])
  return element_slots(begins, lengths, offsets), offsets


def element_slots(
  starts: np.ndarray, lengths: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
  """Returns the slots of the elements of some rows in their column.

  Args:
    starts: The first slot of each row in the column.
    lengths: The number of elements of each row.
    offsets: The offsets of the rows in the result, `[rows + 1]`.

  Returns:
    `[sum of lengths]` integers.
  """
  slots = np.repeat(starts - offsets[:-1], lengths)
  slots += np.arange(offsets[-1], dtype=slots.dtype)
  return slots


def _check_modality(table: Table, name: str, modality: Modality, where: str) -> None:
  ragged = table.modalities[name]
  values, offsets = ragged.values, ragged.offsets
  if len(offsets) != len(table) + 1:
    raise DataError(
      f"{where}: {len(offsets)} offsets for {len(table)} examples, expected one"
      " more than examples"
    )
  steps = np.diff(offsets)
  if steps.min(initial=0) < 0:
    row = int(np.argmin(steps >= 0))
    raise DataError(
      f"{where}: offsets decrease at {_example(table, row)}, from"
      f" {offsets[row]} to {offsets[row + 1]}"
    )
  if offsets[0] != 0 or offsets[-1] != len(values):
    raise DataError(
      f"{where}: offsets run from {offsets[0]} to {offsets[-1]}, expected 0 to the"
      f" number of elements, {len(values)}"
    )
  shape = () if modality.kind == "tokens" else (modality.size,)
  if values.shape[1:] != shape:
    raise DataError(
      f"{where}: elements of shape {values.shape[1:]}; the schema has {shape}"
    )
  wanted = np.integer if modality.kind == "tokens" else np.floating
  if not np.issubdtype(values.dtype, wanted):
    raise DataError(
      f"{where}: values of type {values.dtype}, expected {wanted.__name__}"
    )
  for flag, attribute in (("weighted", "weights"), ("timed", "times")):
    declared, array = getattr(modality, flag), getattr(ragged, attribute)
    if declared != (array is not None):
      raise DataError(
        f"{where}: {flag} is {declared} in the schema, and the data has"
        f" {'no ' if array is None else ''}{attribute}"
      )
    if array is not None and len(array) != len(values):
      raise DataError(f"{where}: {len(array)} {attribute} for {len(values)} elements")
  for begin in range(0, len(values), _CHECK_ROWS):
    _check_elements(table, name, modality, where, begin)


def _check_elements(
  table: Table, name: str, modality: Modality, where: str, begin: int
) -> None:
  """Raises an error for the first bad element among `_CHECK_ROWS` from `begin`."""
  ragged = table.modalities[name]
  chunk = slice(begin, begin + _CHECK_ROWS)
  values = ragged.values[chunk]
  if modality.kind == "tokens":
    good = (values >= 0) & (values < modality.size)
    problem = f"is outside the vocabulary of {modality.size}"
    advice = "map unknown tokens to an id of their own, or leave them out"
  else:
    good = np.isfinite(values).all(axis=1)
    problem = "is not finite"
    advice = "leave the element out: absence needs no placeholder"
  for attribute, kind in (("weights", "weight"), ("times", "time")):
    array = getattr(ragged, attribute)
    if good.all() and array is not None:
      values = array[chunk]
      good = np.isfinite(values)
      problem = f"is not a finite {kind}"
      advice = f"leave the element out, or give it a {kind}"
  if good.all():
    return
  slot = begin + int(np.argmin(good))
  row = int(np.searchsorted(ragged.offsets, slot, side="right")) - 1
  value = values[slot - begin]
  if value.ndim:
    feature = int(np.argmin(np.isfinite(value)))
    value = f"feature {feature} = {value[feature]}"
  raise DataError(
    f"{where}: element {slot - int(ragged.offsets[row])} of"
    f" {_example(table, row)}, {value}, {problem}; {advice}"
  )


def _check_targets(table: Table, target: Target, where: str) -> None:
  targets = table.targets
  wide = target.kind in _WIDE
  shape = (len(table), target.size) if wide else (len(table),)
  if targets.shape != shape:
    raise DataError(f"{where}: shape {targets.shape}, expected {shape}")
  if target.kind == "multiclass":
    good = (targets >= 0) & (targets < target.size)
    legal = f"an integer from 0 to {target.size - 1}"
    if not np.issubdtype(targets.dtype, np.integer):
      raise DataError(f"{where}: type {targets.dtype}, expected integers")
  elif target.kind == "regression":
    good, legal = np.isfinite(targets), "finite"
  else:
    good, legal = (targets == 0) | (targets == 1), "0 or 1"
  if not good.all():
    index = np.unravel_index(int(np.argmin(good)), good.shape)
    raise DataError(
      f"{where}: {targets[index]} at {_example(table, int(index[0]))}"
      f"{f', label {index[1]}' if wide else ''}; expected {legal}"
    )


def _example(table: Table, row: int) -> str:
  return f"example {str(table.ids[row])!r} (row {row})"
