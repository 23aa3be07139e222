"""The registry of data sets: each is opened by `config.data.name`."""

from __future__ import annotations

from collections.abc import Mapping

from ml_collections import ConfigDict

from deepsets_jax.data.datasets import (
  clicks,
  debian_programs,
  digits,
  movielens,
  multiple_features,
  table_file,
  table_folders,
)
from deepsets_jax.data.datasets.entry import DatasetEntry
from deepsets_jax.data.ingest.columns.encoding import Encoding
from deepsets_jax.data.interactions.catalog import ItemCatalog
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation import extensions
from deepsets_jax.foundation.errors import ConfigError, DataError

ENTRIES: Mapping[str, DatasetEntry] = {
  "clicks": clicks.ENTRY,
  "debian_programs": debian_programs.ENTRY,
  "digits": digits.ENTRY,
  "movielens": movielens.ENTRY,
  "multiple_features": multiple_features.ENTRY,
  "table": table_file.ENTRY,
  "tables": table_folders.ENTRY,
}

upgrade_columns = table_file.upgrade_columns


def find_entry(name: str) -> DatasetEntry:
  """Returns the entry of a data set.

  Args:
    name: A key of `ENTRIES`, or `module:Name` for an entry of your own, or for its
      `load_tables` alone.

  Raises:
    ConfigError: No data set has this name.
  """
  found = extensions.find("config.data.name", name, ENTRIES)
  if isinstance(found, DatasetEntry):
    return found
  if not callable(found):
    raise ConfigError(
      f"config.data.name {name!r} is neither a function from a config and a seed to"
      " tables nor a DatasetEntry"
    )
  return DatasetEntry(load_tables=found)


def resolve_columns(config: ConfigDict) -> ConfigDict:
  """Returns the config of a run with the settings that its data set keeps in files.

  For "table" these are the columns, in the spec beside the file.

  Raises:
    ConfigError: The name of the data set is unknown, or "table" has no path.
    DataError: "table" has no spec, or a damaged one.
  """
  data = find_entry(config.data.name).resolve(config.data)
  if data is config.data:
    return config
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.data = data
  return config


def encoding(config: ConfigDict, seed: int) -> Encoding | None:
  """Returns how the columns of "table" became tables; None for other data sets.

  Args:
    config: `config.data` of a run.
    seed: `config.seed`.
  """
  return find_entry(config.name).encoding(config, seed)


def load_tables(config: ConfigDict, seed: int) -> dict[str, Table]:
  """Loads the tables of `config.data`, and checks every value of them.

  Args:
    config: `config.data` of a run.
    seed: `config.seed`.

  Returns:
    The tables "train", "validation", "test" and perhaps others, all of one schema.

  Raises:
    ConfigError: No data set of this name has tables.
    DataError: Bad data; see `Table.validate`.
  """
  load = find_entry(config.name).load_tables
  if load is None:
    raise ConfigError(_lacks(config.name, "load_tables", "tables"))
  tables = dict(load(config, seed))
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
      f"{config.name}: no training example has an element in any modality of"
      f" {sorted(train.modalities)}, so there is nothing to learn from"
    )
  return tables


def load_histories(config: ConfigDict) -> ItemCatalog:
  """Loads the users, items and events of `config.data`, and checks every value.

  Args:
    config: `config.data` of a run.

  Raises:
    ConfigError: No data set of this name has histories.
    DataError: Bad data.
  """
  load = find_entry(config.name).load_histories
  if load is None:
    raise ConfigError(_lacks(config.name, "load_histories", "histories"))
  return load(config)


def _lacks(name: str, attribute: str, what: str) -> str:
  able = [other for other, one in ENTRIES.items() if getattr(one, attribute)]
  return f"config.data.name {name!r} has no {what}; one of {able}"
