"""What is in the columns of a file, from one look at every row."""

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
from deepsets_jax.data.ingest.columns.splits import located, numbered_batches
from deepsets_jax.data.ingest.columns.tokens import Text
from deepsets_jax.data.ingest.files.source import Source

# Different values are counted to here.
MOST_DISTINCT = 200_000
# Different strings of a column are kept up to here.
MOST_WORDS = 1_000
_SAMPLE = 200
_IMAGES = r"\.(?:jpe?g|png|webp|gif|bmp|tiff?)$"
_MOST_SHAPES = 20


@dataclasses.dataclass
class ColumnProfile:
  """Of one column.

  Attributes:
    name, type: As in the file.
    rows: Number of all rows.
    missing: Rows without any element: null, NaN, or an empty string or list.
    nulls: Rows that are null.
    sizes: Rows by their number of parts: elements of a list, words of a string.
    words: Rows by their number of words, of lists of strings.
    widths: Vectors by their number of features.
    distinct: Hashes of different values, sorted, `[n]` int64; once there are
      `MOST_DISTINCT` no more are counted.
    counted: Values until then, the same ones included.
    numbers: How many numbers there are, their least, greatest and sum.
    whole: Whether all numbers are whole.
    sample: The first strings.
    words_seen: Rows with each string, by the string; more than `MOST_WORDS` are not
      kept, and None stands for them.
    pictures: Number of strings that are paths of pictures.
    spaced: Number of strings of several words, or not in ASCII.
    shapes: What strings look like, letters as "a" and digits as "9".
    marked: How strings look when they are split, by the mark between their parts.
    is_many: Whether the elements of a list are rows of another table.
    is_ambiguous: Whether these are dates of which day or month may come first.
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
  pictures: int = 0
  spaced: int = 0
  shapes: set[str] = dataclasses.field(default_factory=set)
  marked: dict[str, Separated] = dataclasses.field(
    default_factory=lambda: {mark: Separated() for mark in SEPARATORS}
  )
  is_many: bool = False
  is_ambiguous: bool = False

  @property
  def inner(self) -> pa.DataType:
    """The type of an element, of a list or not."""
    return self.type.value_type if cells.is_list(self.type) else self.type

  @property
  def present(self) -> int:
    """Rows with an element."""
    return self.rows - self.missing

  @property
  def unique(self) -> bool:
    """Whether every row has a value, and no two the same; as far as was counted."""
    return not self.missing and len(self.distinct) == self.counted

  @property
  def different(self) -> float:
    """Different values for each value, as far as was counted."""
    return len(self.distinct) / max(self.counted, 1)

  @property
  def mean_size(self) -> float:
    """Parts of a row that has any."""
    return _total(self.sizes) / max(self.present, 1)

  @property
  def max_size(self) -> int:
    """Of the largest row."""
    return max(self.sizes, default=0)

  def quantile(self, share: float) -> int:
    """The number of parts that this share of all rows does not exceed."""
    reached = 0
    for size in sorted(self.sizes):
      reached += self.sizes[size]
      if reached >= share * self.rows:
        return size
    return 0

  def as_one(self) -> ColumnProfile:
    """The same where all parts of a row are one element, a vector or a category."""
    ones = collections.Counter({0: self.missing, 1: self.present})
    return dataclasses.replace(self, sizes=+ones)

  def as_words(self) -> ColumnProfile:
    """The same where all words of a list of strings are elements."""
    return dataclasses.replace(self, sizes=self.words) if self.words else self

  def as_parts(self, mark: str) -> ColumnProfile:
    """The same where the parts of a string between marks are elements."""
    marked = self.marked.get(mark)
    if marked is None or marked.parts is None:
      return self
    return dataclasses.replace(
      self, sizes=marked.sizes + collections.Counter({0: self.missing})
    )

  @property
  def separator(self) -> str | None:
    """The mark between the names in each string, or None if strings are not lists."""
    for mark, marked in self.marked.items():
      if marked.are_names(mark, self.counted, len(self.distinct)):
        return mark
    return None

  @property
  def looks_like_sentences(self) -> bool:
    """Whether the strings of lists are longer than a name, as words or characters."""
    spaced = sum(len(text.split()) for text in self.sample)
    elements = max(_total(self.sizes), 1)
    return spaced >= 4 * max(len(self.sample), 1) or _total(self.words) >= 8 * elements

  @property
  def looks_like_keys(self) -> bool:
    """Whether strings are such as machines give to things.

    They are of one word, and of a few shapes such as "tt9999999" or "a9-99".
    """
    digits = all("9" in shape for shape in self.shapes)
    return not self.spaced and digits and 0 < len(self.shapes) < _MOST_SHAPES

  @property
  def looks_like_pictures(self) -> bool:
    """Whether strings, of lists or not, are mostly paths of pictures."""
    return self.pictures > 0.9 * self.counted > 0

  @property
  def picture_separator(self) -> str | None:
    """The mark between paths of pictures in one string, or None."""
    for mark, marked in self.marked.items():
      if marked.cells and marked.parts and all(map(_is_picture, marked.parts)):
        return mark
    return None

  def add(self, column: pa.Array) -> None:
    """Takes in some cells.

    Raises:
      CellError: A number that is infinite, or vectors of different sizes.
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
    self._add_looks(distinct, numbers)
    words = Text(self.name).found(column).lengths
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

  def _add_looks(self, distinct: pa.Array, numbers: np.ndarray) -> None:
    pictures = pc.match_substring_regex(distinct, _IMAGES, ignore_case=True)
    self.pictures += int(numbers[_mask(pictures)].sum())
    one_word = pc.match_substring_regex(distinct, r"^[\x21-\x7e]*$")
    self.spaced += int(numbers[~_mask(one_word)].sum())
    if len(self.shapes) < _MOST_SHAPES and not self.spaced:
      shapes = pc.replace_substring_regex(distinct, "[A-Za-z]", "a")
      shapes = pc.replace_substring_regex(shapes, "[0-9]", "9")
      # Hexadecimal keys differ in where letters are, not in their length.
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
      bits = (values + 0.0).view(np.int64)  # -0 is 0.
      self._count(np.unique(bits), len(values))
    return lengths

  def _count(self, hashes: np.ndarray, values: int) -> None:
    """Takes in the hashes, all different, of so many values."""
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


def _is_picture(path: str) -> bool:
  return re.search(_IMAGES, path, re.IGNORECASE) is not None


def _tally(counter: collections.Counter[int], lengths: np.ndarray) -> None:
  sizes, counts = np.unique(lengths, return_counts=True)
  counter.update(dict(zip(sizes.tolist(), counts.tolist(), strict=True)))


def _total(counter: collections.Counter[int]) -> int:
  return sum(size * count for size, count in counter.items())


def profile_columns(source: Source) -> list[ColumnProfile]:
  """The facts of every column.

  Raises:
    DataError: A value that is no data; names row and column.
  """
  # Each row of a table that is joined to this one is an element.
  many, unclear = getattr(source, "lists", {}), getattr(source, "ambiguous", ())
  facts = [
    ColumnProfile(
      f.name, f.type, is_many=f.name in many, is_ambiguous=f.name in unclear
    )
    for f in source.schema
  ]
  for rows, batch in numbered_batches(source):
    for fact in facts:
      try:
        fact.add(batch[fact.name])
      except cells.CellError as error:
        raise located(error, source.where, fact.name, rows) from error
  return facts
