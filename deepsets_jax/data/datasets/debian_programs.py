"""Debian programs: the purpose of a program, from seven modalities, often missing.

7,453 programs of Debian's package index with 74 labels, the tags that people gave them
(debtags). A missing tag is not always a true negative. The file beside this module is
written by `tools.build_debian_programs`. The descriptions in it come from the packages,
under their free licences.
"""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from ml_collections import ConfigDict, config_dict

from deepsets_jax.data.datasets import sentences as sentence_file
from deepsets_jax.data.datasets.entry import DatasetEntry
from deepsets_jax.data.ingest.columns import tfidf
from deepsets_jax.data.tables import parquet
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.data.tables.table import Table, take_elements, take_rows
from deepsets_jax.foundation.errors import ConfigError, DataError
from deepsets_jax.ragged import Ragged, from_lengths

PATH = pathlib.Path(__file__).with_name("debian_programs.parquet")
FORMAT = "deepsets_jax debian programs 2"

# Shares at which the shuffled source packages are cut into three splits.
_CUTS = (0.7, 0.8)
_TEXTS = ("summary", "description")
_FORMS = ("words", "bag", "sentences")


class _Terms(NamedTuple):
  """One token modality: for each program, its ids into `lexicon`."""

  tokens: Ragged
  lexicon: np.ndarray


class _Vocabulary(NamedTuple):
  """The ids of a lexicon that form the vocabulary, `[v]`, and their idf, `[v]`."""

  ids: np.ndarray
  idf: np.ndarray


def load_debian_programs(
  seed: int,
  *,
  min_document_frequency: int = 2,
  text: str = "words",
  sentences: str | None = None,
) -> dict[str, Table]:
  """Loads the tables "train", "validation" and "test": 70, 10 and 20 % of the sources.

  Modalities: the words of the one-line `summary`; those of the whole `description`,
  which begins with it; the packages that a program `depends` on, `recommends` and
  `suggests`; the parts of its `name` with the character 3- and 4-grams; and its `size`,
  the standardised log(1 + kB). The weighted sum of a program's tokens is its sublinear
  TF-IDF vector of length 1. Vocabularies and statistics come from the training split
  only; tokens outside the vocabulary are left out.

  Args:
    seed: Seed of the split.
    min_document_frequency: Training programs per token of the vocabulary, at least.
    text: "words" in their order, one element per occurrence; "bag", one element with
      the whole weight per distinct word, so that the sum is the same; "sentences", one
      modality instead of summary and description, with a vector per sentence, in order.
    sentences: File with the vectors of the sentences, by `tools.encode_sentences`.

  Raises:
    DataError: A file is missing, damaged or lacks a program, or no token is frequent.
    ConfigError: An unknown form of the text, or a missing or impossible setting.
  """
  if text not in _FORMS:
    raise ConfigError(
      f"unknown config.data.debian_programs.text {text!r}; one of {sorted(_FORMS)}"
    )
  programs, splits = rows_of_splits(seed)
  train = splits["train"]
  modalities, kinds = {}, {}
  if text == "sentences":
    modalities["sentences"] = vectors = _sentences(sentences, programs)
    kinds["sentences"] = Modality("vectors", vectors.values.shape[1], ordered=True)
  terms = _terms(programs)
  for name in [name for name in terms if text != "sentences" or name not in _TEXTS]:
    vocabulary = _vocabulary(name, terms[name], train, min_document_frequency)
    ordered = text == "words" and name in _TEXTS
    modalities[name] = _tfidf(terms[name], vocabulary, keep_places=ordered)
    size = len(vocabulary.ids)
    kinds[name] = Modality("tokens", size, weighted=True, ordered=ordered)
  modalities["size"] = _size(programs["size_kb"], train)
  kinds["size"] = Modality("vectors", 1)
  targets, labels = _targets(programs["labels"])
  schema = Schema(kinds, Target("multilabel", len(labels), labels))
  table = Table(schema, modalities, targets, ids=_strings(programs["package"]))
  return {split: table.select(rows) for split, rows in splits.items()}


