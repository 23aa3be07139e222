"""The schema of a data set: its modalities and its target, without any data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from deepsets_jax.foundation.errors import ConfigError

ModalityKind = Literal["vectors", "tokens"]
TargetKind = Literal["multilabel", "multiclass", "binary", "regression", "none"]


@dataclasses.dataclass(frozen=True)
class Modality:
  """One modality: the type of its elements.

  Attributes:
    kind: "vectors", each element a float vector of `size` features, or
      "tokens", each element an integer id in `[0, size)`.
    size: Number of features of a vector, or of ids in the vocabulary.
    weighted: Whether each element carries a float weight, such as TF-IDF.
    ordered: Whether the order of an example's elements has a meaning, as for words; in
      a true set it has none.
    timed: Whether each element carries a time, a float.
    encoded: Whether the vectors are the output of an encoder, of norm about 1: a model
      of their width takes them without a layer of its own.
    valued: Whether the weight of a token is a value, such as 41 for the token "age"; it
      is 1 for a token without a value. Valued tokens are `weighted`, too.
    groups: Number of ids of each column, in the order of the ids, for tokens that are
      the cells of several columns of a table. Valued tokens need it.
  """

  kind: ModalityKind
  size: int
  weighted: bool = False
  ordered: bool = False
  timed: bool = False
  encoded: bool = False
  valued: bool = False
  groups: tuple[int, ...] = ()

  def __post_init__(self):
    object.__setattr__(self, "groups", tuple(self.groups))  # JSON has lists.
    if self.kind not in ("vectors", "tokens"):
      raise ConfigError(f"modality kind {self.kind!r}: expected 'vectors' or 'tokens'")
    if self.size < 1:
      raise ConfigError(f"modality size {self.size}: expected at least 1")
    if self.groups and sum(self.groups) != self.size:
      raise ConfigError(
        f"modality groups of {sum(self.groups)} ids in all, and the size is"
        f" {self.size}: expected the number of ids of each column"
      )
    if self.valued and not (self.kind == "tokens" and self.weighted and self.groups):
      raise ConfigError(
        f"a valued modality of kind {self.kind!r}, weighted {self.weighted}, with"
        f" {len(self.groups)} groups: expected weighted tokens with groups"
      )


@dataclasses.dataclass(frozen=True)
class Target:
  """The prediction target of each example.

  Attributes:
    kind: "multilabel": `[size]` of 0 and 1; "multiclass": an id in `[0, size)`;
      "binary": 0 or 1; "regression": `[size]` floats; "none": no target, as for tables
      of users or items.
    size: Number of labels, classes or regressed numbers; 1 for "binary", 0 for "none".
    names: Names of labels, classes or numbers, for reports; may be empty.
    shift, scale: For a regression on standardised targets, per number: a target in the
      units of the data is shift + scale * number. Empty for targets in those units.
  """

  kind: TargetKind
  size: int
  names: tuple[str, ...] = ()
  shift: tuple[float, ...] = ()
  scale: tuple[float, ...] = ()

  def __post_init__(self):
    kinds = get_args(TargetKind)
    if self.kind not in kinds:
      raise ConfigError(f"target kind {self.kind!r}: expected one of {kinds}")
    exact = {"binary": 1, "none": 0}.get(self.kind, max(self.size, 1))
    if self.size != exact:
      raise ConfigError(
        f"target size {self.size} does not fit kind {self.kind!r}: expected {exact}"
      )
    if self.names and len(self.names) != self.size:
      raise ConfigError(
        f"{len(self.names)} target names for a target of size {self.size}"
      )
    units = self.size if self.scale else 0
    if [len(self.shift), len(self.scale)] != [units, units]:
      raise ConfigError(
        f"{len(self.shift)} shifts and {len(self.scale)} scales for a target of size"
        f" {self.size}: expected one of each per number, or none"
      )

  def in_units(self, numbers: np.ndarray) -> np.ndarray:
    """Converts the numbers of a regression, `[b, k]`, to the units of the data."""
    numbers = np.asarray(numbers, np.float64)
    return numbers * self.scale + self.shift if self.scale else numbers


@dataclasses.dataclass(frozen=True)
class Schema:
  """The modalities, in the declared order, and the target of a data set."""

  modalities: Mapping[str, Modality]
  target: Target

  def to_json(self) -> dict[str, Any]:
    """Returns a dictionary of plain values, for `json.dump`."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> Schema:
    """Restores a schema from the value of `to_json`."""
    modalities = {k: Modality(**v) for k, v in value["modalities"].items()}
    target = {
      k: tuple(v) if isinstance(v, list | tuple) else v
      for k, v in value["target"].items()
    }
    return cls(modalities=modalities, target=Target(**target))
