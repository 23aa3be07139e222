"""A spec for a file that nobody has said anything about yet.

It goes by types, by the names of columns, and by what is in them. A person reads it and
corrects it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from deepsets_jax.data.columns import cells
from deepsets_jax.data.columns.facts import MOST_DISTINCT, Facts
from deepsets_jax.data.columns.fields import Fields
from deepsets_jax.data.columns.images import Image
from deepsets_jax.data.columns.labels import Label
from deepsets_jax.data.columns.numeric import Number, Numbers, Vector, Vectors
from deepsets_jax.data.columns.spec import Kind, Spec, shortened
from deepsets_jax.data.columns.tokens import Category, Text, Tokens
from deepsets_jax.data.files.paths import PART_WORDS
from deepsets_jax.data.files.reading import Reading
from deepsets_jax.data.files.source import Source
from deepsets_jax.data.table import DataError

LABEL_NAMES = (
  "label", "labels", "target", "targets", "class", "classes", "y",
  "genre", "genres", "tag", "tags", "category",
)  # fmt: skip
_SPLIT_NAMES = ("split", "fold", "part", "partition", "subset", "set")
# Names of columns of 0 and 1 that say of each row whether it is of a part.
_IS_PART = r"(?:is_?)?(train|training|test|testing|holdout|valid|validation|val|dev)"
# As pandas calls an index that it writes.
_INDEX = r"Unnamed: \d+|__index_level_\d+__|level_0"
_COUNTS = ("index", "idx", "row", "rownum", "row_number", "row_id", "row_index")
_GROUPS = (
  r"(?:.*_)?(?:group|user|patient|subject|participant|customer|client|session|household"
  r"|family|person|speaker|writer|device)(?:_?(?:id|name|no|number))?"
)
_FEWEST_GROUPS = 10
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
  unused = {f.name: _useless(f) for f in facts if f.name != chosen.column}
  unused = {name: reason for name, reason in unused.items() if reason}
  others = [f for f in facts if f.name != chosen.column and f.name not in unused]
  split, parts = _split(others, unused)
  if group is None and split is None:
    group = _first(f.name for f in others if _is_group(f))
  marks = {chosen.column, split, group}
  identity = _id([fact for fact in others if fact.name not in marks])
  modalities: dict[str, Kind] = {}
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


def remarks(facts: Sequence[Facts], proposed: Spec) -> list[str]:
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


def with_reading(proposed: Spec, source: Source, given: Reading) -> Spec:
  """The spec with the formats of the columns that it reads.

  Args:
    proposed: The spec so far.
    source: The table, opened.
    given: What the command line says of how the files are read.
  """
  known = getattr(source, "formats", {})
  used = {name: known[name] for name in proposed.columns if name in known}
  many = {}
  for name, one in proposed.many.items():
    table = source.tables[name]
    columns = {
      column: form
      for column, form in table.formats.items()
      if f"{name}.{column}" in proposed.columns or column in (one.key, one.order)
    }
    many[name] = dataclasses.replace(one, columns=columns)
  reading = dataclasses.replace(given, columns=used)
  return dataclasses.replace(proposed, reading=reading, many=many)


def gathered(modalities: Mapping[str, Kind]) -> dict[str, Kind]:
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


def _is_scalar(kind: Kind) -> bool:
  """Whether it can be one of `Fields`; categories in buckets cannot."""
  return kind.kind == "number" or (kind.kind == "category" and kind.hash is None)


def elements(facts: Facts, kind: Kind) -> Facts:
  """The facts of a column whose parts are counted as the elements of its kind.

  Of words and tokens these are all; those that are left out or repeat make none.
  """
  if kind.kind == "text":
    return facts.as_words()
  if getattr(kind, "separator", None) is not None:
    return facts.as_parts(kind.separator)
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
  column = column or _first(lower[name] for name in LABEL_NAMES if name in lower)
  if column is None:
    raise DataError(
      f"{where}: no column is called {', '.join(LABEL_NAMES)}; say which is to be"
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


def _is_vector(fact: Facts) -> bool:
  """Whether lists are of numbers that measure something, rather than name it."""
  if not cells.is_number(fact.inner) or not fact.numbers[0]:
    return False
  _, least, most, _ = fact.numbers
  measures = pa.types.is_floating(fact.inner) or (least, most) == (0, 1)
  return not fact.whole or (measures and len(fact.widths) == 1 and max(fact.widths) > 1)


def _useless(fact: Facts) -> str:
  """Why a column must not be read, whatever its kind; "" if it may be."""
  name = fact.name.strip().lower()
  if re.fullmatch(_INDEX, fact.name):
    return "it is an index of the rows, as pandas writes one"
  if name in _COUNTS and _numbers_rows(fact):
    return "it numbers the rows"
  if fact.is_ambiguous:
    return "day or month first? say --dates=dmy or --dates=mdy"
  return ""


def _split(
  facts: Sequence[Facts], unused: dict[str, str]
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


def _is_group(fact: Facts) -> bool:
  """Whether rows of one value are of one person or thing."""
  return (
    re.fullmatch(_GROUPS, fact.name.lower()) is not None
    and cells.is_token(fact.type)
    and fact.whole
    and not fact.missing
    and _FEWEST_GROUPS <= len(fact.distinct) <= 0.6 * fact.rows
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
  if fact.is_many:
    return _of_many(fact)
  if pa.types.is_binary(fact.type):
    return Image(name)
  if cells.is_list(fact.type):
    return _list(fact)
  if pa.types.is_string(fact.type):
    return _string(fact)
  if not cells.is_number(fact.type):
    return f"no kind takes {fact.type}"
  if _is_constant(fact):
    return "it is the same in every row that has it"
  if _numbers_rows(fact):
    return "it numbers the rows"
  if pa.types.is_boolean(fact.type):
    return Category(name)
  if fact.whole and _is_id(name):
    return Category(name, hash=_hash(fact))
  return Number(name, scale=_scale(fact))


def _is_constant(fact: Facts) -> bool:
  gaps = fact.missing <= _GAPS * fact.rows
  return len(fact.distinct) == 1 and gaps and fact.rows > 1


def _numbers_rows(fact: Facts) -> bool:
  """Whether it counts from 0 or 1, as an index that was written with the table does."""
  _, least, most, _ = fact.numbers
  counts = fact.unique and fact.whole and pa.types.is_integer(fact.type)
  return counts and least in (0, 1) and most - least + 1 == fact.rows > 1


def _of_many(fact: Facts) -> Kind | str:
  """How a column of another table is a modality, each of its rows an element."""
  name, inner = fact.name, fact.inner
  if cells.is_list(inner) and cells.is_number(inner.value_type):
    if len(fact.widths) == 1:
      return Vectors(name)
    return f"its lists of numbers are of different lengths: {sorted(fact.widths)[:5]}"
  if pa.types.is_string(inner):
    return _list(fact)
  if not cells.is_number(inner):
    return f"no kind takes {fact.type}"
  if len(fact.distinct) == 1:
    return "it is the same in every row that has it"
  if pa.types.is_boolean(inner) or (fact.whole and _is_id(name)):
    return Tokens(name, hash=_hash(fact))
  return Numbers(name, scale=_scale(fact))


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
    return "it is the same in every row that has it"
  if fact.mean_size >= 4 or (fact.mean_size >= 1.5 and fact.different > 0.5):
    return Text(name)
  if fact.different > 0.9 and fact.present > 20:
    if fact.looks_like_keys:
      return "nearly every row has another value"
    return Text(name)
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
