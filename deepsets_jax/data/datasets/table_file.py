"""The data set "table": a file of your own, read by `data/ingest` as a spec says."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from deepsets_jax.data.datasets.entry import DatasetEntry
from deepsets_jax.data.ingest.columns import build, spec
from deepsets_jax.data.ingest.columns.encoding import Encoding
from deepsets_jax.data.ingest.columns.fields import Fields
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import ConfigError


def upgrade_columns(config: ConfigDict) -> None:
  """Adds settings that are newer than the spec of columns in the config of a run."""
  if config.data.get("columns"):
    config.data.columns = ConfigDict(_spec(config.data).to_json())


def _spec(config: ConfigDict) -> spec.Spec:
  return spec.from_json(config.columns.to_dict(), "config.data.columns")


def _resolve(config: ConfigDict) -> ConfigDict:
  """The settings with the spec that stands beside the file, unless they have one."""
  if config.columns:
    return config
  if config.path is None:
    raise ConfigError("config.data.path is not set: give the file of the table")
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.columns = ConfigDict(spec.read_spec(spec.path_beside(config.path)).to_json())
  return config


def _load_tables(config: ConfigDict, seed: int) -> dict[str, Table]:
  return build.tables(config.path, _spec(config), seed, logging.warning)


def _encoding(config: ConfigDict, seed: int) -> Encoding:
  return build.encoding_of(config.path, _spec(config), seed)


def _columns(config: ConfigDict) -> dict[str, tuple[str, ...]]:
  modalities = _spec(config).modalities
  return {
    name: tuple(kind.by_column)
    for name, kind in modalities.items()
    if isinstance(kind, Fields)
  }


def _images(config: ConfigDict) -> Mapping[str, Callable[[np.ndarray], np.ndarray]]:
  def to_images(size: int) -> Callable[[np.ndarray], np.ndarray]:
    # The pixels of the table are from -1 to 1.
    return lambda vectors: (vectors / 2 + 0.5).reshape(-1, size, size, 3)

  modalities = _spec(config).modalities
  return {
    name: to_images(kind.size)
    for name, kind in modalities.items()
    if kind.kind == "image"
  }


ENTRY = DatasetEntry(
  load_tables=_load_tables,
  element_names=lambda config, seed: _encoding(config, seed).names(),
  columns=_columns,
  images=_images,
  encoding=_encoding,
  resolve=_resolve,
)
