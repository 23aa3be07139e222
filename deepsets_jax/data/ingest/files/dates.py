"""Dates and times in strings, in the orders that people write them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_NAME = (
  r"(?P<name>(?i:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?"
  r"|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?))\.?"
)
_WEEKDAY = r"(?:(?i:mon|tue|wed|thu|fri|sat|sun)[a-z]*,?\s+)?"
_DAY, _MONTH = r"(?P<day>[0-9]{1,2})", r"(?P<month>[0-9]{1,2})"
_YEAR, _SHORT = r"(?P<year>[0-9]{4})", r"(?P<year>[0-9]{2})"
_ZONE = (
  r"(?:\s*(?P<zone>Z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)(?:\s*\(?(?:UTC|GMT)\)?)?)?"
)
_CLOCK = (
  r"(?:(?:[T ]|,\s*|\s+)(?P<hour>[0-9]{1,2})(?::(?P<minute>[0-9]{2})"
  r"(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]{1,9}))?)?)?"
  rf"\s*(?P<half>(?i:am|pm))?{_ZONE})?"
)
# Patterns of dates, by order. The two separators of a date are the same; RE2 cannot
# refer to what it has matched, so each separator has a pattern of its own.
ORDERS: dict[str, tuple[str, ...]] = {
  "ymd": (
    *(f"{_YEAR}{mark}{_MONTH}{mark}{_DAY}" for mark in ("-", "/", r"\.")),
    rf"{_YEAR}-{_MONTH}",
    # As RFC 2822, C, and people who write words for months.
    rf"{_WEEKDAY}{_DAY}(?:st|nd|rd|th)?[ -]{_NAME}[ ,-]\s*{_YEAR}",
    rf"{_WEEKDAY}{_NAME}\s+{_DAY}(?:st|nd|rd|th)?,?\s+{_YEAR}",
    rf"{_DAY}[ -]{_NAME}[ -]{_SHORT}",
    rf"{_NAME}[ -]{_YEAR}",
  ),
  "dmy": (
    *(f"{_DAY}{mark}{_MONTH}{mark}{_YEAR}" for mark in ("/", r"\.", "-")),
    *(f"{_DAY}{mark}{_MONTH}{mark}{_SHORT}" for mark in ("/", "-")),
    r"(?P<day>[0-9]{2})\.(?P<month>[0-9]{2})\.(?P<year>[0-9]{2})",
  ),
  "mdy": (
    *(f"{_MONTH}{mark}{_DAY}{mark}{_YEAR}" for mark in ("/", r"\.", "-")),
    *(f"{_MONTH}{mark}{_DAY}{mark}{_SHORT}" for mark in ("/", "-")),
  ),
}
# As in "Wed Oct 10 20:19:24 +0000 2018".
_TWITTER = (
  rf"{_WEEKDAY}{_NAME}\s+{_DAY}\s+(?P<hour>[0-9]{{2}}):(?P<minute>[0-9]{{2}}):"
  rf"(?P<second>[0-9]{{2}})(?:\s+(?P<zone>[+-][0-9]{{4}}|UTC|GMT))?\s+{_YEAR}"
)
_DATELIKE = r"^[A-Za-z]{0,10},?\s*[A-Za-z0-9]{1,9}[ \-/.].*[0-9]"


_NONE = np.iinfo(np.int64).min


def match(cells: pa.Array, order: str) -> tuple[np.ndarray, set[str]]:
  """Which strings are dates of an order, and the parts "time" and "zone" of any."""
  micros, parts = _micros(cells, order)
  return micros != _NONE, parts


def parse(cells: pa.Array, order: str, kind: pa.DataType) -> pa.Array:
  """Parse the dates or times in strings.

  Args:
    cells: Strings.
    order: A key of `ORDERS`; dates with the year first are always understood.
    kind: Type of the values. The value of a time with a zone is in UTC.

  Raises:
    pa.ArrowInvalid: A string is not such a date.
  """
  micros, _ = _micros(cells, order)
  if order != "ymd":
    micros = np.where(micros == _NONE, _micros(cells, "ymd")[0], micros)
  null = _numpy(cells.is_null())
  if ((micros == _NONE) & ~null).any():
    raise pa.ArrowInvalid("it is not a date in this order")
  values = pa.array(np.where(null, 0, micros), pa.int64(), mask=null)
  times = values.cast(pa.timestamp("us", getattr(kind, "tz", None)))
  if pa.types.is_date(kind):
    times = pc.floor_temporal(times, unit="day")
  return times.cast(kind)


def _numpy(array: pa.Array) -> np.ndarray:
  return array.to_numpy(zero_copy_only=False)


def _micros(cells: pa.Array, order: str) -> tuple[np.ndarray, set[str]]:
  """Microseconds since 1970 of each string, `_NONE` for a string that is not a date.

  Also the parts "time" and "zone" if any of the dates has them.
  """
  micros, has = np.full(len(cells), _NONE, np.int64), set()
  datelike = pc.fill_null(pc.match_substring_regex(cells, _DATELIKE), False)
  left = np.flatnonzero(_numpy(datelike))
  patterns = [f"^{date}{_CLOCK}$" for date in ORDERS[order]]
  for pattern in [*patterns, f"^{_TWITTER}$"] if order == "ymd" else patterns:
    if not len(left):
      break
    found = pc.extract_regex(cells.take(pa.array(left)), pattern)
    hit = _numpy(found.is_valid())
    if not hit.any():
      continue
    parts = found.drop_null()
    values, good = _instants(parts)
    micros[left[hit][good]] = values[good]
    for name, group in (("time", "hour"), ("zone", "zone")):
      has |= {name} if _has(parts, group)[good].any() else set()
    left = left[~hit]
  return micros, has


def _texts(parts: pa.StructArray, name: str) -> pa.Array:
  """Return a group of the matches, "" for strings that do not match."""
  if parts.type.get_field_index(name) < 0:
    return pa.array([""] * len(parts), pa.string())
  return pc.fill_null(parts.field(name), "")


def _has(parts: pa.StructArray, name: str) -> np.ndarray:
  return _numpy(pc.not_equal(_texts(parts, name), ""))


def _number(parts: pa.StructArray, name: str, default: int = 0) -> np.ndarray:
  """The integers in a group of the matches."""
  texts = _texts(parts, name)
  filled = pc.if_else(pc.equal(texts, ""), str(default), texts)
  return filled.cast(pa.int64()).to_numpy()


def _instants(parts: pa.StructArray) -> tuple[np.ndarray, np.ndarray]:
  """Microseconds since 1970 of matches, and which of them exist in the calendar."""
  year, day = _number(parts, "year"), _number(parts, "day", 1)
  short = _numpy(pc.equal(pc.utf8_length(_texts(parts, "year")), 2))
  year = np.where(short, np.where(year < 69, 2000 + year, 1900 + year), year)
  if parts.type.get_field_index("name") < 0:
    month = _number(parts, "month", 1)
  else:
    first = pc.utf8_slice_codeunits(pc.utf8_lower(_texts(parts, "name")), 0, 3)
    month = pc.index_in(first, pa.array(_MONTHS)).to_numpy().astype(np.int64) + 1
  hour, minute, second = (_number(parts, n) for n in ("hour", "minute", "second"))
  half = pc.utf8_lower(_texts(parts, "half"))
  is_pm, is_halved = _numpy(pc.equal(half, "pm")), _has(parts, "half")
  good = ~is_halved | ((hour >= 1) & (hour <= 12))
  hour = np.where(is_halved, hour % 12 + 12 * is_pm, hour)
  fraction = pc.utf8_rpad(_texts(parts, "fraction"), 6, padding="0")
  micro = pc.utf8_slice_codeunits(fraction, 0, 6).cast(pa.int64()).to_numpy()
  good &= (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31) & (year >= 1)
  good &= (hour <= 23) & (minute <= 59) & (second <= 59)
  months = (year - 1970) * 12 + np.where(good, month, 1) - 1
  dates = months.astype("M8[M]").astype("M8[D]") + np.where(good, day - 1, 0)
  good &= dates.astype("M8[M]").astype(np.int64) == months  # No 30th of February.
  seconds = dates.astype(np.int64) * 86_400 + hour * 3600 + minute * 60 + second
  seconds -= _offsets(_texts(parts, "zone"))
  return seconds * 1_000_000 + micro, good


def _offsets(zones: pa.Array) -> np.ndarray:
  """Seconds east of Greenwich of zones such as Z, UTC, +02 and -03:30."""
  encoded = zones.dictionary_encode()
  known = []
  for zone in encoded.dictionary.to_pylist():
    digits = zone[1:].replace(":", "").ljust(4, "0")
    sign = {"+": 1, "-": -1}.get(zone[:1], 0)
    known.append(sign and sign * (int(digits[:2]) * 3600 + int(digits[2:]) * 60))
  return np.array(known)[encoded.indices.to_numpy()]
