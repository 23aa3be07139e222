"""The data set "tables": a folder with a table per split, from `Table.write`."""

from __future__ import annotations

import pathlib

from ml_collections import ConfigDict

from deepsets_jax.data.datasets.entry import DatasetEntry
from deepsets_jax.data.tables.table import Table, open_table
from deepsets_jax.foundation.errors import ConfigError, DataError


def _open_tables(config: ConfigDict, seed: int) -> dict[str, Table]:
  del seed
  if config.path is None:
    raise ConfigError(
      "config.data.path is not set: give the folder that holds train/,"
      " validation/ and test/"
    )
  headers = sorted(pathlib.Path(config.path).glob("*/table.json"))
  if not headers:
    raise DataError(
      f"no table in {config.path}: expected {config.path}/train/table.json and others"
    )
  return {header.parent.name: open_table(header.parent) for header in headers}


ENTRY = DatasetEntry(load_tables=_open_tables)
