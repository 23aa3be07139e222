"""Propose a spec for a file by the types, names and contents of its columns.

The user reads the proposal and corrects it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from deepsets_jax.data.ingest.columns import cells, roles
from deepsets_jax.data.ingest.columns.fields import Fields
from deepsets_jax.data.ingest.columns.images import ImageColumn
from deepsets_jax.data.ingest.columns.labels import Label
from deepsets_jax.data.ingest.columns.numeric import (
  Scalar,
  ScalarList,
  Vector,
  VectorList,
)
from deepsets_jax.data.ingest.columns.profiling import MOST_DISTINCT, ColumnProfile
from deepsets_jax.data.ingest.columns.spec import ColumnType, Spec
from deepsets_jax.data.ingest.columns.tokens import Category, Text, Tokens
from deepsets_jax.data.ingest.files.source import shorten_names
from deepsets_jax.foundation.errors import DataError

LABEL_NAMES = (
  "label", "labels", "target", "targets", "class", "classes", "y",
  "genre", "genres", "tag", "tags", "category",
)  # fmt: skip
# A column with one value, and a smaller share of gaps than this, has no information.
_GAPS = 0.1
# Columns that experiments.extract writes beside a column of vectors.
_BESIDE_VECTORS = (".boxes", ".scores", ".strings")
# Hash a vocabulary of at least `_LARGE` tokens into `_BUCKETS` buckets.
_LARGE, _BUCKETS = 100_000, 65_536
# A label with more distinct whole numbers is a regression, not classes.
_MOST_CLASSES = 100
# Number of random batches for `budget`.
_DRAWS = 400
# More columns of numbers and categories than this become one modality.
_MOST_SCALARS = 24
# Above this share, empty cells of a multi-label in strings mean that no label applies.
_MANY_EMPTY = 0.05


def propose(
  profiles: Sequence[ColumnProfile],
  where: str,
  label: str | None = None,
  group: str | None = None,
) -> tuple[Spec, dict[str, str]]:
  """Propose a spec for a file.

  Args:
    profiles: Profiles of all columns.
    where: Name of the file in messages.
    label: Column to predict; None finds it by name.
    group: Column whose rows of one value stay in one part; None finds it by name.

  Returns:
    The spec, and for each column that it does not use the reason.

  Raises:
    DataError: The file has no such column, no column that looks like a label, or none
      for a modality.
  """
  by_name = {profile.name: profile for profile in profiles}
  for column in (label, group):
    if column is not None and column not in by_name:
      raise DataError(
        f"{where}: no column {column!r}; there are {shorten_names(list(by_name))}"
      )
  chosen = _label(by_name, where, label)
  others = [profile for profile in profiles if profile.name != chosen.column]
  unused = {p.name: why for p in others if (why := roles.reason_to_skip(p))}
  others = [profile for profile in others if profile.name not in unused]
  split, parts = roles.split_column(others, unused)
  if group is None and split is None:
    group = roles.first(p.name for p in others if roles.is_group(p))
  identity = roles.id_column([p for p in others if p.name not in (split, group)])
  marks = {"the id": identity, "the split": split, "the group": group}
  features = [p for p in others if p.name not in {*marks.values(), *unused}]
  modalities = _modalities(features, by_name, unused)
  if not modalities:
    taken = {chosen.column: f"the label ({chosen.kind})"}
    taken |= {name: mark for mark, name in marks.items() if name} | unused
    raise _no_modality(where, taken)
  modalities = merge_scalars(modalities)
  spec = Spec(modalities, chosen, id=identity, split=split, group=group, parts=parts)
  return spec, unused


def _modalities(
  features: Sequence[ColumnProfile],
  by_name: Mapping[str, ColumnProfile],
  unused: dict[str, str],
) -> dict[str, ColumnType]:
  """Return a modality per column; `unused` receives the reasons for the others."""
  modalities: dict[str, ColumnType] = {}
  for profile in features:
    kind = _column_type(profile, by_name)
    if isinstance(kind, str):
      unused[profile.name] = kind
    else:
      modalities[_name(profile.name, modalities)] = kind
  return modalities


def _no_modality(where: str, taken: Mapping[str, str]) -> DataError:
  uses = "; ".join(f"{name}: {use}" for name, use in taken.items())
  return DataError(
    f"{where}: no column but the label can be a modality. Use of the columns: {uses}."
    " Change it with --label or --group, or write the spec by hand and train with"
    " --config=configs/table.py:FILE"
  )


def remarks(profiles: Sequence[ColumnProfile], proposed: Spec) -> list[str]:
  """Return sentences on what the user should check in a proposal."""
  found = []
  by_name = {profile.name: profile for profile in profiles}
  label = by_name[proposed.label.column]
  alike: dict[str, list[str]] = {}
  for word in label.words_seen or ():
    alike.setdefault(word.casefold(), []).append(word)
  for words in alike.values():
    if len(words) > 1 and proposed.label.kind in ("multiclass", "multilabel"):
      shown = ", ".join(f"{w!r} ({label.words_seen[w]:,})" for w in sorted(words))
      found.append(
        f"{label.name}: {shown} differ only in case, and are different classes; write"
        " them alike if they are one class"
      )
  if proposed.split is not None:
    parts = proposed.parts or {}
    values = [f"{part} {', '.join(words)}" for part, words in parts.items()]
    found.append(
      f"{proposed.split}: read as the split"
      + (f' ({"; ".join(values)}); check "parts" in the spec' if values else "")
    )
  if proposed.group is not None:
    profile = by_name[proposed.group]
    values = f"{len(profile.distinct):,} values in {profile.rows:,} rows"
    found.append(
      f"{profile.name}: {values}; rows of one value stay in one part, so that no part"
      ' reveals labels of another ("group")'
    )
  return found


def merge_scalars(modalities: Mapping[str, ColumnType]) -> dict[str, ColumnType]:
  """Merge many columns of numbers and categories into one modality of `Fields`.

  Each modality has its own encoder, whose compilation takes time and memory.
  """
  found = {name: kind for name, kind in modalities.items() if _is_scalar(kind)}
  if len(found) <= _MOST_SCALARS:
    return dict(modalities)
  kinds = found.values()
  fields = Fields(
    number=[k.column for k in kinds if k.kind == "number" and k.scale == "standard"],
    log=[k.column for k in kinds if k.kind == "number" and k.scale == "log"],
    category=[k.column for k in kinds if k.kind == "category"],
  )
  others = {name: kind for name, kind in modalities.items() if name not in found}
  return {_name("fields", others): fields, **others}


def _is_scalar(kind: ColumnType) -> bool:
  """Whether `Fields` can hold the column; hashed categories it cannot."""
  return kind.kind == "number" or (kind.kind == "category" and kind.hash is None)


def element_profile(profile: ColumnProfile, kind: ColumnType) -> ColumnProfile:
  """Return a profile whose sizes count the elements of a column type.

  All words and tokens count, including those that the vocabulary leaves out or merges.
  """
  if kind.kind == "text":
    return profile.as_words()
  if getattr(kind, "separator", None) is not None:
    return profile.as_parts(kind.separator)
  one = kind.kind in ("number", "vector", "category")
  one |= kind.kind == "image" and not cells.is_list(profile.type)
  return profile.as_one() if one else profile


def budget(profile: ColumnProfile, examples: int) -> int:
  """Return the number of slots that suffices for 99 % of random batches.

  It also holds the largest row, and is a multiple of 8.

  Args:
    profile: Profile of a column, see `element_profile`.
    examples: Number of rows per batch.
  """
  sizes = np.array(sorted(profile.sizes))
  shares = np.array([profile.sizes[size] for size in sizes.tolist()]) / profile.rows
  drawn = np.random.default_rng(0).choice(sizes, (_DRAWS, examples), p=shares)
  needed = max(np.quantile(drawn.sum(axis=1), 0.99), profile.max_size, 1)
  return -(-int(np.ceil(needed)) // 8) * 8


def _label(
  by_name: Mapping[str, ColumnProfile], where: str, column: str | None
) -> Label:
  lower = {name.lower(): name for name in by_name}
  column = column or roles.first(lower[name] for name in LABEL_NAMES if name in lower)
  if column is None:
    raise DataError(
      f"{where}: no column is called {', '.join(LABEL_NAMES)}; choose the column to"
      f" predict with --label=COLUMN, one of {shorten_names(list(by_name))}"
    )
  profile = by_name[column]
  missing = "drop" if profile.missing else "error"
  if cells.is_list(profile.type) and cells.is_token(profile.inner):
    if _is_vector(profile):
      return Label(column, "regression", missing=missing)
    return Label(column, "multilabel", missing="drop" if profile.nulls else "error")
  if pa.types.is_string(profile.type):
    if profile.separator is not None:
      if profile.missing > _MANY_EMPTY * profile.rows:
        missing = "none"
      return Label(column, "multilabel", missing=missing, separator=profile.separator)
    return Label(column, "multiclass", missing=missing)
  if not cells.is_number(profile.type):
    raise DataError(
      f"{where}: column {column!r} is {profile.type}, which cannot be a label; possible"
      f" are {[p.name for p in by_name.values() if cells.is_token(p.inner)]}"
    )
  _, least, most, _ = profile.numbers
  if profile.whole and (least, most) == (0, 1):
    return Label(column, "binary", missing=missing)
  if profile.whole and len(profile.distinct) <= _MOST_CLASSES:
    return Label(column, "multiclass", missing=missing)
  return Label(column, "regression", missing=missing)


def _is_vector(profile: ColumnProfile) -> bool:
  """Whether the numbers of lists are measurements, rather than names of things."""
  if not cells.is_number(profile.inner) or not profile.numbers[0]:
    return False
  _, least, most, _ = profile.numbers
  measures = pa.types.is_floating(profile.inner) or (least, most) == (0, 1)
  return not profile.whole or (
    measures and len(profile.widths) == 1 and max(profile.widths) > 1
  )


def _has_one_width(profile: ColumnProfile) -> bool:
  return len(profile.widths) == 1 and max(profile.widths) > 1


def _column_type(
  profile: ColumnProfile, by_name: Mapping[str, ColumnProfile]
) -> ColumnType | str:
  """Return the column type of a modality, or why the column cannot be one."""
  name = profile.name
  for end in _BESIDE_VECTORS:
    if name.endswith(end) and name.removesuffix(end) in by_name:
      return f"it describes {name.removesuffix(end)!r}"
  if not profile.present:
    return "it is empty"
  beside = by_name.get(f"{name.removesuffix('.path')}.bytes")
  there = beside is not None and beside.present and pa.types.is_binary(beside.type)
  if name.endswith(".path") and there:
    return f"it names the images of {beside.name!r}"
  if ImageColumn.accepts(profile.type) and not pa.types.is_string(profile.inner):
    return ImageColumn(name)
  if profile.is_many:
    return _joined_type(profile)
  if cells.is_list(profile.type):
    return _list_type(profile)
  if pa.types.is_string(profile.type):
    return _string_type(profile)
  if not cells.is_number(profile.type):
    return _unknown_type(profile)
  if _is_constant(profile):
    return _CONSTANT
  if roles.numbers_rows(profile):
    return "it numbers the rows"
  if pa.types.is_boolean(profile.type):
    return Category(name)
  if profile.whole and roles.is_id_name(name):
    return Category(name, hash=_hash(profile))
  return Scalar(name, scale=_scale(profile))


_CONSTANT = "it has the same value in every row that has one"


def _unknown_type(profile: ColumnProfile) -> str:
  return f"no kind of modality can hold {profile.type}"


def _is_constant(profile: ColumnProfile) -> bool:
  gaps = profile.missing <= _GAPS * profile.rows
  return len(profile.distinct) == 1 and gaps and profile.rows > 1


def _joined_type(profile: ColumnProfile) -> ColumnType | str:
  """Return the column type for a column of a joined table, with an element per row."""
  name, inner = profile.name, profile.inner
  if cells.is_list(inner) and cells.is_number(inner.value_type):
    if len(profile.widths) == 1:
      return VectorList(name)
    return (
      f"its lists of numbers are of different lengths: {sorted(profile.widths)[:5]}"
    )
  if profile.different > 0.9 and profile.counted > 20:
    keys = pa.types.is_string(inner) and profile.looks_like_keys
    if keys or (profile.whole and roles.is_id_name(name)):
      return "nearly every row of its table has another value"
  if pa.types.is_string(inner):
    return _list_type(profile)
  if not cells.is_number(inner):
    return _unknown_type(profile)
  if len(profile.distinct) == 1:
    return _CONSTANT
  if pa.types.is_boolean(inner) or (profile.whole and roles.is_id_name(name)):
    return Tokens(name, hash=_hash(profile))
  return ScalarList(name, scale=_scale(profile))


def _list_type(profile: ColumnProfile) -> ColumnType | str:
  name, inner = profile.name, profile.inner
  if cells.is_list(inner) and cells.is_number(inner.value_type):
    return VectorList(name)
  if pa.types.is_string(inner) and profile.looks_like_images:
    return ImageColumn(name)
  if pa.types.is_string(inner):
    return (
      Text(name) if profile.looks_like_sentences else Tokens(name, hash=_hash(profile))
    )
  if not cells.is_number(inner):
    return _unknown_type(profile)
  if _has_one_width(profile):
    return Vector(name)
  if profile.whole and pa.types.is_integer(inner):
    return Tokens(name, hash=_hash(profile))
  return ScalarList(name, scale=_scale(profile))


def _string_type(profile: ColumnProfile) -> ColumnType | str:
  name = profile.name
  if profile.looks_like_images:
    return ImageColumn(name, separator=profile.image_separator)
  if profile.separator is not None:
    return Tokens(name, separator=profile.separator, hash=_hash(profile))
  if _is_constant(profile):
    return _CONSTANT
  if profile.mean_size >= 4 or (profile.mean_size >= 1.5 and profile.different > 0.5):
    return Text(name)
  if profile.different > 0.9 and profile.present > 20:
    if profile.looks_like_keys:
      return "nearly every row has another value"
    return Text(name)
  return Category(name, hash=_hash(profile))


def _scale(profile: ColumnProfile) -> str:
  """Return "log" for heavy tails, else "standard"."""
  count, least, most, total = profile.numbers
  return "log" if least >= 0 and most > 30 * total / count else "standard"


def _hash(profile: ColumnProfile) -> int | None:
  large = min(_LARGE, MOST_DISTINCT)
  return _BUCKETS if len(profile.distinct) >= large else None


def _name(column: str, taken: Iterable[str]) -> str:
  """Return a name of letters, digits and "_", with a number if it is taken."""
  name = re.sub(r"\W+", "_", column).strip("_") or "column"
  numbered = (f"{name}_{number}" for number in itertools.count(2))
  return next(n for n in itertools.chain([name], numbered) if n not in taken)
