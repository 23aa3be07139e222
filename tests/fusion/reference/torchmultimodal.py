"""The corrected fusions of torchmultimodal by a loop over examples."""

import functools

import numpy as np

from deepsets_jax import fusion
from tests.fusion.reference.mil import mil_weights
from tests.fusion.reference.transformer import dense
from tests.sets import FEATURES, NAMES

POOLS = {
  "mean": lambda x: x.mean(axis=0),
  "sum": lambda x: x.sum(axis=0),
  "max": lambda x: x.max(axis=0),
  "median": lambda x: np.sort(x, axis=0)[(len(x) - 1) // 2],
}


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
  """One layer and the last norm on `[m, d]`, head by head."""
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


def deepset_rows(
  params,
  sets,
  element_pool="mean",
  modality_normalize=False,
  norm_factor=2.0,
  auto_mapping=False,
  **others,
):
  """The scaled vectors `[m, d]` of the modalities present in one example."""
  del others
  vectors = {k: POOLS[element_pool](v) for k, v in sorted(sets.items()) if len(v)}
  if auto_mapping:
    for name, vector in vectors.items():
      vectors[name] = dense(params["fusion"][f"projection_{name}"], vector)
  x = np.stack(list(vectors.values()))
  return scaled(x, norm_factor, axis=0 if modality_normalize else 1)


def deepset_weights(params, x):
  return mil_weights(params["deepset"]["attention"], x)


def deepset_loop(params, sets, pool="mean", apply_attention=False, hidden=(), **others):
  """The fused vector of one example: vectors scaled, weighted, and pooled."""
  if not any(map(len, sets.values())):
    return np.zeros(hidden[-1] if hidden else FEATURES)
  x = deepset_rows(params, sets, **others)
  if apply_attention:
    x = x * deepset_weights(params, x)[:, None]
  if others.get("kind") == "deepset_transformer":
    x = transformer(params["transformer"], x)
  x = POOLS[pool](x)
  for index in range(len(hidden)):
    x = np.maximum(dense(params["MLP_0"][f"Dense_{index}"], x), 0)
  return x


def channel_weights(params, sets):
  """The vector and the weight of each modality present in one example."""
  present = [name for name in sorted(NAMES) if len(sets.get(name, ()))]
  x = np.zeros((len(NAMES), FEATURES))
  for index, name in enumerate(sorted(NAMES)):
    if name in present:
      x[index] = sets[name].mean(axis=0)
  if not present:
    return {}
  scores = dense(params["fusion"]["attention"], x.reshape(-1))
  rows = [sorted(NAMES).index(name) for name in present]
  return dict(
    zip(present, zip(x[rows], softmax(scores[rows]), strict=True), strict=True)
  )


def attention_loop(params, sets, kind, projection_dim):
  """The fused vector of one example: weighted projections of present modalities."""
  total = np.zeros(projection_dim)
  for name, (vector, weight) in channel_weights(params, sets).items():
    total += weight * dense(params["fusion"][f"projection_{name}"], vector)
  return total


def channel_attention(params, sets):
  """The weights of one example's elements: equal parts of their modality's."""
  weights = channel_weights(params, sets)
  return {
    k: np.full(len(v), weights[k][1] / len(v)) if len(v) else np.zeros(0)
    for k, v in sets.items()
  }


def deepset_attention(params, sets, **settings):
  """The same weights in a deepset."""
  names = [name for name in sorted(sets) if len(sets[name])]
  weights = {name: np.zeros(0) for name in sets}
  if names:
    shares = deepset_weights(params, deepset_rows(params, sets, **settings))
    for name, share in zip(names, shares, strict=True):
      weights[name] = np.full(len(sets[name]), share / len(sets[name]))
  return weights


def _fusion(loop, **arguments):
  module = fusion.TorchMultimodalFusion(NAMES, FEATURES, **arguments)
  return module, functools.partial(loop, **arguments)


ATTENTION = {
  "torchmultimodal, deepset": functools.partial(deepset_attention, auto_mapping=True),
  "torchmultimodal, attention": channel_attention,
}
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
