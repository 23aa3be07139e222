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
# By order, ways to write a date. A separator is the same twice; RE2 has no reference to
# what it has matched, so each one has a pattern of its own.
ORDERS: dict[str, tuple[str, ...]] = {
  "ymd": (
    *(f"{_YEAR}{mark}{_MONTH}{mark}{_DAY}" for mark in ("-", "/", r"\.")),
    rf"{_YEAR}-{_MONTH}",
    # The order that RFC 2822, C and people with words for months write.
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


def match(cells: pa.Array, order: str) -> tuple[np.ndarray, bool, bool]:
  """Which strings are dates of an order, and whether any has a time, and a zone."""
  micros, timed, zoned = _micros(cells, order)
  return micros != _NONE, bool(timed.any()), bool(zoned.any())


def parse(cells: pa.Array, order: str, kind: pa.DataType) -> pa.Array:
  """The dates or times in strings.

  Args:
    cells: Strings.
    order: A key of `ORDERS`; that of the year first is always understood.
    kind: Type of the values. Of a time with a zone, UTC.

  Raises:
    pa.ArrowInvalid: A string is no such date.
  """
  micros, _, _ = _micros(cells, order)
  if order != "ymd":
    iso, _, _ = _micros(cells, "ymd")
    micros = np.where(micros == _NONE, iso, micros)
  null = cells.is_null().to_numpy(zero_copy_only=False)
  bad = (micros == _NONE) & ~null
  if bad.any():
    raise pa.ArrowInvalid("a value is no date in this order")
  values = pa.array(np.where(null, 0, micros), pa.int64(), mask=null)
  times = values.cast(pa.timestamp("us", getattr(kind, "tz", None)))
  if pa.types.is_date(kind):
    return pc.floor_temporal(times, unit="day").cast(kind)
  return times.cast(kind)


_NONE = np.iinfo(np.int64).min


def _micros(cells: pa.Array, order: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Microseconds since 1970 of each string, `_NONE` of one that is no date."""
  micros = np.full(len(cells), _NONE, np.int64)
  timed, zoned = np.zeros(len(cells), bool), np.zeros(len(cells), bool)
  able = pc.fill_null(pc.match_substring_regex(cells, _DATELIKE), False)
  left = np.flatnonzero(able.to_numpy(zero_copy_only=False))
  patterns = [f"^{date}{_CLOCK}$" for date in ORDERS[order]]
  if order == "ymd":
    patterns.append(f"^{_TWITTER}$")
  for pattern in patterns:
    if not len(left):
      break
    found = pc.extract_regex(cells.take(pa.array(left)), pattern)
    hit = found.is_valid().to_numpy(zero_copy_only=False)
    if not hit.any():
      continue
    some = found.filter(pa.array(hit))
    values, good, has_time, has_zone = _instants(some)
    where = left[hit]
    micros[where[good]] = values[good]
    timed[where[good]], zoned[where[good]] = has_time[good], has_zone[good]
    left = left[~hit]
  return micros, timed, zoned


def _instants(parts: pa.StructArray):
  """Microseconds since 1970 of matches, which of them exist, and have time and zone."""
  count = len(parts)
  names = [field.name for field in parts.type]

  def texts(name: str) -> pa.Array:
    if name not in names:
      return pa.array([""] * count, pa.string())
    return pc.fill_null(parts.field(name), "")

  def number(name: str, usual: int = 0) -> np.ndarray:
    found = texts(name)
    empty = pc.equal(found, "")
    return pc.if_else(empty, str(usual), found).cast(pa.int64()).to_numpy()

  year, day = number("year"), number("day", 1)
  if "year" in names:
    short = pc.equal(pc.utf8_length(texts("year")), 2).to_numpy(zero_copy_only=False)
    year = np.where(short, np.where(year < 69, 2000 + year, 1900 + year), year)
  if "name" in names:
    first = pc.utf8_slice_codeunits(pc.utf8_lower(texts("name")), 0, 3)
    month = pc.add(pc.index_in(first, pa.array(_MONTHS)), 1).cast(pa.int64()).to_numpy()
  else:
    month = number("month", 1)
  hour, minute, second = number("hour"), number("minute"), number("second")
  half = pc.utf8_lower(texts("half"))
  is_pm = pc.equal(half, "pm").to_numpy(zero_copy_only=False)
  is_am = pc.equal(half, "am").to_numpy(zero_copy_only=False)
  good = (~(is_pm | is_am)) | ((hour >= 1) & (hour <= 12))
  hour = np.where(is_pm | is_am, hour % 12 + 12 * is_pm, hour)
  fraction = pc.utf8_slice_codeunits(
    pc.utf8_rpad(texts("fraction"), 6, padding="0"), 0, 6
  )
  micro = fraction.cast(pa.int64()).to_numpy()
  good &= (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31) & (year >= 1)
  good &= (hour <= 23) & (minute <= 59) & (second <= 59)
  safe_month = np.where(good, month, 1)
  months = (year - 1970) * 12 + safe_month - 1
  dates = months.astype("M8[M]").astype("M8[D]") + np.where(good, day - 1, 0)
  good &= dates.astype("M8[M]").astype(np.int64) == months
  seconds = dates.astype(np.int64) * 86_400 + hour * 3600 + minute * 60 + second
  zone = texts("zone")
  seconds = seconds - _offsets(zone)
  has_zone = pc.not_equal(zone, "").to_numpy(zero_copy_only=False)
  has_time = pc.not_equal(texts("hour"), "").to_numpy(zero_copy_only=False)
  return seconds * 1_000_000 + micro, good, has_time, has_zone


def _offsets(zones: pa.Array) -> np.ndarray:
  """Seconds east of Greenwich."""
  encoded = zones.dictionary_encode()
  known = []
  for zone in encoded.dictionary.to_pylist():
    if zone[:1] not in ("+", "-"):
      known.append(0)
      continue
    digits = zone[1:].replace(":", "").ljust(4, "0")
    sign = -1 if zone[0] == "-" else 1
    known.append(sign * (int(digits[:2]) * 3600 + int(digits[2:]) * 60))
  return np.array([*known, 0])[encoded.indices.to_numpy()]
