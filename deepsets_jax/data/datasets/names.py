"""Names of elements, targets and predictions, for people to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from deepsets_jax.data.datasets import registry
from deepsets_jax.data.datasets.entry import Names
from deepsets_jax.data.ingest.columns.fields import Quantity
from deepsets_jax.data.tables.schema import Target
from deepsets_jax.data.tables.table import Table


def element_names(config: ConfigDict, seed: int) -> Mapping[str, Names]:
  """Returns {modality: the name of every token id} for `registry.load_tables`.

  Modalities of vectors, and tokens whose strings are not known, are left out.

  Args:
    config: `config.data` of a run.
    seed: `config.seed`.
  """
  return registry.find_entry(config.name).element_names(config, seed)


def columns(config: ConfigDict) -> Mapping[str, tuple[str, ...]]:
  """Returns {modality: its columns, in the order of `Modality.groups`}.

  Modalities of a single column are left out. `config` is `config.data` of a run.
  """
  return registry.find_entry(config.name).columns(config)


def pictures(config: ConfigDict, table: Table, row: int) -> dict[str, np.ndarray]:
  """Returns the images of an example by modality; 0 is black, 1 white.

  Args:
    config: `config.data` of a run.
    table: A table of that data set.
    row: The example.

  Returns:
    {modality: `[n, height, width]`, or `[n, height, width, 3]` in colour}, for the
    modalities whose elements are images.
  """
  found = {}
  for name, to_images in registry.find_entry(config.name).images(config).items():
    begin, end = table.modalities[name].offsets[row : row + 2]
    found[name] = to_images(table.modalities[name].values[begin:end])
  return found


def text(
  modality: str,
  position: int,
  value: int | np.ndarray,
  names: Mapping[str, Sequence[str | Quantity]],
  weight: float | None = None,
) -> str:
  """Returns the text of an element: the string of a token, or "modality[position]".

  A single number is shown with its value. Characters that cannot be printed are
  escaped.

  Args:
    modality: The name of the modality.
    position: The position among the example's elements of the modality.
    value: The token id, or the vector.
    names: See `element_names`.
    weight: The weight of the token, which is the value of a numeric token.
  """
  if modality in names:
    found = names[modality][int(value)]
    if isinstance(found, Quantity):
      found = found.text(weight)
    return found if found and found.isprintable() else repr(found)
  where = f"{modality}[{position}]"
  return f"{where} = {np.ravel(value)[0]:.4g}" if np.size(value) == 1 else where


def truth(target: Target, value: np.ndarray) -> list[str]:
  """Returns the true target as texts: labels, "yes" or "no", or numbers.

  Numbers are in the units of the data.

  Args:
    target: The target of the schema.
    value: The target of one example.
  """
  match target.kind:
    case "multilabel":
      return [_names(target)[index] for index in np.flatnonzero(value > 0)]
    case "multiclass":
      return [_names(target)[int(value)]]
    case "binary":
      return ["yes" if value > 0 else "no"]
  return [f"{number:.4g}" for number in np.ravel(target.in_units(value))]


def prediction(
  target: Target, scores: np.ndarray, threshold: float
) -> list[dict[str, Any]]:
  """Returns the prediction as [{"name": label, "value": probability or number}].

  A multi-label prediction has the labels above the threshold, possibly none; a
  multi-class prediction the three most probable classes. A binary prediction has the
  name with its probability; without a name it is the predicted answer, "yes" or "no",
  with the probability of that answer.

  Args:
    target: The target of the schema.
    scores: The probabilities of one example, or the numbers of a regression.
    threshold: The smallest probability of a predicted label, exclusive.
  """
  scores = np.atleast_1d(scores)  # A binary target has a single number.
  if target.kind == "binary" and not target.names:
    chance = float(scores[0])
    if chance > threshold:
      return [{"name": "yes", "value": chance}]
    return [{"name": "no", "value": 1 - chance}]
  order = np.arange(target.size)
  if target.kind in ("multilabel", "multiclass"):
    order = np.argsort(-scores, kind="stable")
    many = int((scores > threshold).sum()) if target.kind == "multilabel" else 3
    order = order[:many]
  return [{"name": _names(target)[i], "value": float(scores[i])} for i in order]


def _names(target: Target) -> list[str]:
  return list(target.names) or [str(index) for index in range(target.size)]
