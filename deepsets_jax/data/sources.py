"""The splits of a data set, by its name in a config."""

from __future__ import annotations

import pathlib

import ml_collections

from deepsets_jax.data import debian_programs, digits, multiple_features
from deepsets_jax.data.table import DataError, Table, open_table


def load(config: ml_collections.ConfigDict, seed: int) -> dict[str, Table]:
  """The tables of `config.data`: "train", "validation", "test" and perhaps others.

  Every value of every table has been looked at. All have one schema.

  Raises:
    ValueError: An unknown name.
    DataError: Bad data; see `Table.validate`.
  """
  match config.name:
    case "debian_programs":
      tables = debian_programs.load(seed, **config.debian_programs)
    case "digits":
      tables = digits.load(seed=seed, **config.digits)
    case "multiple_features":
      tables = multiple_features.load(seed)
    case "tables":
      tables = _stored(config.tables.path)
    case _:
      raise ValueError(
        f"unknown config.data.name {config.name!r};"
        " one of ['debian_programs', 'digits', 'multiple_features', 'tables']"
      )
  for split in ("train", "validation", "test"):
    if split not in tables:
      raise DataError(f"{config.name}: no split {split!r}; it has {sorted(tables)}")
  for split, table in tables.items():
    table.validate(f"{config.name}, {split}")
    if table.schema != tables["train"].schema:
      raise DataError(
        f"{config.name}: the schema of {split!r}, {table.schema}, is not that of"
        f" 'train', {tables['train'].schema}"
      )
  train = tables["train"]
  if not any(len(ragged.values) for ragged in train.modalities.values()):
    raise DataError(
      f"{config.name}: no training example has an element in any modality, of"
      f" {sorted(train.modalities)}: there is nothing to learn from"
    )
  return tables


def _stored(path: str | None) -> dict[str, Table]:
  """The tables in a folder's folders, one per split, as `Table.write` made them."""
  if path is None:
    raise DataError(
      "config.data.tables.path is not set: give the folder that holds train/,"
      " validation/ and test/"
    )
  folders = [f.parent for f in sorted(pathlib.Path(path).glob("*/table.json"))]
  if not folders:
    raise DataError(f"no table in {path}: expected {path}/train/table.json and others")
  return {folder.name: open_table(folder) for folder in folders}
