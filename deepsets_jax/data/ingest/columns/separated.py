"""Strings that are lists of names with a mark between them."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SEPARATORS = ("|", ";", ",")
# Words in a name, on average.
_LONGEST_NAME = 3
# Different parts are counted to here.
_MOST_PARTS = 200_000


@dataclasses.dataclass
class Separated:
  """How the strings of a column look when they are split at a mark.

  Attributes:
    cells: Number of strings that have the mark.
    sizes: Strings by their number of parts.
    words: Words of all parts of the strings that have the mark.
    numbers: How many of these parts are numbers.
    parts: The different parts of all strings; None once they are sentences.
  """

  cells: int = 0
  sizes: collections.Counter[int] = dataclasses.field(
    default_factory=collections.Counter
  )
  words: int = 0
  numbers: int = 0
  parts: set[str] | None = dataclasses.field(default_factory=set)

  @property
  def total(self) -> int:
    """Parts of the strings that have the mark."""
    return sum(size * count for size, count in self.sizes.items()) - self.sizes[1]

  def add(self, distinct: pa.Array, counts: np.ndarray, mark: str) -> None:
    """Takes in different strings, and how often each is there."""
    if self.parts is None:
      return
    pieces = pc.split_pattern(distinct, mark)
    lengths = pc.list_value_length(pieces).to_numpy(zero_copy_only=False)
    for size in np.unique(lengths).tolist():
      self.sizes[size] += int(counts[lengths == size].sum())
    having = lengths > 1
    self.cells += int(counts[having].sum())
    parts = pc.utf8_trim_whitespace(pieces.flatten())
    of_marked = np.repeat(having, lengths)
    weights = np.repeat(counts, lengths)[of_marked]
    marked = parts.filter(pa.array(of_marked))
    words = pc.add(pc.count_substring_regex(marked, r"\s+"), 1).to_numpy()
    self.words += int((words * weights).sum())
    numbers = pc.match_substring_regex(marked, r"^[-+]?[0-9.,]+$")
    self.numbers += int(weights[numbers.to_numpy(zero_copy_only=False)].sum())
    self.parts.update(pc.unique(parts).to_pylist())
    sentences = self.total > 1000 and self.words > 2 * _LONGEST_NAME * self.total
    if sentences or len(self.parts) > _MOST_PARTS:
      self.parts = None

  def are_names(self, mark: str, strings: int, different: int) -> bool:
    """Whether the parts are names in lists.

    Args:
      mark: Between the parts.
      strings: Number of strings, as far as they were counted.
      different: How many of them are different.
    """
    if self.parts is None or not self.cells:
      return False
    if self.words > _LONGEST_NAME * self.total or self.numbers > 0.9 * self.total:
      return False
    if mark != ",":
      return self.cells > strings / 3 or len(self.parts) < different
    # "Paris, France" has as many parts as all others, and is a place.
    (size, most), *_ = self.sizes.most_common(1)
    varies = size == 1 or most < 0.9 * sum(self.sizes.values())
    repeat = self.cells > strings / 3 and len(self.parts) <= 0.7 * self.total
    return varies and (len(self.parts) <= different or repeat)
