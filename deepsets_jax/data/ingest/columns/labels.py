"""Read the column that is predicted as a target."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from deepsets_jax.data.ingest.columns import cells
from deepsets_jax.data.ingest.columns.numeric import Scale
from deepsets_jax.data.tables.schema import Target
from deepsets_jax.foundation.errors import ConfigError

_KINDS = ("multilabel", "multiclass", "binary", "regression")
# A label with more names than this is a column of ids.
_MOST_NAMES = 100_000


@dataclasses.dataclass(frozen=True)
class LabelEncoder:
  """The fitted state of a label.

  Attributes:
    names: Names of labels or classes, in order; empty for other kinds of label.
    scale: Scale of a regression, else None.
  """

  names: Sequence[str] = ()
  scale: Scale | None = None

  def to_json(self) -> dict[str, Any]:
    """Return the state as values of JSON."""
    scale = self.scale.to_json() if self.scale else None
    return {"names": list(self.names), "scale": scale}

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> LabelEncoder:
    """Restore the state from the value of `to_json`."""
    scale = value["scale"]
    arrays = {k: np.asarray(v) for k, v in scale.items()} if scale else {}
    return cls(tuple(value["names"]), Scale(**arrays) if scale else None)


@dataclasses.dataclass(frozen=True)
class Label:
  """The column to predict, and how to read it.

  Attributes:
    column: Name of the column in the file.
    kind: "multilabel", any number of strings or whole numbers in a list; "multiclass",
      one of them; "binary", a boolean, or 0 or 1; "regression", a number, or a list of
      a fixed number of them. Models are trained on numbers that are scaled by mean and
      deviation of the training part; metrics and predictions are in the column's units.
    missing: What to do with an example whose cell is null or empty, or has a null in a
      list of numbers: raise ("error"), leave it out ("drop"), or, for a multi-label,
      give it no label ("none"). An empty list always means no label.
    min_count: Multi-label: minimum number of examples for a string to be a label.
    separator: Text between the labels in a string, for a column of strings.
  """

  column: str
  kind: str
  missing: str = "error"
  min_count: int = 1
  separator: str | None = None

  def __post_init__(self):
    if self.kind not in _KINDS:
      raise ConfigError(f"label kind {self.kind!r}: expected one of {list(_KINDS)}")
    legal = ["error", "drop", *(["none"] if self.kind == "multilabel" else [])]
    if self.missing not in legal:
      raise ConfigError(
        f"missing {self.missing!r}: expected one of {legal} for a {self.kind} label"
      )
    if self.min_count < 1:
      raise ConfigError(f"min_count {self.min_count}: expected at least 1")

  def accepts(self, kind: pa.DataType) -> bool:
    """Whether columns of this Arrow type can be such a label."""
    inner = kind.value_type if cells.is_list(kind) else kind
    match self.kind:
      case "multilabel":
        strings = self.separator is not None and pa.types.is_string(kind)
        return strings or (cells.is_list(kind) and cells.is_token(inner))
      case "multiclass":
        return cells.is_token(kind)
      case "binary":
        return cells.is_number(kind)
    return cells.is_number(inner)

  @property
  def takes(self) -> str:
    """Description of the types that `accepts` accepts."""
    return {
      "multilabel": "a list of strings or whole numbers, or strings with a separator",
      "multiclass": "a string, a whole number or a boolean",
      "binary": "a boolean, or 0 and 1",
      "regression": "a number, or a list of a fixed number of them",
    }[self.kind]

  def label_mask(self, column: pa.Array) -> np.ndarray:
    """Return which cells have a label: `[b]` bool. An empty list of labels has.

    Raises:
      CellError: A label is missing, and `missing` is "error".
    """
    there = column.is_valid().to_numpy(zero_copy_only=False)
    if self.missing == "none":
      return np.ones(len(column), bool)
    if not cells.is_list(column.type):
      there = _count(column, self) > 0
    elif self.kind == "regression":
      there = np.array([_is_whole(cell) for cell in column.to_pylist()], bool)
    if not there.all() and self.missing == "error":
      raise self._missing(column, int(np.argmin(there)))
    return there

  def _missing(self, column: pa.Array, index: int) -> cells.CellError:
    problem = "the label is missing"
    advice = 'add it, or set "missing" of the label to "drop" to leave such rows out'
    if self.kind == "multilabel":
      advice += ', or to "none" if they have none of the labels'
    if cells.is_list(column.type) and column[index].as_py():
      problem = f"a number of the label is missing: {column[index].as_py()}"
      advice += "; or write each number to its own column, and train a run for each"
    return cells.CellError(index, problem, advice)

  def encode(self, column: pa.Array, fitted: LabelEncoder) -> np.ndarray:
    """Encode cells that all have a label as targets of a `Table`.

    Raises:
      CellError: A value does not fit the kind of label.
    """
    match self.kind:
      case "regression":
        return fitted.scale.apply(self.numbers(column, len(fitted.scale.mean)))
      case "binary":
        return _binary(column)
    strings, lengths = cells.strings(column, self.separator)
    index = {name: i for i, name in enumerate(fitted.names)}
    ids = np.array([index.get(s, -1) for s in strings.to_pylist()], np.int32)
    if self.kind == "multiclass":
      return ids
    targets = np.zeros((len(column), len(index)), np.float32)
    rows = np.repeat(np.arange(len(column)), lengths)
    targets[rows[ids >= 0], ids[ids >= 0]] = 1
    return targets

  def numbers(self, column: pa.Array, size: int | None = None) -> np.ndarray:
    """Return the numbers of a regression label, `[b, k]` float64.

    Args:
      column: Cells that all have a label.
      size: `k`; None for the size of the first list.

    Raises:
      CellError: A number is not finite, or a list has another size.
    """
    if not cells.is_list(column.type):
      return cells.numbers(column).values[:, None]
    return cells.vectors(column, one=True, size=size).values.astype(np.float64)

  def target(self, fitted: LabelEncoder) -> Target:
    """Return the schema of the target."""
    scale = fitted.scale
    if scale is None:
      return Target(self.kind, max(len(fitted.names), 1), tuple(fitted.names))
    shift, factor = (tuple(x.tolist()) for x in (scale.mean, scale.deviation))
    return Target(self.kind, len(shift), shift=shift, scale=factor)

  def fitting(self) -> LabelFitting:
    """Return an object that counts the labels of all parts."""
    return LabelFitting(self)


class LabelFitting:
  """Counts the labels of all parts.

  Names come from all parts, as a class of only the test part is a class as well.
  """

  def __init__(self, label: Label):
    self._label = label
    self.counts: collections.Counter[str] = collections.Counter()
    self._size: int | None = None

  def add(self, column: pa.Array) -> None:
    """Add some cells that all have a label.

    Raises:
      CellError: A value does not fit the kind of label.
    """
    match self._label.kind:
      case "regression":
        if len(column):
          self._size = self._label.numbers(column, self._size).shape[1]
        return
      case "binary":
        values = _binary(column)
        self.counts.update({"0": int((values == 0).sum()), "1": int(values.sum())})
        return
    strings, lengths = cells.strings(column, self._label.separator)
    rows = np.repeat(np.arange(len(column)), lengths)
    # A label that a cell repeats counts once.
    pairs = dict.fromkeys(zip(rows.tolist(), strings.to_pylist(), strict=True))
    self.counts.update(name for _, name in pairs)

  def names(self) -> tuple[str, ...]:
    """Return the names of labels or classes, in order.

    Raises:
      ConfigError: There are too few or too many.
    """
    label = self._label
    if label.kind == "regression":
      return ()
    names = [n for n, count in self.counts.items() if count >= label.min_count]
    if label.kind == "binary":
      if min(self.counts["0"], self.counts["1"]) == 0:
        raise ConfigError(
          f"every label is {int(self.counts['1'] > 0)}, so there is nothing to learn"
        )
      return ()
    if label.kind == "multiclass" and len(names) < 2:
      raise ConfigError(f"its only value is {names[:1]}, so there is nothing to learn")
    if not names:
      most = max(self.counts.values(), default=0)
      raise ConfigError(
        f"no label is in {label.min_count} examples, the most frequent is in {most};"
        ' lower "min_count" of the label'
      )
    if len(names) > _MOST_NAMES:
      raise ConfigError(
        f"{len(names):,} different values are ids, not labels; choose another column,"
        ' or raise "min_count" of the label'
      )
    return tuple(sorted(names, key=_order(names)))


def _is_whole(cell: Sequence[float | None] | None) -> bool:
  """Whether a list has numbers, none of which is null or NaN."""
  return bool(cell) and all(x is not None and not math.isnan(x) for x in cell)


def _order(names: Sequence[str]):
  """Return the sort key: the number if all names are numbers, else the string."""
  if all(name.removeprefix("-").isdecimal() for name in names):
    return int
  return str


def _count(column: pa.Array, label: Label) -> np.ndarray:
  """Return the number of values per cell: 0 for null, NaN or an empty string."""
  if label.kind in ("regression", "binary"):
    return cells.numbers(column).lengths
  return cells.strings(column, label.separator).lengths


def _binary(column: pa.Array) -> np.ndarray:
  values = cells.numbers(column).values
  bad = (values != 0) & (values != 1)
  if bad.any():
    index = int(np.argmax(bad))
    raise cells.CellError(
      index,
      f"the label is {values[index]:g}, not 0 or 1",
      'set the label\'s kind to "multiclass" or "regression"',
    )
  return values.astype(np.float32)