def packages() -> list[str]:
  """Returns the names of the programs, in the order of the embedded file.

  Raises:
    DataError: The file is missing or damaged.
  """
  return _read()["package"].to_pylist()


def rows_of_splits(seed: int) -> tuple[pa.Table, dict[str, np.ndarray]]:
  """Returns the embedded file, and {split: its rows}, as `load_debian_programs` uses.

  Raises:
    DataError: The file is missing or damaged.
  """
  programs = _read()
  return programs, _split(_strings(programs["source"]), seed)


def vocabularies(
  seed: int, *, min_document_frequency: int = 2
) -> dict[str, tuple[str, ...]]:
  """Returns {modality: the string of every token id} for the tables of these arguments.

  In the modality `name`, "<" and ">" mark the ends of the name, and a whole part of it
  begins with "=".
  """
  programs, splits = rows_of_splits(seed)
  train = splits["train"]
  found = {}
  for name, terms in _terms(programs).items():
    vocabulary = _vocabulary(name, terms, train, min_document_frequency)
    found[name] = tuple(terms.lexicon[vocabulary.ids].tolist())
  return found


def _read() -> pa.Table:
  advice = (
    "restore it, or rebuild it with python -m tools.build_debian_programs"
    f" --input=INDEX --output={PATH}"
  )
  return parquet.read_parquet(PATH, FORMAT, advice)


def _split(sources: np.ndarray, seed: int) -> dict[str, np.ndarray]:
  """{split: its rows}. Programs of one source package are alike and stay together."""
  unique, source = np.unique(sources, return_inverse=True)
  # Shuffling the positions of the sorted sources is shuffling the sources.
  order = np.random.default_rng(seed).permutation(len(unique))
  cuts = [int(cut * len(unique)) for cut in _CUTS]
  part = np.zeros(len(unique), np.int8)
  part[order[cuts[0] :]] = 1
  part[order[cuts[1] :]] = 2
  names = ("train", "validation", "test")
  return {name: np.flatnonzero(part[source] == i) for i, name in enumerate(names)}


def _terms(programs: pa.Table) -> dict[str, _Terms]:
  """{modality: its terms}, in the order of the schema."""
  names = (*_TEXTS, "depends", "recommends", "suggests")
  terms = {name: _list_terms(programs[name]) for name in names}
  lists = pa.array([_name_terms(name) for name in programs["package"].to_pylist()])
  encoded = lists.flatten().dictionary_encode()
  lists = pa.ListArray.from_arrays(lists.offsets, encoded)
  terms["name"] = _list_terms(pa.chunked_array([lists]))
  return terms


def _list_terms(column: pa.ChunkedArray) -> _Terms:
  """The elements of a column of lists of dictionary-encoded strings."""
  lists = column.combine_chunks()
  elements = lists.flatten()
  tokens = from_lengths(elements.indices.to_numpy(), lists.value_lengths().to_numpy())
  return _Terms(tokens, _strings(elements.dictionary))


def _name_terms(name: str) -> list[str]:
  """The set of a name's 3- and 4-grams, with its ends, and its parts, as "=part"."""
  marked = f"<{name}>"
  grams = {
    marked[start : start + size]
    for size in (3, 4)
    for start in range(len(marked) - size + 1)
  }
  return sorted(grams | {f"={part}" for part in name.split("-")})


def _sentences(path: str | None, programs: pa.Table) -> Ragged:
  """The vectors of the sentences of each program, `[n, d]` float32, in order."""
  if path is None:
    raise ConfigError(
      "config.data.debian_programs.sentences is not set and .text is 'sentences': give"
      " the file that python -m tools.encode_sentences wrote"
    )
  packages = programs["package"].to_pylist()
  names, vectors = sentence_file.read_sentences(path)
  rows = {name: row for row, name in enumerate(names)}
  missing = [name for name in packages if name not in rows]
  if missing:
    raise DataError(
      f"{path} lacks the sentences of {len(missing)} of {len(packages)} programs, the"
      f" first {missing[0]!r}; write it again with python -m tools.encode_sentences"
    )
  vectors = take_rows(vectors, np.array([rows[name] for name in packages]))
  return vectors.replace(values=vectors.values.astype(np.float32))


