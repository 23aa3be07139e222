"""The column that is to be predicted, as a target."""

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
# Classes of a class label: more are ids, not classes.
_MOST_NAMES = 100_000


@dataclasses.dataclass(frozen=True)
class LabelEncoder:
  """What there is to predict, fitted.

  Attributes:
    names: Of labels or classes, in order; none of other kinds.
    scale: Of a regression.
  """

  names: Sequence[str] = ()
  scale: Scale | None = None

  def to_json(self) -> dict[str, Any]:
    """Of plain values."""
    scale = self.scale.to_json() if self.scale else None
    return {"names": list(self.names), "scale": scale}

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> LabelEncoder:
    """What `to_json` wrote."""
    scale = value["scale"]
    arrays = {k: np.asarray(v) for k, v in scale.items()} if scale else {}
    return cls(tuple(value["names"]), Scale(**arrays) if scale else None)


@dataclasses.dataclass(frozen=True)
class Label:
  """How a column is a label.

  Attributes:
    column: Its name in the file.
    kind: "multilabel", a list of strings or whole numbers, any number of them;
      "multiclass", one; "binary", a boolean, or 0 or 1; "regression", a number, or a
      list of so many. Models are trained on numbers that are scaled by the mean and the
      deviation of the training part; metrics and predictions are in the column's units.
    missing: An example whose cell is null or empty (or, of a list of numbers, has a
      null in it) is an "error", or is left out ("drop"); or, of a multi-label, it has
      none of the labels ("none"). An empty list always has none of them.
    min_count: Of a multi-label: labels of fewer examples are none.
    separator: Of the labels in a string, where the column is one of strings.
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
        f"missing {self.missing!r}: expected one of {legal} of a {self.kind} label"
      )
    if self.min_count < 1:
      raise ConfigError(f"min_count {self.min_count}: expected at least 1")

  def accepts(self, kind: pa.DataType) -> bool:
    """Whether a column of this type can be such a label."""
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
    """What `accepts` accepts, in words."""
    return {
      "multilabel": "a list of strings or whole numbers, or strings with a separator",
      "multiclass": "a string, a whole number or a boolean",
      "binary": "a boolean, or 0 and 1",
      "regression": "a number, or a list of them, always as many",
    }[self.kind]

  def given(self, column: pa.Array) -> np.ndarray:
    """Which cells have a label: `[b]` bool. An empty list has: none of them.

    Raises:
      CellError: One has not, and that is an error.
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
    problem = "there is no label"
    advice = 'fill it in, leave the row out, or set "missing" of the label to "drop"'
    if self.kind == "multilabel":
      advice += ' or, for none of the labels, "none"'
    if cells.is_list(column.type) and column[index].as_py():
      problem = f"a number of the label is missing: {column[index].as_py()}"
      advice += "; or train a run for each number, written in a column of its own"
    return cells.CellError(index, problem, advice)

  def encode(self, column: pa.Array, answers: LabelEncoder) -> np.ndarray:
    """The targets of cells that all have a label, as in `Table`.

    Raises:
      CellError: A value that is none of this kind.
    """
    match self.kind:
      case "regression":
        return answers.scale.apply(self.numbers(column, len(answers.scale.mean)))
      case "binary":
        return _binary(column)
    strings, lengths = cells.strings(column, self.separator)
    index = {name: i for i, name in enumerate(answers.names)}
    ids = np.array([index.get(s, -1) for s in strings.to_pylist()], np.int32)
    if self.kind == "multiclass":
      return ids
    targets = np.zeros((len(column), len(index)), np.float32)
    rows = np.repeat(np.arange(len(column)), lengths)
    targets[rows[ids >= 0], ids[ids >= 0]] = 1
    return targets

  def numbers(self, column: pa.Array, size: int | None = None) -> np.ndarray:
    """The numbers of a regression in cells that all have them, `[b, k]` float64.

    Raises:
      CellError: One that is not finite, or not so many.
    """
    if not cells.is_list(column.type):
      return cells.numbers(column).values[:, None]
    return cells.vectors(column, one=True, size=size).values.astype(np.float64)

  def target(self, answers: LabelEncoder) -> Target:
    """What is predicted."""
    scale = answers.scale
    if scale is None:
      return Target(self.kind, max(len(answers.names), 1), tuple(answers.names))
    shift, factor = (tuple(x.tolist()) for x in (scale.mean, scale.deviation))
    return Target(self.kind, len(shift), shift=shift, scale=factor)

  def fitting(self) -> LabelFitting:
    """What takes in all parts' labels, and the training part's numbers."""
    return LabelFitting(self)


class LabelFitting:
  """Takes in the cells that have a label, and counts them.

  Names are of all parts: a class of the test part alone is still one of the classes.
  """

  def __init__(self, label: Label):
    self._label = label
    self.counts: collections.Counter[str] = collections.Counter()
    self._size: int | None = None

  def add(self, column: pa.Array) -> None:
    """Takes in some cells, none without a label.

    Raises:
      CellError: A value that is none of the label's kind.
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
    # A label that stands twice in a cell counts once.
    pairs = dict.fromkeys(zip(rows.tolist(), strings.to_pylist(), strict=True))
    self.counts.update(name for _, name in pairs)

  def names(self) -> tuple[str, ...]:
    """Of the labels or classes, in order.

    Raises:
      ConfigError: There is but one, or none, or too many.
    """
    label = self._label
    if label.kind == "regression":
      return ()
    names = [n for n, count in self.counts.items() if count >= label.min_count]
    if label.kind == "binary":
      if min(self.counts["0"], self.counts["1"]) == 0:
        raise ConfigError(
          f"every label is {int(self.counts['1'] > 0)}: there is nothing to learn"
        )
      return ()
    if label.kind == "multiclass" and len(names) < 2:
      raise ConfigError(f"its only value is {names[:1]}: there is nothing to learn")
    if not names:
      most = max(self.counts.values(), default=0)
      raise ConfigError(
        f"no label is in {label.min_count} examples, the most frequent is in {most}:"
        ' lower "min_count" of the label'
      )
    if len(names) > _MOST_NAMES:
      raise ConfigError(
        f"{len(names):,} different values: these are ids, not labels; choose another"
        ' column, or raise "min_count" of the label'
      )
    return tuple(sorted(names, key=_order(names)))


def _is_whole(cell: Sequence[float | None] | None) -> bool:
  """Whether a list has numbers, and none of them is null or NaN."""
  return bool(cell) and all(x is not None and not math.isnan(x) for x in cell)


def _order(names: Sequence[str]):
  """Numbers in their order, else letters in theirs."""
  if all(name.removeprefix("-").isdecimal() for name in names):
    return int
  return str


def _count(column: pa.Array, label: Label) -> np.ndarray:
  """How many values each cell has: 0 where it is null, NaN or an empty string."""
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
