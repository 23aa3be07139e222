"""Histories with what a person calls their items and tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from deepsets_jax.data.interactions.histories import Histories


@dataclasses.dataclass(frozen=True)
class ItemCatalog:
  """Users, items and events, as every source of histories gives them.

  Attributes:
    histories: The ids of both tables are those of the source.
    titles: Of each item, to be printed: `[items]` strings.
    vocabularies: Of "users" and "items", by modality of tokens, the string of every id;
      a modality of buckets has none.
  """

  histories: Histories
  titles: np.ndarray
  vocabularies: Mapping[str, Mapping[str, tuple[str, ...]]]
