"""A spec for a file that nobody has said anything about yet.

It goes by types, by the names of columns, and by what is in them. A person reads it and
corrects it.
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
# A column with one value, and fewer gaps than this share, says nothing.
_GAPS = 0.1
# Columns that experiments.extract writes beside a column of vectors.
_BESIDE_VECTORS = (".boxes", ".scores", ".strings")
# A vocabulary above this is hashed into so many buckets.
_LARGE, _BUCKETS = 100_000, 65_536
# Above so many different whole numbers a label is a number, not a class.
_MOST_CLASSES = 100
_DRAWS = 400
# Above so many columns of numbers and categories they become one modality.
_MOST_SCALARS = 24
# Above this share, empty cells of a multi-label in strings mean none of the labels.
_MANY_EMPTY = 0.05


def propose(
  facts: Sequence[ColumnProfile],
  where: str,
  label: str | None = None,
  group: str | None = None,
) -> tuple[Spec, dict[str, str]]:
  """A spec, and of every column that it does not use why not.

  Args:
    facts: Of all columns.
    where: What to call the file in a message.
    label: Column to predict; None for one whose name says so.
    group: Column whose rows of one value stay in one part.

  Raises:
    DataError: No such column, none that looks like a label, or none for a modality.
  """
  by_name = {fact.name: fact for fact in facts}
  for column in (label, group):
    if column is not None and column not in by_name:
      raise DataError(
        f"{where}: no column {column!r}; there are {shorten_names(list(by_name))}"
      )
  chosen = _label(by_name, where, label)
  unused = {f.name: roles.reason_to_skip(f) for f in facts if f.name != chosen.column}
  unused = {name: reason for name, reason in unused.items() if reason}
  others = [f for f in facts if f.name != chosen.column and f.name not in unused]
  split, parts = roles.split_column(others, unused)
  if group is None and split is None:
    group = roles.first(f.name for f in others if roles.is_group(f))
  marks = {chosen.column, split, group}
  identity = roles.id_column([fact for fact in others if fact.name not in marks])
  modalities: dict[str, ColumnType] = {}
  for fact in others:
    if fact.name in {*marks, identity, *unused}:
      continue
    kind = _kind(fact, by_name)
    if isinstance(kind, str):
      unused[fact.name] = kind
    else:
      modalities[_name(fact.name, modalities)] = kind
  if not modalities:
    taken = {chosen.column: f"the label ({chosen.kind})"}
    marked = {"the id": identity, "the split": split, "the group": group}
    taken |= {name: mark for mark, name in marked.items() if name} | unused
    raise DataError(
      f"{where}: no column beside the label can be a modality. Columns were taken for:"
      f" {'; '.join(f'{name}: {what}' for name, what in taken.items())}. Say otherwise"
      " with --label or --group, or write the spec by hand and give it to"
      " --config=configs/table.py:FILE"
    )
  return Spec(
    gathered(modalities), chosen, id=identity, split=split, group=group, parts=parts
  ), unused


def remarks(facts: Sequence[ColumnProfile], proposed: Spec) -> list[str]:
  """Sentences on what a person should look at in a proposal."""
  found = []
  by_name = {fact.name: fact for fact in facts}
  label = by_name[proposed.label.column]
  alike: dict[str, list[str]] = {}
  for word in label.words_seen or ():
    alike.setdefault(word.casefold(), []).append(word)
  for words in alike.values():
    if len(words) > 1 and proposed.label.kind in ("multiclass", "multilabel"):
      shown = ", ".join(f"{w!r} ({label.words_seen[w]:,})" for w in sorted(words))
      found.append(
        f"{label.name}: {shown} differ only in case, and are classes of their own;"
        " write them alike if they are one"
      )
  if proposed.split is not None:
    parts = proposed.parts or {}
    values = [f"{part} {', '.join(words)}" for part, words in parts.items()]
    found.append(
      f"{proposed.split}: read as the split"
      + (f' ({"; ".join(values)}): correct "parts" in the spec' if values else "")
    )
  if proposed.group is not None:
    fact = by_name[proposed.group]
    found.append(
      f"{fact.name}: {len(fact.distinct):,} values in {fact.rows:,} rows; rows of one"
      ' value stay in one part, or a part would show the answers of another ("group")'
    )
  return found


def gathered(modalities: Mapping[str, ColumnType]) -> dict[str, ColumnType]:
  """The modalities, with many columns of numbers and categories as one.

  Each modality has an encoder of its own, whose compilation takes time and memory.
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
  """Whether it can be one of `Fields`; categories in buckets cannot."""
  return kind.kind == "number" or (kind.kind == "category" and kind.hash is None)


