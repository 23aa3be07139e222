"""A spec for a file that nobody has said anything about yet.

It goes by types, by the names of columns, and by what is in them. A person reads it and
corrects it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from deepsets_jax.data.columns import cells
from deepsets_jax.data.columns.facts import MOST_DISTINCT, Facts
from deepsets_jax.data.columns.images import Image
from deepsets_jax.data.columns.labels import Label
from deepsets_jax.data.columns.numeric import Number, Numbers, Vector, Vectors
from deepsets_jax.data.columns.spec import Kind, Spec, shortened
from deepsets_jax.data.columns.survey import SPLIT_WORDS
from deepsets_jax.data.columns.tokens import Category, Text, Tokens
from deepsets_jax.data.table import DataError

_LABEL_NAMES = (
  "label", "labels", "target", "targets", "class", "classes", "y",
  "genre", "genres", "tag", "tags", "category",
)  # fmt: skip
_SPLIT_NAMES = ("split", "fold", "part", "subset", "set")
# Columns that experiments.extract writes beside a column of vectors.
_BESIDE_VECTORS = (".boxes", ".scores", ".strings")
# A vocabulary above this is hashed into so many buckets.
_LARGE, _BUCKETS = 100_000, 65_536
# Above so many different whole numbers a label is a number, not a class.
_MOST_CLASSES = 100
_DRAWS = 400


def propose(
  facts: Sequence[Facts], where: str, label: str | None = None, group: str | None = None
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
        f"{where}: no column {column!r}; there are {shortened(list(by_name))}"
      )
  chosen = _label(by_name, where, label)
  split = _first(f.name for f in facts if _is_split(f))
  marks = {chosen.column, split, group}
  identity = _id([fact for fact in facts if fact.name not in marks])
  modalities: dict[str, Kind] = {}
  unused: dict[str, str] = {}
  for fact in facts:
    if fact.name in marks or fact.name == identity:
      continue
    kind = _kind(fact, by_name)
    if isinstance(kind, str):
      unused[fact.name] = kind
    else:
      modalities[_name(fact.name, modalities)] = kind
  if not modalities:
    raise DataError(
      f"{where}: no column beside the label can be a modality: {unused}; give a file"
      " with numbers, strings, or lists of them"
    )
  return Spec(modalities, chosen, id=identity, split=split, group=group), unused


def elements(facts: Facts, kind: Kind) -> Facts:
  """The facts of a column whose parts are counted as the elements of its kind.

  Of words and tokens these are all; those that are left out or repeat make none.
  """
  if kind.kind == "text":
    return facts.as_words()
  one = kind.kind in ("number", "vector", "category", "image")
  return facts.as_one() if one else facts


def budget(facts: Facts, examples: int) -> int:
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


def _label(by_name: Mapping[str, Facts], where: str, column: str | None) -> Label:
  lower = {name.lower(): name for name in by_name}
  column = column or _first(lower[name] for name in _LABEL_NAMES if name in lower)
  if column is None:
    raise DataError(
      f"{where}: no column is called {', '.join(_LABEL_NAMES)}; say which is to be"
      f" predicted with --label=COLUMN, one of {shortened(list(by_name))}"
    )
  fact = by_name[column]
  missing = "drop" if fact.missing else "error"
  if cells.is_list(fact.type) and cells.is_token(fact.inner):
    if _is_vector(fact):
      return Label(column, "regression", missing=missing)
    return Label(column, "multilabel", missing="drop" if fact.nulls else "error")
  if pa.types.is_string(fact.type):
    if fact.separator is not None:
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


def _is_vector(fact: Facts) -> bool:
  """Whether lists are of numbers that measure something, rather than name it."""
  if not cells.is_number(fact.inner) or not fact.numbers[0]:
    return False
  _, least, most, _ = fact.numbers
  measures = pa.types.is_floating(fact.inner) or (least, most) == (0, 1)
  return not fact.whole or (measures and len(fact.widths) == 1 and max(fact.widths) > 1)


def _is_split(fact: Facts) -> bool:
  words = {word.strip().lower() for word in fact.sample}
  return (
    fact.name.lower() in _SPLIT_NAMES
    and pa.types.is_string(fact.type)
    and "train" in {w[:5] for w in words}
    and words <= set(SPLIT_WORDS)
  )


def _id(facts: Sequence[Facts]) -> str | None:
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
  named = [fact.name for fact in able if _is_id(fact.name)]
  words = [f.name for f in able if pa.types.is_string(f.type) and f.looks_like_keys]
  return _first([*named, *words])


def _is_id(name: str) -> bool:
  return re.search(r"(^|_)(id|uid|uuid|key|index)$", name.lower()) is not None


def _kind(fact: Facts, by_name: Mapping[str, Facts]) -> Kind | str:
  """How a column is a modality, or why it is none."""
  name = fact.name
  for end in _BESIDE_VECTORS:
    if name.endswith(end) and name.removesuffix(end) in by_name:
      return f"tells of {name.removesuffix(end)!r}"
  if not fact.present:
    return "there is nothing in it"
  if pa.types.is_binary(fact.type):
    return Image(name)
  if cells.is_list(fact.type):
    return _list(fact)
  if pa.types.is_string(fact.type):
    return _string(fact)
  if not cells.is_number(fact.type):
    return f"no kind takes {fact.type}"
  if _is_constant(fact):
    return "it is the same in every row"
  if _numbers_rows(fact):
    return "it numbers the rows"
  if pa.types.is_boolean(fact.type):
    return Category(name)
  if fact.whole and _is_id(name):
    return Category(name, hash=_hash(fact))
  return Number(name, scale=_scale(fact))


def _is_constant(fact: Facts) -> bool:
  return len(fact.distinct) == 1 and not fact.missing and fact.rows > 1


def _numbers_rows(fact: Facts) -> bool:
  """Whether it counts from 0 or 1, as an index that was written with the table does."""
  _, least, most, _ = fact.numbers
  counts = fact.unique and fact.whole and pa.types.is_integer(fact.type)
  return counts and least in (0, 1) and most - least + 1 == fact.rows > 1


def _list(fact: Facts) -> Kind | str:
  name, inner = fact.name, fact.inner
  if cells.is_list(inner) and cells.is_number(inner.value_type):
    return Vectors(name)
  if pa.types.is_string(inner):
    return Text(name) if fact.looks_like_sentences else Tokens(name, hash=_hash(fact))
  if not cells.is_number(inner):
    return f"no kind takes {fact.type}"
  if len(fact.widths) == 1 and max(fact.widths) > 1:
    return Vector(name)
  if fact.whole and pa.types.is_integer(inner):
    return Tokens(name, hash=_hash(fact))
  return Numbers(name, scale=_scale(fact))


def _string(fact: Facts) -> Kind | str:
  name = fact.name
  if fact.looks_like_pictures:
    return Image(name)
  if fact.separator is not None:
    return Tokens(name, separator=fact.separator, hash=_hash(fact))
  if _is_constant(fact):
    return "it is the same in every row"
  if fact.mean_size >= 4 or (fact.mean_size >= 1.5 and fact.different > 0.5):
    return Text(name)
  if fact.different > 0.9 and fact.present > 20:
    return "nearly every row has another value"
  return Category(name, hash=_hash(fact))


def _scale(fact: Facts) -> str:
  """Of heavy tails the logarithm."""
  count, least, most, total = fact.numbers
  return "log" if least >= 0 and most > 30 * total / count else "standard"


def _hash(fact: Facts) -> int | None:
  large = min(_LARGE, MOST_DISTINCT)
  return _BUCKETS if len(fact.distinct) >= large else None


def _name(column: str, taken: Iterable[str]) -> str:
  """The column's name with "_" for what is no letter, and a number if it is taken."""
  name = re.sub(r"\W+", "_", column).strip("_") or "column"
  names = [name, *(f"{name}_{number}" for number in range(2, 10_000))]
  return next(n for n in names if n not in taken)


def _first(names: Iterable[str]) -> str | None:
  return next(iter(names), None)
