"""What elements and targets are called: strings of token ids and of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from deepsets_jax.data.datasets import debian_programs, digits
from deepsets_jax.data.ingest.columns import build, spec
from deepsets_jax.data.ingest.columns.fields import Fields, Quantity
from deepsets_jax.data.tables.schema import Target
from deepsets_jax.data.tables.table import Table


def element_names(
  config: ml_collections.ConfigDict, seed: int
) -> dict[str, tuple[str | Quantity, ...]]:
  """The name of every token id, by modality, for `registry.load_tables`.

  A modality of vectors has none, nor have data sets that come without their strings.

  Args:
    config: `config.data` of a run.
    seed: `config.seed`.
  """
  if config.name == "debian_programs":
    own = config.debian_programs
    found = debian_programs.vocabularies(
      seed, min_document_frequency=own.min_document_frequency
    )
    texts = ("summary", "description") if own.text == "sentences" else ()
    return {name: words for name, words in found.items() if name not in texts}
  if config.name == "digits" and config.digits.task == "multimodal":
    return {"ocr": tuple("0123456789"), "caption": digits.NUMBER_WORDS}
  if config.name == "table":
    of_spec = spec.from_json(config.columns.to_dict(), "config.data.columns")
    return build.encoding_of(config.path, of_spec, seed).names()
  return {}


def columns(config: ml_collections.ConfigDict) -> dict[str, tuple[str, ...]]:
  """The columns of each modality that has several, in the order of `Modality.groups`.

  Args:
    config: `config.data` of a run.
  """
  if config.name != "table":
    return {}
  of_spec = spec.from_json(config.columns.to_dict(), "config.data.columns")
  return {
    name: tuple(kind.by_column)
    for name, kind in of_spec.modalities.items()
    if isinstance(kind, Fields)
  }


def pictures(
  config: ml_collections.ConfigDict, table: Table, row: int
) -> dict[str, np.ndarray]:
  """The elements of an example that are pictures, by modality: `[n, height, width]`.

  Of colours `[n, height, width, 3]`. 0 is black, 1 white; `config` is `config.data`.
  """
  found = {}
  if config.name == "digits":
    found["image"] = _vectors(table, "image", row).reshape(-1, 8, 8)
  if config.name == "table":
    for name, settings in config.columns.modalities.items():
      if settings.kind == "image":
        pixels = _vectors(table, name, row) / 2 + 0.5
        found[name] = pixels.reshape(-1, settings.size, settings.size, 3)
  return found


def _vectors(table: Table, name: str, row: int) -> np.ndarray:
  column = table.modalities[name]
  return column.values[column.offsets[row] : column.offsets[row + 1]]


def text(
  modality: str,
  position: int,
  value: int | np.ndarray,
  names: Mapping[str, Sequence[str | Quantity]],
  weight: float | None = None,
) -> str:
  """What an element is called: its string, or its place, with its number if it is one.

  What could not be printed is escaped.

  Args:
    modality: Its name.
    position: Among the example's elements of the modality.
    value: The token id, or the vector.
    names: See `element_names`.
    weight: The weight of the token, which is the value of a number.
  """
  if modality in names:
    found = names[modality][int(value)]
    if isinstance(found, Quantity):
      found = found.text(weight)
    return found if found and found.isprintable() else repr(found)
  place = f"{modality}[{position}]"
  return f"{place} = {np.ravel(value)[0]:.4g}" if np.size(value) == 1 else place


def truth(target: Target, value: np.ndarray) -> list[str]:
  """What is true of an example, in words: its labels, "yes" or "no", or numbers.

  Numbers are in the units of the data.
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
  """Names with probabilities, or with the numbers of a regression.

  Multi-label: the labels above the threshold, which may be none. Multi-class: the
  three most probable. Binary: the name with its probability; without a name, the
  predicted answer, "yes" or "no", with the probability of that answer.
  """
  scores = np.atleast_1d(scores)  # Of a binary target it is a single number.
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
