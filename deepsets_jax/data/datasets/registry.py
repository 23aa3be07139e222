"""The splits of a data set, by its name in a config."""

from __future__ import annotations

import pathlib

import ml_collections
from absl import logging

from deepsets_jax.data.datasets import (
  debian_programs,
  digits,
  movielens,
  multiple_features,
)
from deepsets_jax.data.ingest.columns import build, spec
from deepsets_jax.data.ingest.columns.encoding import Encoding
from deepsets_jax.data.interactions import click_logs
from deepsets_jax.data.interactions.catalog import ItemCatalog
from deepsets_jax.data.tables.table import Table, open_table
from deepsets_jax.foundation.errors import ConfigError, DataError

_NAMES = ("debian_programs", "digits", "multiple_features", "table", "tables")
_HISTORIES = ("movielens", "clicks")


def resolve_columns(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The config with the spec of the columns in it, where it is in a file so far.

  Args:
    config: Of a run.

  Raises:
    DataError: `config.data.name` is "table", and there is no path or no spec.
  """
  data = config.data
  if data.name != "table" or data.columns:
    return config
  if data.path is None:
    raise DataError("config.data.path is not set: give the file of the table")
  config = config.copy_and_resolve_references()
  with config.unlocked():
    found = spec.read_spec(spec.path_beside(data.path)).to_json()
    config.data.columns = ml_collections.ConfigDict(found)
  return config


def upgrade_columns(config: ml_collections.ConfigDict) -> None:
  """Adds the settings that are new since a run's spec of columns was written."""
  if config.data.get("columns"):
    found = spec.from_json(config.data.columns.to_dict(), "config.data.columns")
    config.data.columns = ml_collections.ConfigDict(found.to_json())


def encoding(config: ml_collections.ConfigDict, seed: int) -> Encoding | None:
  """How the columns of "table" became the tables of `load`; None of other data."""
  if config.name != "table":
    return None
  return build.encoding_of(config.path, _spec(config), seed)


def _spec(config: ml_collections.ConfigDict) -> spec.Spec:
  return spec.from_json(config.columns.to_dict(), "config.data.columns")


def load_tables(config: ml_collections.ConfigDict, seed: int) -> dict[str, Table]:
  """The tables of `config.data`: "train", "validation", "test" and perhaps others.

  Every value of every table has been looked at. All have one schema.

  Raises:
    ConfigError: An unknown name.
    DataError: Bad data; see `Table.validate`.
  """
  match config.name:
    case "debian_programs":
      tables = debian_programs.load_debian_programs(seed, **config.debian_programs)
    case "digits":
      tables = digits.load_digits(seed=seed, **config.digits)
    case "multiple_features":
      tables = multiple_features.load_multiple_features(seed)
    case "table":
      tables = build.tables(config.path, _spec(config), seed, logging.warning)
    case "tables":
      tables = _stored(config.path)
    case _:
      raise ConfigError(
        f"unknown config.data.name {config.name!r}; one of {list(_NAMES)}"
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


def load_histories(config: ml_collections.ConfigDict) -> ItemCatalog:
  """Users, items and events of `config.data`, with the titles of the items.

  Every value has been looked at.

  Raises:
    ConfigError: A name of no such data.
    DataError: Bad data.
  """
  match config.name:
    case "movielens":
      return movielens.load_movielens(config.path)
    case "clicks":
      return click_logs.load_click_logs(
        config.path, **config.clicks, report=logging.warning
      )
  raise ConfigError(
    f"config.data.name {config.name!r} has no histories; one of {list(_HISTORIES)}"
  )


def _stored(path: str | None) -> dict[str, Table]:
  """The tables in a folder's folders, one per split, as `Table.write` made them."""
  if path is None:
    raise DataError(
      "config.data.path is not set: give the folder that holds train/,"
      " validation/ and test/"
    )
  folders = [f.parent for f in sorted(pathlib.Path(path).glob("*/table.json"))]
  if not folders:
    raise DataError(f"no table in {path}: expected {path}/train/table.json and others")
  return {folder.name: open_table(folder) for folder in folders}
