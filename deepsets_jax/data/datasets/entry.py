"""The entry of a data set in the registry."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from ml_collections import ConfigDict

from deepsets_jax.data.ingest.columns.encoding import Encoding
from deepsets_jax.data.ingest.columns.fields import Quantity
from deepsets_jax.data.interactions.catalog import ItemCatalog
from deepsets_jax.data.tables.table import Table

Names = tuple[str | Quantity, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetEntry:
  """The functions of one data set. Each takes `config.data` of a run.

  A data set has tables, for supervised learning, or histories, for retrieval and
  ranking. The other functions describe its elements, for explanations; their defaults
  describe none.

  Attributes:
    load_tables: (config, seed) -> {split: table}, with "train", "validation" and
      "test".
    load_histories: config -> users, items and events.
    element_names: (config, seed) -> {modality: the name of every token id}. Modalities
      of vectors, and tokens whose strings are not known, are left out.
    columns: config -> {modality: the names of its columns, in the order of
      `Modality.groups`}, for modalities made of several columns.
    images: config -> {modality: function from its vectors `[n, d]` to images,
      `[n, height, width]` or `[n, height, width, 3]`, 0 black and 1 white}.
    encoding: (config, seed) -> how the columns of a file became tables, or None.
    settings: The settings of the data set, which a config has in the group
      `config.data.<name>`, at their defaults; None for none.
    resolve: config -> config with the settings that stand in files of the data set.
  """

  load_tables: Callable[[ConfigDict, int], Mapping[str, Table]] | None = None
  load_histories: Callable[[ConfigDict], ItemCatalog] | None = None
  element_names: Callable[[ConfigDict, int], Mapping[str, Names]] = lambda *_: {}
  columns: Callable[[ConfigDict], Mapping[str, tuple[str, ...]]] = lambda _: {}
  images: Callable[[ConfigDict], Mapping[str, Callable[[np.ndarray], np.ndarray]]] = (
    lambda _: {}
  )
  encoding: Callable[[ConfigDict, int], Encoding | None] = lambda *_: None
  settings: ConfigDict | None = None
  resolve: Callable[[ConfigDict], ConfigDict] = lambda config: config
