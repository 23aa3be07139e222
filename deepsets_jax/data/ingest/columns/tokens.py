"""Columns of strings as modalities of tokens, with a vocabulary of the training part.

A vocabulary is either the tokens that enough training examples have, or a number of
buckets that tokens fall into by a hash, which needs no list of them.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepsets_jax.data.ingest.columns import cells, tfidf
from deepsets_jax.data.tables.schema import Modality
from deepsets_jax.data.tables.table import take_elements
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged, from_lengths, offsets_from_lengths

UNKNOWN = "<unknown>"

# Scripts without spaces between words: each of their characters is a word.
_UNSPACED = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Khmer}\p{Lao}\p{Myanmar}])"
_BETWEEN_WORDS = r"[^\pL\pM\pN]+"


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """What tokens there are, fitted on the training part.

  Attributes:
    words: The string of every id; None of buckets.
    buckets: Number of buckets; None of words.
    unknown: The id of what is not among the words; None to leave it out.
    idf: Of each id; None of tokens without weights.
  """

  words: Sequence[str] | None = None
  buckets: int | None = None
  unknown: int | None = None
  idf: Sequence[float] | None = None

  @property
  def size(self) -> int:
    """Number of ids."""
    return self.buckets or len(self.words)

  def to_json(self) -> dict[str, Any]:
    """Of plain values."""
    return dataclasses.asdict(self)

  def ids(self, strings: Sequence[str]) -> np.ndarray:
    """The id of each string, `[n]` int32; -1 for one that is left out."""
    if self.buckets is not None:
      return _buckets(strings, self.buckets)
    unknown = -1 if self.unknown is None else self.unknown
    return np.array([self._index.get(s, unknown) for s in strings], np.int32)

  @functools.cached_property
  def _index(self) -> dict[str, int]:
    return {word: index for index, word in enumerate(self.words)}


@dataclasses.dataclass(frozen=True)
class Category(cells.OneColumn):
  """A string, a whole number or a boolean, or none: one token.

  Attributes:
    column: Its name in the file.
    min_count: Training examples that a token must be in to be in the vocabulary.
    hash: Number of buckets instead of a vocabulary; None for a vocabulary.
    unknown: What is not in the vocabulary is "one" token, the same for all, learned
      from the rare ones of the training part; or it is "left_out".
  """

  column: str
  min_count: int = 2
  hash: int | None = None
  unknown: str = "one"

  kind: ClassVar[str] = "category"
  takes: ClassVar[str] = "a string, a whole number or a boolean"
  # Whether tokens weigh by TF-IDF, and whether their order is kept.
  weights: ClassVar[str] = "none"
  ordered: ClassVar[bool] = False

  def __post_init__(self):
    if self.min_count < 1:
      raise ConfigError(f"min_count {self.min_count}: expected at least 1")
    if self.hash is not None and self.hash < 1:
      raise ConfigError(f"hash {self.hash}: expected at least 1 bucket, or null")
    if self.unknown not in ("one", "left_out"):
      raise ConfigError(f"unknown {self.unknown!r}: expected 'one' or 'left_out'")
    if self.weights not in ("tfidf", "none"):
      raise ConfigError(f"weights {self.weights!r}: expected 'tfidf' or 'none'")

  @staticmethod
  def accepts(kind: pa.DataType) -> bool:
    """Whether a column of this type can be read so."""
    return cells.is_token(kind)

  def found(self, column: pa.Array) -> cells.Elements:
    """The tokens, an Arrow array of strings."""
    return cells.strings(column)

  def fitting(self) -> _TokenFitting:
    """What takes in the training part."""
    return _TokenFitting(self)

  @staticmethod
  def restore(value: Mapping[str, Any]) -> Vocabulary:
    """What was fitted, from its plain values."""
    return Vocabulary(**value)

  def modality(self, fitted: Vocabulary) -> Modality:
    """What an element is."""
    weighted = self.weights == "tfidf"
    return Modality("tokens", fitted.size, weighted=weighted, ordered=self.ordered)

  def encode(self, column: pa.Array, fitted: Vocabulary) -> Ragged:
    """The tokens of some cells, `[n]` int32, with weights if they have them.

    Raises:
      CellError: What is there cannot be a token.
    """
    strings, lengths = self.found(column)
    encoded = strings.dictionary_encode()
    ids = fitted.ids(encoded.dictionary.to_pylist())
    values = ids[encoded.indices.to_numpy(zero_copy_only=False)]
    tokens = from_lengths(values, lengths)
    if (values < 0).any():
      tokens = take_elements(tokens, values >= 0)
    if self.weights == "none":
      return tokens
    return tfidf.weigh(tokens, np.asarray(fitted.idf), keep_places=self.ordered)


@dataclasses.dataclass(frozen=True)
class Tokens(Category):
  """A list of strings, whole numbers or booleans, each a token.

  Attributes:
    weights: "tfidf" weighs a token by how rare it is and how often it stands there,
      and takes each once, in no order; "none" leaves them as they are.
    ordered: Whether their order is kept, and told to encoders of sequences.
    separator: Of the tokens in a string, where the column is one of strings.
  """

  weights: str = "tfidf"
  ordered: bool = False
  separator: str | None = None

  kind = "tokens"
  takes = "a list of strings or whole numbers, or strings with a separator"

  @staticmethod
  def accepts(kind: pa.DataType) -> bool:
    """Whether a column of this type can be read so."""
    return cells.is_token(kind) or (
      cells.is_list(kind) and cells.is_token(kind.value_type)
    )

  def found(self, column: pa.Array) -> cells.Elements:
    """The tokens, an Arrow array of strings."""
    return cells.strings(column, self.separator)


@dataclasses.dataclass(frozen=True)
class Text(Category):
  """A string, or a list of them, each of its words a token.

  A word is a run of letters and digits, in small letters; of scripts that are written
  without spaces it is a character.

  Attributes:
    weights, ordered: As in `Tokens`.
  """

  unknown: str = "left_out"
  weights: str = "tfidf"
  ordered: bool = False

  kind = "text"
  takes = "a string, or a list of strings"

  @staticmethod
  def accepts(kind: pa.DataType) -> bool:
    """Whether a column of this type can be read so."""
    inner = kind.value_type if cells.is_list(kind) else kind
    return pa.types.is_string(inner) or pa.types.is_null(inner)

  def found(self, column: pa.Array) -> cells.Elements:
    """The words, an Arrow array of strings."""
    if not cells.is_list(column.type):
      return _words(column)
    texts, per_cell = cells.elements_of(column)
    words, per_text = _words(texts)
    ends = offsets_from_lengths(per_text)[offsets_from_lengths(per_cell)]
    return cells.Elements(words, np.diff(ends))


def _words(column: pa.Array) -> cells.Elements:
  """The words of strings."""
  text = pc.utf8_lower(pc.fill_null(column.cast(pa.string()), ""))
  text = pc.replace_substring_regex(text, _UNSPACED, r" \1 ")
  return cells.strings(pc.split_pattern_regex(text, _BETWEEN_WORDS))


class _TokenFitting:
  """Takes in columns of the training part: in how many examples each token is."""

  def __init__(self, kind: Category):
    self._kind, self._examples = kind, 0
    self._frequency: collections.Counter[str] = collections.Counter()
    # Of the buckets; the examples with a token that is not in the vocabulary are known
    # only once that is.
    self._buckets = np.zeros(kind.hash or 0, np.int64)

  def add(self, column: pa.Array) -> None:
    """Takes in some cells."""
    self._examples += len(column)
    strings, lengths = self._kind.found(column)
    encoded = strings.dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    values = encoded.indices.to_numpy(zero_copy_only=False)
    if self._kind.hash is not None:
      values = _buckets(distinct, self._kind.hash)[values]
      tokens = from_lengths(values, lengths)
      self._buckets += tfidf.document_frequency(tokens, self._kind.hash)
    elif distinct:
      tokens = from_lengths(values, lengths)
      counts = tfidf.document_frequency(tokens, len(distinct)).tolist()
      for token, count in zip(distinct, counts, strict=True):
        self._frequency[token] += count

  def merge(self, other: _TokenFitting) -> None:
    """Takes in what another has."""
    self._examples += other._examples
    self._frequency.update(other._frequency)
    self._buckets += other._buckets

  @property
  def has_values(self) -> bool:
    """Whether there was a token."""
    return bool(self._frequency) or bool(self._buckets.any())

  def result(self) -> Vocabulary:
    """What was fitted.

    Raises:
      ConfigError: There was no token, or none often enough.
    """
    if self._kind.hash is None:
      found, frequency = self._vocabulary()
    else:
      found, frequency = Vocabulary(buckets=self._kind.hash), self._buckets
    if not frequency.any():
      raise ConfigError("no training example has a value in it")
    if self._kind.weights == "none":
      return found
    idf = tfidf.inverse_frequency(frequency, self._examples)
    return dataclasses.replace(found, idf=np.round(idf, 6).tolist())

  def _vocabulary(self) -> tuple[Vocabulary, np.ndarray]:
    ranked = sorted(self._frequency.items(), key=lambda item: (-item[1], item[0]))
    words = [word for word, count in ranked if count >= self._kind.min_count]
    counts = [count for _, count in ranked]
    if self._kind.unknown == "one":
      # The examples with a rare token are at most so many.
      rare = min(sum(counts[len(words) :]), self._examples)
      frequency = np.array([rare, *counts[: len(words)]])
      return Vocabulary([UNKNOWN, *words], unknown=0), frequency
    if ranked and not words:
      word, count = ranked[0]
      raise ConfigError(
        f"no token is in {self._kind.min_count} training examples, the most frequent,"
        f" {word[:60]!r}, is in {count}: lower min_count"
      )
    return Vocabulary(words), np.array(counts[: len(words)])


def _buckets(strings: Sequence[str], size: int) -> np.ndarray:
  """The bucket of each string: CRC-32, the same on every machine."""
  return np.array([zlib.crc32(s.encode()) % size for s in strings], np.int32)
