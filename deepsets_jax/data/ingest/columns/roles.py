"""Detect columns that are not features: row indices, ids, splits and groups."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pyarrow as pa

from deepsets_jax.data.ingest.columns import cells
from deepsets_jax.data.ingest.columns.profiling import ColumnProfile
from deepsets_jax.data.ingest.files.paths import PART_WORDS

_SPLIT_NAMES = ("split", "fold", "part", "partition", "subset", "set")
# Names of columns of 0 and 1 that mark the rows of one part.
_IS_PART = r"(?:is|in)_?(train|training|test|testing|holdout|valid|validation|val|dev)"
# Names that pandas gives to an index.
_INDEX = r"Unnamed: [\d.]+|__index_level_\d+__|level_0|__null_dask_index__"
_COUNTS = ("index", "idx", "row", "rownum", "row_number", "row_id", "row_index")
_GROUPS = (
  r"(?:.*_)?(?:group|user|patient|subject|participant|customer|client|session|household"
  r"|family|person|speaker|writer|device)(?:_?(?:id|name|no|number))?"
)
_FEWEST_GROUPS = 10


def reason_to_skip(profile: ColumnProfile) -> str:
  """Return why a column must not be read, or "" if it may be."""
  name = profile.name.strip().lower()
  if re.fullmatch(_INDEX, profile.name):
    return "it is a row index that pandas wrote"
  if name in _COUNTS and numbers_rows(profile):
    return "it numbers the rows"
  if profile.is_ambiguous:
    return "day or month may come first; set --dates=dmy or --dates=mdy"
  return ""


def split_column(
  profiles: Sequence[ColumnProfile], unused: dict[str, str]
) -> tuple[str | None, dict[str, list[str]] | None]:
  """Return the column with the part of each row, and its values per part.

  Args:
    profiles: Profiles of the columns.
    unused: Receives columns of folds, whose parts are unknown, with a reason.

  Returns:
    The column, or None; and its values per part, or None for words that name parts.
  """
  for profile in profiles:
    words = {str(word).strip().lower() for word in profile.words_seen or ()}
    named = profile.name.lower() in _SPLIT_NAMES
    if (
      named and pa.types.is_string(profile.type) and words and words <= set(PART_WORDS)
    ):
      if "train" in {PART_WORDS[word] for word in words}:
        return profile.name, None
  for profile in profiles:
    _, least, most, _ = profile.numbers
    flag = re.fullmatch(_IS_PART, profile.name.lower())
    named = profile.name.lower() in _SPLIT_NAMES
    if profile.missing or not profile.whole or not (flag or named):
      continue
    is_bool = pa.types.is_boolean(profile.type)
    if not is_bool and not pa.types.is_integer(profile.type):
      continue
    if flag and (least, most) == (0, 1):
      part = PART_WORDS[flag[1]]
      other = "test" if part == "train" else "train"
      values = ("false", "true") if is_bool else ("0", "1")
      return profile.name, {other: [values[0]], part: [values[1]]}
    if named and least == 0 and most in (1, 2) and not is_bool:
      parts = ("train", "test") if most == 1 else ("train", "validation", "test")
      return profile.name, {part: [str(value)] for value, part in enumerate(parts)}
    if named and len(profile.distinct) <= 20:
      unused[profile.name] = (
        'it numbers folds; to split by it, set it as "split" in the spec, with its'
        ' values as "parts": {"train": ["1", "2"], "validation": ["3"], "test": ["4"]}'
      )
  return None, None


def is_group(profile: ColumnProfile) -> bool:
  """Whether rows with equal values belong to one person or thing."""
  return (
    re.fullmatch(_GROUPS, profile.name.lower()) is not None
    and cells.is_token(profile.type)
    and profile.whole
    and not profile.missing
    and _FEWEST_GROUPS <= len(profile.distinct) <= 0.6 * profile.rows
  )


def id_column(profiles: Sequence[ColumnProfile]) -> str | None:
  """Return the first column with distinct values that look like names, or None."""
  able = [
    profile
    for profile in profiles
    if profile.unique
    and profile.rows > 1
    and cells.is_token(profile.type)
    and profile.whole
    and not pa.types.is_temporal(profile.type)
    and not profile.looks_like_images
  ]
  named = [profile.name for profile in able if is_id_name(profile.name)]
  words = [f.name for f in able if pa.types.is_string(f.type) and f.looks_like_keys]
  return first([*named, *words])


def is_id_name(name: str) -> bool:
  """Whether a column's name says that it identifies something."""
  return re.search(r"(^|_)(id|uid|uuid|key|index)$", name.lower()) is not None


def numbers_rows(profile: ColumnProfile) -> bool:
  """Whether a column counts the rows from 0 or 1, like a written index."""
  _, least, most, _ = profile.numbers
  counts = profile.unique and profile.whole and pa.types.is_integer(profile.type)
  return counts and least in (0, 1) and most - least + 1 == profile.rows > 1


def first(names: Iterable[str]) -> str | None:
  """Return the first of some names, or None."""
  return next(iter(names), None)
