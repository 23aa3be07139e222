"""The format of a column of strings, found from all of its cells."""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.data.ingest.files import dates, list_text, number_text
from deepsets_jax.data.ingest.files.formats import (
  BOOLEANS,
  MISSING,
  Format,
  list_type,
  trimmed,
)
from deepsets_jax.data.ingest.files.source import READ_ERRORS, shorten
from deepsets_jax.data.ingest.files.tally import (
  Tally,
  is_all,
  mask,
  missing_sentence,
  seen,
  shown,
)

# Words that are no value in a column of categories either. "NA" may be Namibia, and
# "None" a kind of garage.
_NEVER_A_CATEGORY = frozenset("n/a #n/a <na> nan null (null) ? - -- ---".split())
_BETWEEN_NUMBERS = (" ", ",", ";", "|")
# Cells of which this share is of one type are said to be of it, but for some.
_MOSTLY = 0.8


class Detector:
  """Finds the format of a column from all of its cells, a batch at a time.

  Attributes:
    rows: Number of cells so far that hold something.
  """

  def __init__(self, *, is_label: bool = False):
    """Args: is_label: Whether it is the label, whose words are kept as they are."""
    self.rows = 0
    self._is_label = is_label
    self._numbers = {marks: Tally() for marks in number_text.MARKS}
    self._dates = {order: Tally() for order in dates.ORDERS}
    self._booleans, self._spellings = Tally(), set()
    self._lists, self._list_type, self._is_list = Tally(), pa.null(), True
    self._vectors = {mark: Tally() for mark in _BETWEEN_NUMBERS}
    self._widths = {mark: collections.Counter() for mark in _BETWEEN_NUMBERS}
    self._whole, self._signed, self._timed = True, collections.Counter(), set()
    self._decimals = collections.Counter()
    self._words: collections.Counter[str] = collections.Counter()
    self._parts, self._different, self._sample = 0, 0, None

  def add(self, cells: pa.Array) -> None:
    """Takes in some cells, strings."""
    cells = trimmed(cells).drop_null()
    if not len(cells):
      return
    self.rows += len(cells)
    if self._sample is None:
      self._sample = cells[0].as_py()
    counted = cells.value_counts()
    cells, counts = counted.field(0), counted.field(1).to_numpy()
    self._different += len(cells)
    self._add_words(cells, counts)
    self._add_numbers(cells, counts)
    self._add_dates(cells, counts)
    self._add_booleans(cells, counts)
    self._add_lists(cells, counts)
    self._add_vectors(cells, counts)

  def _add_words(self, cells: pa.Array, counts: np.ndarray) -> None:
    lower = pc.utf8_lower(cells)
    odd = pc.is_in(lower, pa.array(sorted(MISSING)))
    for text, count in zip(
      cells.filter(odd).to_pylist(), counts[mask(odd)].tolist(), strict=True
    ):
      self._words[text] += count
    spaces = pc.add(pc.count_substring_regex(cells, r"\s+"), 1)
    self._parts += int((spaces.to_numpy(zero_copy_only=False) * counts).sum())

  def _add_numbers(self, cells: pa.Array, counts: np.ndarray) -> None:
    if all(tally.is_over for tally in self._numbers.values()):
      return
    whole = mask(pc.match_substring_regex(cells, number_text.INTEGER))
    try:
      cells.filter(pa.array(whole)).cast(pa.int64())
    except READ_ERRORS:
      whole[:] = False
    simple = whole | mask(pc.match_substring_regex(cells, number_text.SIMPLE))
    if not number_text.are_finite(cells.filter(pa.array(simple))):
      self._numbers = {marks: Tally(is_over=True) for marks in number_text.MARKS}
      return
    core = cells if simple.all() else number_text.without_signs(cells)
    if not simple.all():
      signed = mask(pc.not_equal(core, cells))
      for text in cells.filter(pa.array(signed & ~simple)).to_pylist()[:50]:
        for sign in re.findall(rf"{number_text.CURRENCY}|%", text):
          self._signed[sign] += 1
    for marks, tally in self._numbers.items():
      if tally.is_over:
        continue
      good = mask(pc.match_substring_regex(core, number_text.MARKS[marks]))
      if marks == (".", ""):
        good |= simple
      tally.add(cells, counts, good)
    if self._whole:
      words = mask(pc.is_in(pc.utf8_lower(cells), pa.array(sorted(MISSING))))
      self._whole = bool((whole | words).all())

  def _add_dates(self, cells: pa.Array, counts: np.ndarray) -> None:
    for order, tally in self._dates.items():
      if not tally.is_over:
        good, timed, zoned = dates.match(cells, order)
        tally.add(cells, counts, good)
        self._timed |= {"time"} if timed else set()
        self._timed |= {"zone"} if zoned else set()

  def _add_booleans(self, cells: pa.Array, counts: np.ndarray) -> None:
    if not self._booleans.is_over:
      lower = pc.utf8_lower(cells)
      good = mask(
        pc.is_in(lower, pa.array([word for pair in BOOLEANS for word in pair]))
      )
      self._spellings |= set(lower.filter(pa.array(good)).to_pylist())
      self._booleans.add(cells, counts, good)

  def _add_lists(self, cells: pa.Array, counts: np.ndarray) -> None:
    if self._lists.is_over or not self._is_list:
      return
    good = mask(pc.match_substring_regex(cells, list_text.PATTERN))
    if not good.any():
      self._lists.add(cells, counts, good)
      return
    some = cells.filter(pa.array(good))
    values = None
    if (
      pc.any(pc.match_substring_regex(some, list_text.LONG), min_count=0).as_py()
      is not True
    ):
      values = list_text.parse_json(some, None)
    if values is not None:
      self._list_type = list_text.unified(self._list_type, values.type)
      self._is_list = self._list_type is not None
      self._lists.add(cells, counts, good)
      return
    for place in np.flatnonzero(good):
      try:
        value = list_text.parse_one(cells[int(place)].as_py())
        self._list_type = list_text.unified(self._list_type, pa.array([value]).type)
      except READ_ERRORS:
        good[place] = False
      if self._list_type is None:
        self._is_list = False
        return
    self._lists.add(cells, counts, good)

  def _add_vectors(self, cells: pa.Array, counts: np.ndarray) -> None:
    number = number_text.MARKS[".", ""].strip("^$")
    for mark, tally in self._vectors.items():
      if tally.is_over:
        continue
      between = r"\s+" if mark == " " else rf"\s*{re.escape(mark)}\s*"
      some = rf"^\[?\s*{number}(?:{between}{number})+\s*\]?$"
      good = mask(pc.match_substring_regex(cells, some))
      tally.add(cells, counts, good)
      if good.any():
        there = cells.filter(pa.array(good))
        sizes = pc.count_substring_regex(there, between).to_numpy() + 1
        if mark == " ":
          bare = pc.replace_substring_regex(there, r"^[\[(]\s*|\s*[\])]$", "")
          sizes = pc.count_substring_regex(bare, between).to_numpy() + 1
        self._widths[mark].update(sizes.tolist())
        self._decimals[mark] += int(
          pc.sum(pc.match_substring_regex(there, r"[0-9]\.[0-9]|\.[0-9]")).as_py()
        )

  @property
  def has_decimal_comma(self) -> bool:
    """Whether the numbers can only be read with a decimal comma."""
    able = self._number_marks()
    return bool(able) and all(decimal == "," for decimal, _ in able)

  def _number_marks(self) -> list[tuple[str, str]]:
    """The marks with which all cells are numbers, but for the words for missing."""
    return [marks for marks, tally in self._numbers.items() if is_all(tally)]

  def found(
    self, *, decimal_comma: bool = False, dates: str | None = None
  ) -> tuple[Format, str]:
    """The format, and a sentence on what is not obvious about it ("" for nothing).

    Args:
      decimal_comma: Whether other columns of the file have one, which decides what
        1,234 is.
      dates: "dmy" or "mdy", the order of dates that could be in both.
    """
    if not self.rows:
      return Format("text"), ""
    if form := self._boolean():
      return form, missing_sentence(self._booleans, "booleans")
    if marks := self._number_marks():
      return self._number(marks, decimal_comma)
    if form := self._date(dates):
      return form
    if is_all(self._lists) and self._list_type is not None:
      name = list_type(self._list_type)
      if name is not None:
        return Format(name), missing_sentence(self._lists, "lists")
    if form := self._vector():
      return form
    return self._text()

  def _boolean(self) -> Format | None:
    pairs = [set(pair) for pair in BOOLEANS]
    if not is_all(self._booleans) or not any(self._spellings <= p for p in pairs):
      return None
    if self._spellings <= {"true", "false"}:
      return Format("boolean", missing=seen(self._booleans))
    # "no" alone is a word, and a label of yes and no keeps these words.
    if self._is_label or len(self._spellings) < 2:
      return None
    return Format("boolean", missing=seen(self._booleans))

  def _number(
    self, able: Sequence[tuple[str, str]], decimal_comma: bool
  ) -> tuple[Format, str]:
    marks = able[0]
    if decimal_comma and not self._whole:
      # 1,234 and 1.234 in a file whose other columns have decimal commas.
      marks = next((some for some in able if some[0] == ","), marks)
    tally = self._numbers[marks]
    whole = self._whole and marks == (".", "")
    form = Format("integer" if whole else "number", seen(tally), *marks)
    parts = []
    if self._signed:
      parts.append("with " + " and ".join(f"{sign!r}" for sign in sorted(self._signed)))
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
    said = [sentence, missing_sentence(tally, "numbers")]
    return form, "; ".join(filter(None, said))

  def _date(self, told: str | None) -> tuple[Format, str] | None:
    able = [order for order, tally in self._dates.items() if is_all(tally)]
    if not able:
      return None
    tally = self._dates[able[0]]
    order, first = able[0], {"ymd": "", "dmy": "day first", "mdy": "month first"}
    if self.is_ambiguous_date and told is not None:
      order = told
    elif self.is_ambiguous_date:
      return (
        Format("text"),
        f"dates whose order is not clear: {shorten(self._sample)} can be day/month or"
        " month/day in every row; say which with --dates=dmy or --dates=mdy, or set"
        ' "type": "date" and "order" in the spec',
      )
    sentence = f"dates, {first[order]}, as in {shorten(self._sample)}"
    said = [sentence if first[order] else "", missing_sentence(tally, "dates")]
    return Format(self._date_type, seen(tally), order=order), "; ".join(
      filter(None, said)
    )

  @property
  def _date_type(self) -> str:
    if "zone" in self._timed:
      return "time with zone"
    return "time" if self._timed else "date"

  @property
  def is_ambiguous_date(self) -> bool:
    """Whether each cell is a date whichever of day and month comes first."""
    able = [order for order, tally in self._dates.items() if is_all(tally)]
    return self.rows > 0 and "dmy" in able and "mdy" in able and "ymd" not in able

  def _vector(self) -> tuple[Format, str] | None:
    for mark, tally in self._vectors.items():
      if not is_all(tally):
        continue
      measures = self._decimals[mark] > 0
      # "3,5" is one number where others are.
      if mark == "," and (not measures or any(n.fits for n in self._numbers.values())):
        continue
      same = len(self._widths[mark]) == 1
      if measures or (same and max(self._widths[mark]) > 3):
        sizes = sorted(self._widths[mark])
        many = str(sizes[0]) if same else f"{sizes[0]} to {sizes[-1]}"
        between = "spaces" if mark == " " else repr(mark)
        said = f"lists of {many} numbers with {between} between them, as in"
        form = Format("list of numbers", seen(tally), separator=mark)
        return form, f"{said} {shorten(self._sample)}"
    return None

  def _text(self) -> tuple[Format, str]:
    sentence = ""
    families = {
      "numbers": max(self._numbers.values(), key=lambda tally: tally.fits),
      "dates": max(self._dates.values(), key=lambda tally: tally.fits),
      "lists": self._lists,
    }
    for name, tally in families.items():
      if tally.fits >= _MOSTLY * self.rows and not tally.is_over:
        others = shown(tally.others)
        sentence = (
          f"{tally.fits / self.rows:.0%} are {name}; the others are {others}: read as"
          ' text. If these mean that there is no value, add them to "missing" of the'
          " column"
        )
        break
    if self._sample.startswith("[") and "..." in self._sample:
      sentence = (
        f"lists that numpy has cut short, as in {shorten(self._sample)}: read as text."
        " Print them in full: np.set_printoptions(threshold=sys.maxsize)"
      )
    # Categories are few words, each of them often.
    if self._parts <= 2 * self.rows and self._different <= 0.5 * self.rows:
      words = {w: n for w, n in self._words.items() if w.lower() in _NEVER_A_CATEGORY}
      if words and len(self._words) < max(self._different, 2):
        said = [sentence, f"{shown(words)} read as missing"]
        return Format("text", tuple(sorted(words))), "; ".join(filter(None, said))
    return Format("text"), sentence
