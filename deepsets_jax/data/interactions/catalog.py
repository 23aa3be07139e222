"""Histories with the names of their items and tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from deepsets_jax.data.interactions.histories import Histories


@dataclasses.dataclass(frozen=True)
class ItemCatalog:
  """Users, items and events, as every data set with histories returns them.

  Attributes:
    histories: The histories; the ids of both tables are those of the source.
    titles: The title of each item, for people to read: `[items]` strings.
    vocabularies: {"users" or "items": {modality of tokens: the string of every id}}; a
      modality of hash buckets is left out.
  """

  histories: Histories
  titles: np.ndarray
  vocabularies: Mapping[str, Mapping[str, tuple[str, ...]]]
