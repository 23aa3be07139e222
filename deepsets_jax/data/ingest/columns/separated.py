"""Detect strings that are lists of names with a separator."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SEPARATORS = ("|", ";", ",")
# Largest mean number of words in a name.
_LONGEST_NAME = 3
# Distinct parts are counted up to this number.
_MOST_PARTS = 200_000


@dataclasses.dataclass
class Separated:
  """Statistics of the strings of a column, split at a separator.

  Attributes:
    cells: Number of strings with the separator.
    sizes: Number of strings per number of parts.
    words: Number of words in all parts of the strings with the separator.
    numbers: How many of these parts are numbers.
    parts: The distinct parts of all strings; None once they look like sentences.
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
    """Number of parts of the strings with the separator."""
    return sum(size * count for size, count in self.sizes.items()) - self.sizes[1]

  def add(self, distinct: pa.Array, counts: np.ndarray, mark: str) -> None:
    """Add distinct strings with their counts; `mark` is the separator."""
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
    """Whether the strings are lists of names.

    Args:
      mark: The separator.
      strings: Number of strings, as far as they were counted.
      different: Number of distinct strings among them.
    """
    if self.parts is None or not self.cells:
      return False
    if self.words > _LONGEST_NAME * self.total or self.numbers > 0.9 * self.total:
      return False
    if mark != ",":
      return self.cells > strings / 3 or len(self.parts) < different
    # Places such as "Paris, France" all have the same number of parts.
    (size, most), *_ = self.sizes.most_common(1)
    varies = size == 1 or most < 0.9 * sum(self.sizes.values())
    repeat = self.cells > strings / 3 and len(self.parts) <= 0.7 * self.total
    return varies and (len(self.parts) <= different or repeat)