def _vocabulary(
  name: str, terms: _Terms, train: np.ndarray, min_document_frequency: int
) -> _Vocabulary:
  """The terms that occur in enough training programs, with their smoothed idf."""
  if min_document_frequency < 1:
    raise ConfigError(
      f"min_document_frequency {min_document_frequency}: expected at least 1; a token"
      " that is in no training program cannot be learned"
    )
  tokens = take_rows(terms.tokens, train)
  frequency = tfidf.document_frequency(tokens, len(terms.lexicon))
  ids = np.flatnonzero(frequency >= min_document_frequency)
  if not len(ids):
    raise DataError(
      f"debian_programs, modality {name!r}: no token is in {min_document_frequency}"
      f" training programs, the most frequent is in {frequency.max()}; lower"
      " min_document_frequency"
    )
  return _Vocabulary(ids, tfidf.inverse_frequency(frequency[ids], len(train)))


def _tfidf(terms: _Terms, vocabulary: _Vocabulary, keep_places: bool) -> Ragged:
  """The tokens of the vocabulary, as ids into it, with TF-IDF weights."""
  new_ids = np.full(len(terms.lexicon), -1, np.int32)
  new_ids[vocabulary.ids] = np.arange(len(vocabulary.ids))
  tokens = terms.tokens.replace(values=new_ids[terms.tokens.values])
  tokens = take_elements(tokens, tokens.values >= 0)
  return tfidf.weigh(tokens, vocabulary.idf, keep_places=keep_places)


def _size(column: pa.ChunkedArray, train: np.ndarray) -> Ragged:
  """The standardised log(1 + kB), `[n, 1]`; no element for an unknown size."""
  logs = np.log1p(column.cast(pa.float64()).to_numpy())
  known = np.isfinite(logs)
  in_train = logs[train][known[train]]
  values = (logs[known] - in_train.mean()) / in_train.std()
  return from_lengths(values[:, None].astype(np.float32), known.astype(np.int64))


def _targets(column: pa.ChunkedArray) -> tuple[np.ndarray, tuple[str, ...]]:
  """The targets, `[b, k]` of 0 and 1, and the labels in alphabetical order."""
  terms = _list_terms(column)
  order = np.argsort(terms.lexicon)
  rank = np.argsort(order)
  targets = np.zeros((terms.tokens.num_examples, len(order)), np.float32)
  rows = np.repeat(np.arange(len(targets)), terms.tokens.lengths)
  targets[rows, rank[terms.tokens.values]] = 1
  return targets, tuple(terms.lexicon[order].tolist())


def _strings(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
  return np.array(column.to_pylist(), np.str_)


def _element_names(config: ConfigDict, seed: int) -> dict[str, tuple[str, ...]]:
  own = config.debian_programs
  found = vocabularies(seed, min_document_frequency=own.min_document_frequency)
  left_out = _TEXTS if own.text == "sentences" else ()
  return {name: words for name, words in found.items() if name not in left_out}


SETTINGS = config_dict.create(
  # Training programs that a token must occur in to be in the vocabulary.
  min_document_frequency=2,
  # Summary and description as "words" in their order, a "bag" of distinct words, or
  # the vectors of their "sentences".
  text="bag",
  # The file that tools.encode_sentences wrote; needed for text="sentences".
  sentences=config_dict.placeholder(str),
)

ENTRY = DatasetEntry(
  settings=SETTINGS,
  load_tables=lambda config, seed: load_debian_programs(seed, **config.debian_programs),
  element_names=_element_names,
)
