"""How many cells of a column a way of writing fits, and which it does not."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from deepsets_jax.data.ingest.files.formats import MISSING
from deepsets_jax.data.ingest.files.source import shorten

# Different cells that a way does not fit: more end it.
_MOST_OTHERS = 1000


@dataclasses.dataclass
class Tally:
  """How many cells a way of writing fits, and which it does not.

  Attributes:
    fits: Number of cells.
    others: The cells that it does not fit, with their numbers; too many end it.
  """

  fits: int = 0
  others: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )
  is_over: bool = False

  def add(self, cells: pa.Array, counts: np.ndarray, good: np.ndarray) -> None:
    self.fits += int(counts[good].sum())
    if self.is_over or good.all():
      return
    where = np.flatnonzero(~good)
    if len(where) > _MOST_OTHERS:
      self.is_over = True
      return
    for text, count in zip(
      cells.take(pa.array(where)).to_pylist(), counts[where], strict=True
    ):
      self.others[text] += int(count)
    self.is_over = len(self.others) > _MOST_OTHERS


def mask(array: pa.Array) -> np.ndarray:
  """Booleans of Arrow as those of numpy."""
  return np.array(array.to_numpy(zero_copy_only=False), bool)


def is_all(tally: Tally) -> bool:
  """Whether a way of writing fits all cells but words for missing."""
  if not tally.fits or tally.is_over:
    return False
  return all(text.lower() in MISSING for text in tally.others)


def seen(tally: Tally) -> tuple[str, ...]:
  """The words for missing in a column."""
  return tuple(sorted(tally.others))


def shown(words: Mapping[str, int], most: int = 5) -> str:
  """Words with their numbers, the most frequent first."""
  ranked = sorted(words.items(), key=lambda item: (-item[1], item[0]))
  shown = ", ".join(f"{shorten(word)} ({count:,})" for word, count in ranked[:most])
  more = len(ranked) - most
  return shown + (f" and {more} more" if more > 0 else "")


def missing_sentence(tally: Tally, name: str) -> str:
  """How many cells are of a kind, if the others are words for missing."""
  if not tally.others:
    return ""
  share = tally.fits / (tally.fits + sum(tally.others.values()))
  percent = f"{share:.0%}" if share < 0.995 else f"{share:.2%}"
  return f"{percent} are {name}; the others are {shown(tally.others)}: read as missing"
