"""torchmultimodal's fusions, mended, by a loop over examples."""

import functools

import numpy as np

from deepsets_jax import fusion
from tests.sets import FEATURES, NAMES

POOLS = {
  "mean": lambda x: x.mean(axis=0),
  "sum": lambda x: x.sum(axis=0),
  "max": lambda x: x.max(axis=0),
  "median": lambda x: np.sort(x, axis=0)[(len(x) - 1) // 2],
}


def dense(params, x):
  return x @ params["kernel"] + params["bias"]


def softmax(scores):
  weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
  return weights / weights.sum(axis=-1, keepdims=True)


def scaled(x, p, axis):
  norms = (np.abs(x) ** p).sum(axis=axis, keepdims=True) ** (1 / p)
  return x / np.where(norms > 0, norms, 1)


def layer_norm(params, x):
  x = x - x.mean(axis=-1, keepdims=True)
  x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)
  return x * params["scale"] + params["bias"]


def transformer(params, x):
  """One layer and the last norm, of `[m, d]`: a head at a time."""
  query, key, value, out = (
    params[f"layer_0_attention_{part}"] for part in ("query", "key", "value", "out")
  )
  y = np.zeros_like(x) + out["bias"]
  for head, kernel in enumerate(out["kernel"]):
    q, k, v = (
      x @ part["kernel"][:, head] + part["bias"][head] for part in (query, key, value)
    )
    y = y + softmax(q @ k.T / np.sqrt(q.shape[-1])) @ v @ kernel
  x = layer_norm(params["layer_0_attention_norm"], x + y)
  hidden = np.maximum(dense(params["layer_0_hidden"], x), 0)
  x = layer_norm(params["layer_0_out_norm"], x + dense(params["layer_0_out"], hidden))
  return layer_norm(params["norm"], x)


def deepset_loop(
  params,
  sets,
  element_pool="mean",
  pool="mean",
  apply_attention=False,
  modality_normalize=False,
  norm_factor=2.0,
  auto_mapping=False,
  hidden=(),
  **others,
):
  """Of one example: a vector per present modality, scaled, weighed, pooled."""
  vectors = {k: POOLS[element_pool](v) for k, v in sorted(sets.items()) if len(v)}
  if not vectors:
    return np.zeros(hidden[-1] if hidden else FEATURES)
  if auto_mapping:
    for name, vector in vectors.items():
      vectors[name] = dense(params["fusion"][f"projection_{name}"], vector)
  x = np.stack(list(vectors.values()))
  x = scaled(x, norm_factor, axis=0 if modality_normalize else 1)
  if apply_attention:
    scores = params["deepset"]["attention"]
    x = x * softmax(dense(scores["score"], np.tanh(dense(scores["hidden"], x))).T).T
  if others.get("kind") == "deepset_transformer":
    x = transformer(params["transformer"], x)
  x = POOLS[pool](x)
  for index in range(len(hidden)):
    x = np.maximum(dense(params["MLP_0"][f"Dense_{index}"], x), 0)
  return x


def attention_loop(params, sets, kind, projection_dim):
  """Of one example: projections weighted by the softmax over present modalities."""
  present = [name for name in sorted(NAMES) if len(sets.get(name, ()))]
  x = np.zeros((len(NAMES), FEATURES))
  for index, name in enumerate(sorted(NAMES)):
    if name in present:
      x[index] = sets[name].mean(axis=0)
  if not present:
    return np.zeros(projection_dim)
  scores = dense(params["fusion"]["attention"], x.reshape(-1))
  rows = [sorted(NAMES).index(name) for name in present]
  weights = softmax(scores[rows])
  projected = [
    dense(params["fusion"][f"projection_{name}"], x[row])
    for name, row in zip(present, rows, strict=True)
  ]
  return weights @ np.stack(projected)


def _fusion(loop, **arguments):
  module = fusion.TorchMultimodalFusion(NAMES, FEATURES, **arguments)
  return module, functools.partial(loop, **arguments)


FUSIONS = {
  "torchmultimodal, deepset": _fusion(
    deepset_loop, pool="median", apply_attention=True, auto_mapping=True
  ),
  "torchmultimodal, transformer": _fusion(
    deepset_loop,
    kind="deepset_transformer",
    element_pool="median",
    pool="sum",
    modality_normalize=True,
    norm_factor=3.0,
    heads=3,
    ffn=4,
    hidden=(4,),
  ),
  "torchmultimodal, attention": _fusion(
    attention_loop, kind="attention", projection_dim=2
  ),
}
