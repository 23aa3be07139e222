"""Find items by typed text: a title, with or without its year, or an id."""

from __future__ import annotations

import collections
import difflib
import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np

from deepsets_jax.foundation.errors import ConfigError

# Prefix of an id that stands in place of a title.
ID = "id:"
_YEAR = re.compile(r"\s*\(\d{4}\)$")
# "Usual Suspects, The" can also be found as "The Usual Suspects".
_ARTICLE = re.compile(r"(.*), ([^\s,]+)$")
_SHOWN = 5


class Titles:
  """The rows of items by their titles and ids."""

  def __init__(self, ids: np.ndarray, titles: np.ndarray, events: np.ndarray):
    """Index the titles.

    Args:
      ids: Id of each item, `[i]`.
      titles: Title of each item, `[i]`.
      events: Number of events of each item, `[i]`; candidates are ordered by it.
    """
    self._ids, self._titles, self._events = ids, titles, events

  def row(self, text: str) -> int:
    """Return the row of an item.

    Args:
      text: A title in any case, whose year may be left out if it is unique without; or
        "id:" and an id.

    Raises:
      ConfigError: No item or several items match; names candidates.
    """
    if text.strip().startswith(ID):
      return row_of(self._ids, text.strip().removeprefix(ID), "item")
    wanted = _plain(text)
    for names in (self._full, self._short):
      rows = names.get(wanted, [])
      if len(rows) == 1:
        return rows[0]
      if rows:
        advice = "give id:ID" if names is self._full else "give the year, or id:ID"
        raise ConfigError(f"{text!r} is ambiguous: {self._listed(rows)}; {advice}")
    near = self._nearest(wanted)
    similar = f"; similar are {self._listed(near)}" if near else ""
    raise ConfigError(f"no item has the title {text!r}{similar}; or give id:ID")

  def _nearest(self, wanted: str) -> Sequence[int]:
    """Return rows of titles that contain the text, or else of similar spelling."""
    containing = {
      r for name, rows in self._full.items() if wanted in name for r in rows
    }
    if wanted and containing:
      return sorted(containing, key=lambda row: -self._events[row])
    close = difflib.get_close_matches(wanted, self._short, _SHOWN)
    return list(dict.fromkeys(row for name in close for row in self._short[name]))

  def _listed(self, rows: Sequence[int]) -> str:
    shown = [f"{str(self._titles[r])!r} ({ID}{self._ids[r]})" for r in rows[:_SHOWN]]
    more = len(rows) - len(shown)
    return ", ".join(shown) + (f" and {more} others" if more else "")

  @functools.cached_property
  def _full(self) -> Mapping[str, list[int]]:
    """Rows by the whole title, with its year."""
    return _index(self._titles.tolist())

  @functools.cached_property
  def _short(self) -> Mapping[str, list[int]]:
    """Rows by the title without its year."""
    return _index([_YEAR.sub("", title) for title in self._titles.tolist()])


def row_of(ids: np.ndarray, wanted: str, what: str) -> int:
  """Return the row of an id.

  Raises:
    ConfigError: The id is unknown; `what` names its kind in the message.
  """
  rows = np.flatnonzero(ids == wanted)
  if not len(rows):
    some = ", ".join(repr(str(name)) for name in ids[:3])
    raise ConfigError(
      f"no {what} has the id {wanted!r}; there are {len(ids)}, such as {some}"
    )
  return int(rows[0])


def _index(titles: Sequence[str]) -> Mapping[str, list[int]]:
  found = collections.defaultdict(list)
  for row, title in enumerate(titles):
    year = _YEAR.search(title)
    bare = title[: year.start()] if year else title
    names = {title}
    if article := _ARTICLE.match(bare):
      names.add(f"{article[2]} {article[1]}" + (year[0] if year else ""))
    for name in {_plain(name) for name in names}:
      found[name].append(row)
  return found


def _plain(text: str) -> str:
  """Return the text in lower case, with single spaces."""
  return " ".join(text.casefold().split())
