"""The format of a column of strings, found from all of its cells."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.data.ingest.files import dates, formats, list_text, number_text
from deepsets_jax.data.ingest.files.formats import BOOLEANS, MISSING, Format
from deepsets_jax.data.ingest.files.source import READ_ERRORS, shorten

# Words that are no value in a column of categories either. "NA" may be Namibia, and
# "None" a kind of garage.
_NEVER_A_CATEGORY = frozenset("n/a #n/a <na> nan null (null) ? - -- ---".split())
_BETWEEN_NUMBERS = (" ", ",", ";", "|")
# A column with at least this share of cells of one type gets a sentence about the rest.
_MOSTLY = 0.8
# Number of different cells that do not fit after which a way of writing is given up.
_MOST_OTHERS = 1000


@dataclasses.dataclass
class _Tally:
  """Counts of the cells that are written in one way, and of those that are not.

  Attributes:
    fits: Number of cells that are written in this way.
    others: The other cells, with their numbers.
    facts: What else is known of the cells that fit: spellings, sizes, "time", "zone".
    is_over: Whether the column is not written in this way; nothing more is counted.
  """

  fits: int = 0
  others: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )
  facts: set[Any] = dataclasses.field(default_factory=set)
  is_over: bool = False

  def add(
    self,
    cells: pa.Array,
    counts: np.ndarray,
    good: np.ndarray,
    facts: Iterable[Any] = (),
  ) -> None:
    """Add different cells with their numbers, which of them fit, and facts on these."""
    self.facts.update(facts)
    self.fits += int(counts[good].sum())
    if (~good).sum() <= _MOST_OTHERS:
      _count(self.others, cells, counts, ~good)
      self.is_over = len(self.others) > _MOST_OTHERS
    else:
      self.is_over = True

  @property
  def has_all(self) -> bool:
    """Whether all cells fit but words for missing."""
    if not self.fits or self.is_over:
      return False
    return all(text.lower() in MISSING for text in self.others)

  @property
  def missing(self) -> tuple[str, ...]:
    """The words for missing, if all other cells fit."""
    return tuple(sorted(self.others))

  def sentence(self, name: str) -> str:
    """Share of the cells that are `name`, such as "dates"; "" if all are."""
    if not self.others:
      return ""
    share = self.fits / (self.fits + self.others.total())
    percent = f"{share:.0%}" if share < 0.995 else f"{share:.2%}"
    return (
      f"{percent} are {name}; the others are {_shown(self.others)}: read as missing"
    )


class Detector:
  """Finds the format of a column from all of its cells, a batch at a time.

  Attributes:
    rows: Number of cells so far that are not empty.
  """

  def __init__(self, *, is_label: bool = False):
    """Start without cells.

    Args:
      is_label: Whether the column is a label; yes and no stay words in a label.
    """
    self.rows = 0
    self._is_label = is_label
    self._numbers = {marks: _Tally() for marks in number_text.MARKS}
    self._dates = {order: _Tally() for order in dates.ORDERS}
    self._booleans, self._lists = _Tally(), _Tally()
    self._vectors = {mark: _Tally() for mark in _BETWEEN_NUMBERS}
    self._is_whole, self._signs = True, set()
    self._list_type: pa.DataType | None = pa.null()
    self._sample = ""
    self._words: collections.Counter[str] = collections.Counter()
    self._parts = self._different = 0

  def add(self, cells: pa.Array) -> None:
    """Add cells, which are strings."""
    cells = formats.trimmed(cells).drop_null()
    if not len(cells):
      return
    self.rows += len(cells)
    self._sample = self._sample or cells[0].as_py()
    counted = cells.value_counts()
    cells, counts = counted.field(0), counted.field(1).to_numpy()
    self._different += len(cells)
    lower = pc.utf8_lower(cells)
    is_missing = _mask(pc.is_in(lower, pa.array(sorted(MISSING))))
    _count(self._words, cells, counts, is_missing)
    spaces = pc.count_substring_regex(cells, r"\s+").to_numpy()
    self._parts += int(((spaces + 1) * counts).sum())
    self._add_numbers(cells, counts, is_missing)
    for order, tally in _open(self._dates):
      good, parts = dates.match(cells, order)
      for able in self._dates.values():
        able.facts |= parts
      tally.add(cells, counts, good)
    if not self._booleans.is_over:
      good = _mask(pc.is_in(lower, pa.array([*BOOLEANS, *BOOLEANS.values()])))
      self._booleans.add(cells, counts, good, _where(lower, good).to_pylist())
    if not self._lists.is_over and self._list_type is not None:
      self._add_lists(cells, counts)
    self._add_vectors(cells, counts)

  def _add_numbers(
    self, cells: pa.Array, counts: np.ndarray, is_missing: np.ndarray
  ) -> None:
    if all(tally.is_over for tally in self._numbers.values()):
      return
    whole = _matches(cells, number_text.INTEGER)
    try:
      _where(cells, whole).cast(pa.int64())
    except READ_ERRORS:
      whole[:] = False
    simple = whole | _matches(cells, number_text.SIMPLE)
    try:
      number_text.cast(_where(cells, simple), pa.float64())
    except READ_ERRORS:  # A number is beyond float64.
      self._numbers = {marks: _Tally(is_over=True) for marks in number_text.MARKS}
      return
    core = cells
    if not simple.all():
      core = number_text.without_signs(cells)
      signed = _mask(pc.not_equal(core, cells)) & ~simple
      for text in _where(cells, signed)[:50].to_pylist():
        self._signs.update(re.findall(rf"{number_text.CURRENCY}|%", text))
    for marks, tally in _open(self._numbers):
      good = _matches(core, number_text.MARKS[marks])
      tally.add(cells, counts, good | simple if marks == (".", "") else good)
    self._is_whole &= bool((whole | is_missing).all())

  def _add_lists(self, cells: pa.Array, counts: np.ndarray) -> None:
    good = _matches(cells, list_text.PATTERN)
    some, values = _where(cells, good), None
    if not _matches(some, list_text.LONG).any():
      values = list_text.parse_json(some, None)
    if values is not None:
      self._list_type = list_text.common_type(self._list_type, values.type)
    else:
      for place in np.flatnonzero(good):
        try:
          value = pa.array([list_text.parse_one(cells[int(place)].as_py())])
        except READ_ERRORS:
          good[place] = False
          continue
        self._list_type = list_text.common_type(self._list_type, value.type)
        if self._list_type is None:
          return
    self._lists.add(cells, counts, good)

  def _add_vectors(self, cells: pa.Array, counts: np.ndarray) -> None:
    number = number_text.MARKS[".", ""].strip("^$")
    for mark, tally in _open(self._vectors):
      between = r"\s+" if mark == " " else rf"\s*{re.escape(mark)}\s*"
      good = _matches(cells, rf"^\[?\s*{number}(?:{between}{number})+\s*\]?$")
      there = _where(cells, good)
      bare = pc.replace_substring_regex(there, r"^[\[(]\s*|\s*[\])]$", "")
      sizes = pc.count_substring_regex(bare, between).to_numpy() + 1
      decimals = ["decimals"] if _matches(there, r"\.[0-9]").any() else []
      tally.add(cells, counts, good, [*sizes.tolist(), *decimals])

  @property
  def has_decimal_comma(self) -> bool:
    """Whether the numbers can only be read with a decimal comma."""
    able = _fitting(self._numbers)
    return bool(able) and all(decimal == "," for decimal, _ in able)

  @property
  def is_ambiguous_date(self) -> bool:
    """Whether every cell is a date both with the day and with the month first."""
    able = _fitting(self._dates)
    return "dmy" in able and "mdy" in able and "ymd" not in able

  def found(
    self, *, decimal_comma: bool = False, dates: str | None = None
  ) -> tuple[Format, str]:
    """The format, and a sentence on what is not obvious about it ("" for nothing).

    Args:
      decimal_comma: Whether other columns of the file have one, which decides how to
        read 1,234.
      dates: "dmy" or "mdy", the order of dates that could be read in both.
    """
    return (
      self._boolean()
      or self._number(decimal_comma)
      or self._date(dates)
      or self._list()
      or self._vector()
      or self._text()
    )

  def _boolean(self) -> tuple[Format, str] | None:
    used = self._booleans.facts
    pair = next((true for true, false in BOOLEANS.items() if used <= {true, false}), "")
    if not self._booleans.has_all or not pair:
      return None
    # "no" alone is a word, and a label of yes and no keeps these words.
    if pair != "true" and (self._is_label or len(used) < 2):
      return None
    form = Format("boolean", missing=self._booleans.missing)
    return form, self._booleans.sentence("booleans")

  def _number(self, decimal_comma: bool) -> tuple[Format, str] | None:
    if not (able := _fitting(self._numbers)):
      return None
    marks = able[0]
    if decimal_comma and not self._is_whole:
      # 1,234 and 1.234 in a file whose other columns have decimal commas.
      marks = next((some for some in able if some[0] == ","), marks)
    tally = self._numbers[marks]
    is_whole = self._is_whole and marks == (".", "")
    form = Format("integer" if is_whole else "number", tally.missing, *marks)
    parts = []
    if self._signs:
      parts.append("with " + " and ".join(f"{sign!r}" for sign in sorted(self._signs)))
    if marks[1]:
      parts.append(f"with {marks[1]!r} between thousands")
    if marks[0] == ",":
      parts.append("with a decimal comma")
    sentence = ""
    if parts:
      sentence = f"numbers {', '.join(parts)}, as in {shorten(self._sample)}"
    if (".", ",") in able and (",", "") in able and (".", "") not in able:
      one = "thousands" if marks[0] == "." else "decimals"
      sentence += f"; the comma could mark thousands or decimals, it is read as {one}"
    return form, _sentences(sentence, tally.sentence("numbers"))

  def _date(self, given: str | None) -> tuple[Format, str] | None:
    if not (able := _fitting(self._dates)):
      return None
    order, sample = able[0], shorten(self._sample)
    tally = self._dates[order]
    if self.is_ambiguous_date:
      if given is None:
        return (
          Format("text"),
          f"dates whose order is not clear: {sample} can be day/month or month/day in"
          " every row; say which with --dates=dmy or --dates=mdy, or set"
          ' "type": "date" and "order" in the spec',
        )
      order = given
    kind = "time" if "time" in tally.facts else "date"
    kind = "time with zone" if "zone" in tally.facts else kind
    first = {"ymd": "", "dmy": "day first", "mdy": "month first"}[order]
    sentence = f"dates, {first}, as in {sample}" if first else ""
    form = Format(kind, tally.missing, order=order)
    return form, _sentences(sentence, tally.sentence("dates"))

  def _list(self) -> tuple[Format, str] | None:
    if self._list_type is None or not self._lists.has_all:
      return None
    form = formats.of_type(self._list_type)
    return form and (form, self._lists.sentence("lists"))

  def _vector(self) -> tuple[Format, str] | None:
    for mark, tally in self._vectors.items():
      if not tally.has_all:
        continue
      # "3,5" is one number in a column with other numbers.
      is_number = any(numbers.fits for numbers in self._numbers.values())
      has_decimals = "decimals" in tally.facts
      if mark == "," and (not has_decimals or is_number):
        continue
      sizes = sorted(tally.facts - {"decimals"})
      if has_decimals or (len(sizes) == 1 and sizes[0] > 3):
        many = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        between = "spaces" if mark == " " else repr(mark)
        return (
          Format("list of numbers", tally.missing, separator=mark),
          f"lists of {many} numbers with {between} between them, as in"
          f" {shorten(self._sample)}",
        )
    return None

  def _text(self) -> tuple[Format, str]:
    families = {
      "numbers": max(self._numbers.values(), key=lambda tally: tally.fits),
      "dates": max(self._dates.values(), key=lambda tally: tally.fits),
      "lists": self._lists,
    }
    sentences = [
      f"{tally.fits / self.rows:.0%} are {name}; the others are {_shown(tally.others)}:"
      ' read as text. If these mean that there is no value, add them to "missing" of'
      " the column"
      for name, tally in families.items()
      if self.rows and tally.fits >= _MOSTLY * self.rows and not tally.is_over
    ][:1]
    if self._sample.startswith("[") and "..." in self._sample:
      sentences = [
        f"lists that numpy has cut short, as in {shorten(self._sample)}: read as text."
        " Print them in full: np.set_printoptions(threshold=sys.maxsize)"
      ]
    words = {w: n for w, n in self._words.items() if w.lower() in _NEVER_A_CATEGORY}
    # Categories are few words, each of them often.
    is_category = self._parts <= 2 * self.rows and self._different <= 0.5 * self.rows
    if words and is_category and len(self._words) < max(self._different, 2):
      sentences.append(f"{_shown(words)} read as missing")
      return Format("text", tuple(sorted(words))), _sentences(*sentences)
    return Format("text"), _sentences(*sentences)


def _open(tallies: Mapping[Any, _Tally]) -> Iterator[tuple[Any, _Tally]]:
  """The tallies that still count."""
  return ((key, tally) for key, tally in tallies.items() if not tally.is_over)


def _fitting(tallies: Mapping[Any, _Tally]) -> list[Any]:
  """The keys of the tallies that all cells fit but words for missing."""
  return [key for key, tally in tallies.items() if tally.has_all]


def _mask(booleans: pa.Array) -> np.ndarray:
  return np.array(booleans.to_numpy(zero_copy_only=False), bool)


def _matches(cells: pa.Array, pattern: str) -> np.ndarray:
  return _mask(pc.match_substring_regex(cells, pattern))


def _where(cells: pa.Array, good: np.ndarray) -> pa.Array:
  return cells.filter(pa.array(good))


def _count(
  words: collections.Counter[str],
  cells: pa.Array,
  counts: np.ndarray,
  some: np.ndarray,
) -> None:
  """Adds the numbers of some different cells to those of words."""
  numbers = counts[some].tolist()
  words.update(dict(zip(_where(cells, some).to_pylist(), numbers, strict=True)))


def _shown(words: Mapping[str, int], most: int = 5) -> str:
  """Words with their numbers, the most frequent first, cut after `most` of them."""
  ranked = sorted(words.items(), key=lambda item: (-item[1], item[0]))
  shown = ", ".join(f"{shorten(word)} ({count:,})" for word, count in ranked[:most])
  more = len(ranked) - most
  return shown + (f" and {more} more" if more > 0 else "")


def _sentences(*parts: str) -> str:
  return "; ".join(filter(None, parts))