def elements(facts: ColumnProfile, kind: ColumnType) -> ColumnProfile:
  """The facts of a column whose parts are counted as the elements of its kind.

  Of words and tokens these are all; those that are left out or repeat make none.
  """
  if kind.kind == "text":
    return facts.as_words()
  if getattr(kind, "separator", None) is not None:
    return facts.as_parts(kind.separator)
  one = kind.kind in ("number", "vector", "category")
  one |= kind.kind == "image" and not cells.is_list(facts.type)
  return facts.as_one() if one else facts


def budget(facts: ColumnProfile, examples: int) -> int:
  """Slots that 99 % of random batches of so many rows need, and the largest row.

  Args:
    facts: Of a column, see `elements`.
    examples: Rows of a batch.
  """
  sizes = np.array(sorted(facts.sizes))
  shares = np.array([facts.sizes[size] for size in sizes.tolist()]) / facts.rows
  drawn = np.random.default_rng(0).choice(sizes, (_DRAWS, examples), p=shares)
  needed = max(np.quantile(drawn.sum(axis=1), 0.99), facts.max_size, 1)
  return -(-int(np.ceil(needed)) // 8) * 8


def _label(
  by_name: Mapping[str, ColumnProfile], where: str, column: str | None
) -> Label:
  lower = {name.lower(): name for name in by_name}
  column = column or roles.first(lower[name] for name in LABEL_NAMES if name in lower)
  if column is None:
    raise DataError(
      f"{where}: no column is called {', '.join(LABEL_NAMES)}; say which is to be"
      f" predicted with --label=COLUMN, one of {shorten_names(list(by_name))}"
    )
  fact = by_name[column]
  missing = "drop" if fact.missing else "error"
  if cells.is_list(fact.type) and cells.is_token(fact.inner):
    if _is_vector(fact):
      return Label(column, "regression", missing=missing)
    return Label(column, "multilabel", missing="drop" if fact.nulls else "error")
  if pa.types.is_string(fact.type):
    if fact.separator is not None:
      if fact.missing > _MANY_EMPTY * fact.rows:
        missing = "none"
      return Label(column, "multilabel", missing=missing, separator=fact.separator)
    return Label(column, "multiclass", missing=missing)
  if not cells.is_number(fact.type):
    raise DataError(
      f"{where}: column {column!r} is {fact.type}, which cannot be a label; one of"
      f" {[f.name for f in by_name.values() if cells.is_token(f.inner)]} could"
    )
  _, least, most, _ = fact.numbers
  if fact.whole and (least, most) == (0, 1):
    return Label(column, "binary", missing=missing)
  if fact.whole and len(fact.distinct) <= _MOST_CLASSES:
    return Label(column, "multiclass", missing=missing)
  return Label(column, "regression", missing=missing)


def _is_vector(fact: ColumnProfile) -> bool:
  """Whether lists are of numbers that measure something, rather than name it."""
  if not cells.is_number(fact.inner) or not fact.numbers[0]:
    return False
  _, least, most, _ = fact.numbers
  measures = pa.types.is_floating(fact.inner) or (least, most) == (0, 1)
  return not fact.whole or (measures and len(fact.widths) == 1 and max(fact.widths) > 1)


def _kind(
  fact: ColumnProfile, by_name: Mapping[str, ColumnProfile]
) -> ColumnType | str:
  """How a column is a modality, or why it is none."""
  name = fact.name
  for end in _BESIDE_VECTORS:
    if name.endswith(end) and name.removesuffix(end) in by_name:
      return f"tells of {name.removesuffix(end)!r}"
  if not fact.present:
    return "there is nothing in it"
  beside = by_name.get(f"{name.removesuffix('.path')}.bytes")
  there = beside is not None and beside.present and pa.types.is_binary(beside.type)
  if name.endswith(".path") and there:
    return f"names the pictures of {beside.name!r}"
  if ImageColumn.accepts(fact.type) and not pa.types.is_string(fact.inner):
    return ImageColumn(name)
  if fact.is_many:
    return _of_many(fact)
  if cells.is_list(fact.type):
    return _list(fact)
  if pa.types.is_string(fact.type):
    return _string(fact)
  if not cells.is_number(fact.type):
    return f"no kind takes {fact.type}"
  if _is_constant(fact):
    return "it is the same in every row that has it"
  if roles.numbers_rows(fact):
    return "it numbers the rows"
  if pa.types.is_boolean(fact.type):
    return Category(name)
  if fact.whole and roles.is_id_name(name):
    return Category(name, hash=_hash(fact))
  return Scalar(name, scale=_scale(fact))


def _is_constant(fact: ColumnProfile) -> bool:
  gaps = fact.missing <= _GAPS * fact.rows
  return len(fact.distinct) == 1 and gaps and fact.rows > 1


def _of_many(fact: ColumnProfile) -> ColumnType | str:
  """How a column of another table is a modality, each of its rows an element."""
  name, inner = fact.name, fact.inner
  if cells.is_list(inner) and cells.is_number(inner.value_type):
    if len(fact.widths) == 1:
      return VectorList(name)
    return f"its lists of numbers are of different lengths: {sorted(fact.widths)[:5]}"
  if fact.different > 0.9 and fact.counted > 20:
    keys = pa.types.is_string(inner) and fact.looks_like_keys
    if keys or (fact.whole and roles.is_id_name(name)):
      return "nearly every row of its table has another value"
  if pa.types.is_string(inner):
    return _list(fact)
  if not cells.is_number(inner):
    return f"no kind takes {fact.type}"
  if len(fact.distinct) == 1:
    return "it is the same in every row that has it"
  if pa.types.is_boolean(inner) or (fact.whole and roles.is_id_name(name)):
    return Tokens(name, hash=_hash(fact))
  return ScalarList(name, scale=_scale(fact))


def _list(fact: ColumnProfile) -> ColumnType | str:
  name, inner = fact.name, fact.inner
  if cells.is_list(inner) and cells.is_number(inner.value_type):
    return VectorList(name)
  if pa.types.is_string(inner) and fact.looks_like_pictures:
    return ImageColumn(name)
  if pa.types.is_string(inner):
    return Text(name) if fact.looks_like_sentences else Tokens(name, hash=_hash(fact))
  if not cells.is_number(inner):
    return f"no kind takes {fact.type}"
  if len(fact.widths) == 1 and max(fact.widths) > 1:
    return Vector(name)
  if fact.whole and pa.types.is_integer(inner):
    return Tokens(name, hash=_hash(fact))
  return ScalarList(name, scale=_scale(fact))


def _string(fact: ColumnProfile) -> ColumnType | str:
  name = fact.name
  if fact.looks_like_pictures:
    return ImageColumn(name, separator=fact.picture_separator)
  if fact.separator is not None:
    return Tokens(name, separator=fact.separator, hash=_hash(fact))
  if _is_constant(fact):
    return "it is the same in every row that has it"
  if fact.mean_size >= 4 or (fact.mean_size >= 1.5 and fact.different > 0.5):
    return Text(name)
  if fact.different > 0.9 and fact.present > 20:
    if fact.looks_like_keys:
      return "nearly every row has another value"
    return Text(name)
  return Category(name, hash=_hash(fact))


def _scale(fact: ColumnProfile) -> str:
  """Of heavy tails the logarithm."""
  count, least, most, total = fact.numbers
  return "log" if least >= 0 and most > 30 * total / count else "standard"


def _hash(fact: ColumnProfile) -> int | None:
  large = min(_LARGE, MOST_DISTINCT)
  return _BUCKETS if len(fact.distinct) >= large else None


def _name(column: str, taken: Iterable[str]) -> str:
  """The column's name with "_" for what is no letter, and a number if it is taken."""
  name = re.sub(r"\W+", "_", column).strip("_") or "column"
  numbered = (f"{name}_{number}" for number in itertools.count(2))
  return next(n for n in itertools.chain([name], numbered) if n not in taken)
