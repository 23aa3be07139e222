"""Read columns of strings as modalities of tokens.

A vocabulary holds the tokens that enough training examples have, or hashes all tokens
into a number of buckets, which needs no list of tokens.
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

# In scripts without spaces between words, each character is a word.
_UNSPACED = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Khmer}\p{Lao}\p{Myanmar}])"
_BETWEEN_WORDS = r"[^\pL\pM\pN]+"


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """The vocabulary of a column, from the training part.

  Attributes:
    words: The string of each id; None with buckets.
    buckets: Number of hash buckets; None with words.
    unknown: Id of tokens that are not in `words`; None leaves them out.
    idf: Inverse document frequency of each id; None for tokens without weights.
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
    """Return the state as values of JSON."""
    return dataclasses.asdict(self)

  def ids(self, strings: Sequence[str]) -> np.ndarray:
    """Return the id of each string, `[n]` int32; -1 for those left out."""
    if self.buckets is not None:
      return _buckets(strings, self.buckets)
    unknown = -1 if self.unknown is None else self.unknown
    return np.array([self._index.get(s, unknown) for s in strings], np.int32)

  @functools.cached_property
  def _index(self) -> dict[str, int]:
    return {word: index for index, word in enumerate(self.words)}


@dataclasses.dataclass(frozen=True)
class Category(cells.OneColumn):
  """At most one token per cell: a string, a whole number or a boolean.

  Attributes:
    column: Name of the column in the file.
    min_count: Minimum number of training examples for a token to be in the vocabulary.
    hash: Number of hash buckets; None for a vocabulary of words.
    unknown: Tokens that are not in the vocabulary become "one" shared token, learned
      from the rare tokens of the training part, or are "left_out".
  """

  column: str
  min_count: int = 2
  hash: int | None = None
  unknown: str = "one"

  kind: ClassVar[str] = "category"
  takes: ClassVar[str] = "a string, a whole number or a boolean"
  # Weights of the tokens ("tfidf" or "none"), and whether their order is kept.
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
    """Whether columns of this Arrow type can be read as this column type."""
    return cells.is_token(kind)

  def tokens(self, column: pa.Array) -> cells.Elements:
    """Return the tokens, an Arrow array of strings."""
    return cells.strings(column)

  def fitting(self) -> _TokenFitting:
    """Return an object that fits the state on the training part."""
    return _TokenFitting(self)

  @staticmethod
  def restore(value: Mapping[str, Any]) -> Vocabulary:
    """Restore the state from values of JSON."""
    return Vocabulary(**value)

  def modality(self, fitted: Vocabulary) -> Modality:
    """Return the schema of the modality."""
    weighted = self.weights == "tfidf"
    return Modality("tokens", fitted.size, weighted=weighted, ordered=self.ordered)

  def encode(self, column: pa.Array, fitted: Vocabulary) -> Ragged:
    """Encode cells as token ids, `[n]` int32, with weights if the type has them.

    Raises:
      CellError: A value cannot be a token.
    """
    strings, lengths = self.tokens(column)
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
  """A list of tokens per cell: strings, whole numbers or booleans.

  Attributes:
    weights: "tfidf" keeps each token once, without order, weighted by its rarity and
      its count in the cell; "none" keeps all tokens, without weights.
    ordered: Whether to keep the order of tokens, for encoders of sequences.
    separator: Text between the tokens in a string, for a column of strings.
  """

  weights: str = "tfidf"
  ordered: bool = False
  separator: str | None = None

  kind = "tokens"
  takes = "a list of strings or whole numbers, or strings with a separator"

  @staticmethod
  def accepts(kind: pa.DataType) -> bool:
    """Whether columns of this Arrow type can be read as this column type."""
    return cells.is_token(kind) or (
      cells.is_list(kind) and cells.is_token(kind.value_type)
    )

  def tokens(self, column: pa.Array) -> cells.Elements:
    """Return the tokens, an Arrow array of strings."""
    return cells.strings(column, self.separator)


@dataclasses.dataclass(frozen=True)
class Text(Category):
  """A string or a list of strings per cell, with a token per word.

  A word is a run of letters and digits, in lower case. In scripts that are written
  without spaces, each character is a word.

  Attributes:
    weights, ordered: See `Tokens`.
  """

  unknown: str = "left_out"
  weights: str = "tfidf"
  ordered: bool = False

  kind = "text"
  takes = "a string, or a list of strings"

  @staticmethod
  def accepts(kind: pa.DataType) -> bool:
    """Whether columns of this Arrow type can be read as this column type."""
    inner = kind.value_type if cells.is_list(kind) else kind
    return pa.types.is_string(inner) or pa.types.is_null(inner)

  def tokens(self, column: pa.Array) -> cells.Elements:
    """Return the words, an Arrow array of strings."""
    if not cells.is_list(column.type):
      return _words(column)
    texts, per_cell = cells.elements_of(column)
    words, per_text = _words(texts)
    ends = offsets_from_lengths(per_text)[offsets_from_lengths(per_cell)]
    return cells.Elements(words, np.diff(ends))


def _words(column: pa.Array) -> cells.Elements:
  """Split strings into words."""
  text = pc.utf8_lower(pc.fill_null(column.cast(pa.string()), ""))
  text = pc.replace_substring_regex(text, _UNSPACED, r" \1 ")
  return cells.strings(pc.split_pattern_regex(text, _BETWEEN_WORDS))


class _TokenFitting:
  """Counts the training examples of each token, and fits the vocabulary."""

  def __init__(self, kind: Category):
    self._kind, self._examples = kind, 0
    self._frequency: collections.Counter[str] = collections.Counter()
    # Number of examples per bucket.
    self._buckets = np.zeros(kind.hash or 0, np.int64)

  def add(self, column: pa.Array) -> None:
    """Add some cells."""
    self._examples += len(column)
    strings, lengths = self._kind.tokens(column)
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
    """Merge the fitting of other rows."""
    self._examples += other._examples
    self._frequency.update(other._frequency)
    self._buckets += other._buckets

  @property
  def has_values(self) -> bool:
    """Whether any cell had a token."""
    return bool(self._frequency) or bool(self._buckets.any())

  def result(self) -> Vocabulary:
    """Return the vocabulary.

    Raises:
      ConfigError: There was no token, or none in `min_count` examples.
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
      # An upper bound: an example with several rare tokens is counted several times.
      rare = min(sum(counts[len(words) :]), self._examples)
      frequency = np.array([rare, *counts[: len(words)]])
      return Vocabulary([UNKNOWN, *words], unknown=0), frequency
    if ranked and not words:
      word, count = ranked[0]
      raise ConfigError(
        f"no token is in {self._kind.min_count} training examples, and the most"
        f" frequent, {word[:60]!r}, is in {count}; lower min_count"
      )
    return Vocabulary(words), np.array(counts[: len(words)])


def _buckets(strings: Sequence[str], size: int) -> np.ndarray:
  """Return the bucket of each string by CRC-32, which all machines agree on."""
  return np.array([zlib.crc32(s.encode()) % size for s in strings], np.int32)
