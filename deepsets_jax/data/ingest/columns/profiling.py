"""Profile the columns of a file: types, sizes and distinct values, in one pass."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.data.ingest.columns import cells
from deepsets_jax.data.ingest.columns.separated import SEPARATORS, Separated
from deepsets_jax.data.ingest.columns.splits import numbered_batches
from deepsets_jax.data.ingest.columns.tokens import Text
from deepsets_jax.data.ingest.files.source import Source

# Distinct values are counted up to this number.
MOST_DISTINCT = 200_000
# Distinct strings of a column are kept up to this number.
MOST_WORDS = 1_000
_SAMPLE = 200
_IMAGE_ENDING = r"\.(?:jpe?g|png|webp|gif|bmp|tiff?)$"
_MOST_SHAPES = 20


@dataclasses.dataclass
class ColumnProfile:
  """Statistics of one column.

  Attributes:
    name, type: Name and type in the file.
    rows: Number of all rows.
    missing: Number of rows without an element: null, NaN, or an empty string or list.
    nulls: Number of null rows.
    sizes: Number of rows per number of parts: elements of a list, words of a string.
    words: Number of rows per number of words, for lists of strings.
    widths: Number of vectors per number of features.
    distinct: Hashes of the distinct values, sorted, `[n]` int64; counting stops at
      `MOST_DISTINCT`.
    counted: Number of values, including repeated ones, until counting stopped.
    numbers: Count, minimum, maximum and sum of the numbers.
    whole: Whether all numbers are whole.
    sample: The first strings.
    words_seen: Number of rows per string; None if there are more than `MOST_WORDS`.
    images: Number of strings that are paths of images.
    spaced: Number of strings that have several words, or are not ASCII.
    shapes: Patterns of the strings, with "a" for letters and "9" for digits.
    marked: How strings look when they are split, per separator.
    is_many: Whether the elements of a list are rows of another table.
    is_ambiguous: Whether these are dates where day or month may come first.
  """

  name: str
  type: pa.DataType
  rows: int = 0
  missing: int = 0
  nulls: int = 0
  sizes: collections.Counter[int] = dataclasses.field(
    default_factory=collections.Counter
  )
  words: collections.Counter[int] = dataclasses.field(
    default_factory=collections.Counter
  )
  widths: collections.Counter[int] = dataclasses.field(
    default_factory=collections.Counter
  )
  distinct: np.ndarray = dataclasses.field(
    default_factory=lambda: np.zeros(0, np.int64)
  )
  counted: int = 0
  numbers: tuple[int, float, float, float] = (0, math.inf, -math.inf, 0.0)
  whole: bool = True
  sample: list[str] = dataclasses.field(default_factory=list)
  words_seen: collections.Counter[str] | None = dataclasses.field(
    default_factory=collections.Counter
  )
  images: int = 0
  spaced: int = 0
  shapes: set[str] = dataclasses.field(default_factory=set)
  marked: dict[str, Separated] = dataclasses.field(
    default_factory=lambda: {mark: Separated() for mark in SEPARATORS}
  )
  is_many: bool = False
  is_ambiguous: bool = False

  @property
  def inner(self) -> pa.DataType:
    """The type of an element, in a list or not."""
    return self.type.value_type if cells.is_list(self.type) else self.type

  @property
  def present(self) -> int:
    """Number of rows with an element."""
    return self.rows - self.missing

  @property
  def unique(self) -> bool:
    """Whether every row has a value of its own, as far as values were counted."""
    return not self.missing and len(self.distinct) == self.counted

  @property
  def different(self) -> float:
    """Share of distinct values, as far as values were counted."""
    return len(self.distinct) / max(self.counted, 1)

  @property
  def mean_size(self) -> float:
    """Mean number of parts of the rows that have any."""
    return _total(self.sizes) / max(self.present, 1)

  @property
  def max_size(self) -> int:
    """Number of parts of the largest row."""
    return max(self.sizes, default=0)

  def quantile(self, share: float) -> int:
    """Return the number of parts that this share of all rows does not exceed."""
    reached = 0
    for size in sorted(self.sizes):
      reached += self.sizes[size]
      if reached >= share * self.rows:
        return size
    return 0

  def as_one(self) -> ColumnProfile:
    """Return the profile with one element per row, a vector or a category."""
    ones = collections.Counter({0: self.missing, 1: self.present})
    return dataclasses.replace(self, sizes=+ones)

  def as_words(self) -> ColumnProfile:
    """Return the profile with each word of a list of strings as an element."""
    return dataclasses.replace(self, sizes=self.words) if self.words else self

  def as_parts(self, mark: str) -> ColumnProfile:
    """Return the profile with the parts between separators as elements."""
    marked = self.marked.get(mark)
    if marked is None or marked.parts is None:
      return self
    sizes = marked.sizes + collections.Counter({0: self.missing})
    return dataclasses.replace(self, sizes=sizes)

  @property
  def separator(self) -> str | None:
    """The separator between the names in each string; None if these are no lists."""
    for mark, marked in self.marked.items():
      if marked.are_names(mark, self.counted, len(self.distinct)):
        return mark
    return None

  @property
  def looks_like_sentences(self) -> bool:
    """Whether the strings of lists are longer than names."""
    spaced = sum(len(text.split()) for text in self.sample)
    elements = max(_total(self.sizes), 1)
    return spaced >= 4 * max(len(self.sample), 1) or _total(self.words) >= 8 * elements

  @property
  def looks_like_keys(self) -> bool:
    """Whether strings are keys that a machine made.

    These have one word and a few patterns, such as "tt9999999" or "a9-99".
    """
    digits = all("9" in shape for shape in self.shapes)
    return not self.spaced and digits and 0 < len(self.shapes) < _MOST_SHAPES

  @property
  def looks_like_images(self) -> bool:
    """Whether strings, in lists or not, are mostly paths of images."""
    return self.images > 0.9 * self.counted > 0

  @property
  def image_separator(self) -> str | None:
    """The separator between paths of images in one string, or None."""
    for mark, marked in self.marked.items():
      if marked.cells and marked.parts and all(map(_is_image_path, marked.parts)):
        return mark
    return None

  def add(self, column: pa.Array) -> None:
    """Add some cells.

    Raises:
      CellError: A number is infinite, or vectors differ in size.
    """
    self.rows += len(column)
    self.nulls += column.null_count
    kind, inner = self.type, self.inner
    if cells.is_list(kind) and cells.is_list(inner):
      lengths = self._add_vectors(column)
    elif pa.types.is_string(inner):
      lengths = self._add_strings(column)
    elif cells.is_number(inner):
      lengths = self._add_numbers(column)
    elif cells.is_list(kind):
      lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    else:
      lengths = column.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)
    _tally(self.sizes, lengths)
    self.missing += int((lengths == 0).sum())

  def _add_vectors(self, column: pa.Array) -> np.ndarray:
    lengths = pc.list_value_length(column.flatten())
    self.widths.update(pc.drop_null(lengths).to_pylist())
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)

  def _add_strings(self, column: pa.Array) -> np.ndarray:
    strings, lengths = cells.strings(column)
    counts = strings.value_counts()
    distinct, numbers = counts.field(0), counts.field(1).to_numpy()
    names = distinct.to_pylist()
    self._count(np.array([hash(name) for name in names], np.int64), len(strings))
    self.sample += strings[: _SAMPLE - len(self.sample)].to_pylist()
    self._add_words(names, numbers)
    self._add_patterns(distinct, numbers)
    words = Text(self.name).tokens(column).lengths
    if cells.is_list(self.type):
      _tally(self.words, words)
      return lengths
    for mark, marked in self.marked.items():
      marked.add(distinct, numbers, mark)
    return np.where(lengths > 0, np.maximum(words, 1), 0)

  def _add_words(self, names: Sequence[str], numbers: np.ndarray) -> None:
    if self.words_seen is not None:
      self.words_seen.update(dict(zip(names, numbers.tolist(), strict=True)))
      if len(self.words_seen) > MOST_WORDS:
        self.words_seen = None

  def _add_patterns(self, distinct: pa.Array, numbers: np.ndarray) -> None:
    images = pc.match_substring_regex(distinct, _IMAGE_ENDING, ignore_case=True)
    self.images += int(numbers[_mask(images)].sum())
    one_word = pc.match_substring_regex(distinct, r"^[\x21-\x7e]*$")
    self.spaced += int(numbers[~_mask(one_word)].sum())
    if len(self.shapes) < _MOST_SHAPES and not self.spaced:
      shapes = pc.replace_substring_regex(distinct, "[A-Za-z]", "a")
      shapes = pc.replace_substring_regex(shapes, "[0-9]", "9")
      # Hexadecimal keys differ in the places of letters, not in length.
      mixed = pc.replace_substring_regex(shapes, "[a9]*9[a9]*", "9")
      self.shapes |= set(pc.unique(mixed).to_pylist())

  def _add_numbers(self, column: pa.Array) -> np.ndarray:
    values, lengths = cells.numbers(column)
    if cells.is_list(self.type):
      self.widths.update(lengths[lengths > 0].tolist())
    if len(values):
      count, least, most, total = self.numbers
      self.numbers = (
        count + len(values),
        min(least, values.min()),
        max(most, values.max()),
        total + values.sum(),
      )
      self.whole = self.whole and bool((values == np.round(values)).all())
      bits = (values + 0.0).view(np.int64)  # Adding 0 turns -0 into 0.
      self._count(np.unique(bits), len(values))
    return lengths

  def _count(self, hashes: np.ndarray, values: int) -> None:
    """Add the distinct hashes of a number of values."""
    known = self.distinct
    if len(known) >= MOST_DISTINCT:
      return
    hashes = np.sort(hashes)
    places = np.searchsorted(known, hashes)
    new = np.ones(len(hashes), bool)
    inside = places < len(known)
    new[inside] = known[places[inside]] != hashes[inside]
    self.distinct = np.insert(known, places[new], hashes[new])
    self.counted += values


def _mask(array: pa.Array) -> np.ndarray:
  return np.array(array.to_numpy(zero_copy_only=False), bool)


def _is_image_path(path: str) -> bool:
  return re.search(_IMAGE_ENDING, path, re.IGNORECASE) is not None


def _tally(counter: collections.Counter[int], lengths: np.ndarray) -> None:
  sizes, counts = np.unique(lengths, return_counts=True)
  counter.update(dict(zip(sizes.tolist(), counts.tolist(), strict=True)))


def _total(counter: collections.Counter[int]) -> int:
  return sum(size * count for size, count in counter.items())


def profile_columns(source: Source) -> list[ColumnProfile]:
  """Profile every column of a file.

  Raises:
    DataError: A number is infinite, or vectors differ in size; names row and column.
  """
  # Each row of a table that is joined to this one is an element.
  many, unclear = getattr(source, "lists", {}), getattr(source, "ambiguous", ())
  profiles = [
    ColumnProfile(
      f.name, f.type, is_many=f.name in many, is_ambiguous=f.name in unclear
    )
    for f in source.schema
  ]
  for rows, batch in numbered_batches(source):
    for profile in profiles:
      with cells.locate_errors(source.where, profile.name, rows):
        profile.add(batch[profile.name])
  return profiles
