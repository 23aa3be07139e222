"""Columns that are not features: row indices, ids, splits and groups."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pyarrow as pa

from deepsets_jax.data.ingest.columns import cells
from deepsets_jax.data.ingest.columns.profiling import ColumnProfile
from deepsets_jax.data.ingest.files.paths import PART_WORDS

_SPLIT_NAMES = ("split", "fold", "part", "partition", "subset", "set")
# Names of columns of 0 and 1 that say of each row whether it is of a part.
_IS_PART = r"(?:is|in)_?(train|training|test|testing|holdout|valid|validation|val|dev)"
# As pandas calls an index that it writes.
_INDEX = r"Unnamed: [\d.]+|__index_level_\d+__|level_0|__null_dask_index__"
_COUNTS = ("index", "idx", "row", "rownum", "row_number", "row_id", "row_index")
_GROUPS = (
  r"(?:.*_)?(?:group|user|patient|subject|participant|customer|client|session|household"
  r"|family|person|speaker|writer|device)(?:_?(?:id|name|no|number))?"
)
_FEWEST_GROUPS = 10


def reason_to_skip(fact: ColumnProfile) -> str:
  """Why a column must not be read, whatever its kind; "" if it may be."""
  name = fact.name.strip().lower()
  if re.fullmatch(_INDEX, fact.name):
    return "it is an index of the rows, as pandas writes one"
  if name in _COUNTS and numbers_rows(fact):
    return "it numbers the rows"
  if fact.is_ambiguous:
    return "day or month first? say --dates=dmy or --dates=mdy"
  return ""


def split_column(
  facts: Sequence[ColumnProfile], unused: dict[str, str]
) -> tuple[str | None, dict[str, list[str]] | None]:
  """The column that says the part of each row, and which values say which.

  Columns that look like one, and do not say which part is which, become unused.
  """
  for fact in facts:
    words = {str(word).strip().lower() for word in fact.words_seen or ()}
    named = fact.name.lower() in _SPLIT_NAMES
    if named and pa.types.is_string(fact.type) and words and words <= set(PART_WORDS):
      if "train" in {PART_WORDS[word] for word in words}:
        return fact.name, None
  for fact in facts:
    _, least, most, _ = fact.numbers
    flag = re.fullmatch(_IS_PART, fact.name.lower())
    named = fact.name.lower() in _SPLIT_NAMES
    if fact.missing or not fact.whole or not (flag or named):
      continue
    is_bool = pa.types.is_boolean(fact.type)
    if not is_bool and not pa.types.is_integer(fact.type):
      continue
    if flag and (least, most) == (0, 1):
      part = PART_WORDS[flag[1]]
      other = "test" if part == "train" else "train"
      values = ("false", "true") if is_bool else ("0", "1")
      return fact.name, {other: [values[0]], part: [values[1]]}
    if named and least == 0 and most in (1, 2) and not is_bool:
      parts = ("train", "test") if most == 1 else ("train", "validation", "test")
      return fact.name, {part: [str(value)] for value, part in enumerate(parts)}
    if named and len(fact.distinct) <= 20:
      unused[fact.name] = (
        'it numbers folds: to split by it, name it as "split" in the spec, with its'
        ' values as "parts": {"train": ["1", "2"], "validation": ["3"], "test": ["4"]}'
      )
  return None, None


def is_group(fact: ColumnProfile) -> bool:
  """Whether rows of one value are of one person or thing."""
  return (
    re.fullmatch(_GROUPS, fact.name.lower()) is not None
    and cells.is_token(fact.type)
    and fact.whole
    and not fact.missing
    and _FEWEST_GROUPS <= len(fact.distinct) <= 0.6 * fact.rows
  )


def id_column(facts: Sequence[ColumnProfile]) -> str | None:
  """The first column that has another value in each row, and looks like names."""
  able = [
    fact
    for fact in facts
    if fact.unique
    and fact.rows > 1
    and cells.is_token(fact.type)
    and fact.whole
    and not pa.types.is_temporal(fact.type)
    and not fact.looks_like_pictures
  ]
  named = [fact.name for fact in able if is_id_name(fact.name)]
  words = [f.name for f in able if pa.types.is_string(f.type) and f.looks_like_keys]
  return first([*named, *words])


def is_id_name(name: str) -> bool:
  """Whether a column's name says that it identifies something."""
  return re.search(r"(^|_)(id|uid|uuid|key|index)$", name.lower()) is not None


def numbers_rows(fact: ColumnProfile) -> bool:
  """Whether it counts from 0 or 1, as an index that was written with the table does."""
  _, least, most, _ = fact.numbers
  counts = fact.unique and fact.whole and pa.types.is_integer(fact.type)
  return counts and least in (0, 1) and most - least + 1 == fact.rows > 1


def first(names: Iterable[str]) -> str | None:
  """The first of some names, or None."""
  return next(iter(names), None)
