"""Transformer blocks on one example in numpy, and the fusions that are made of them."""

import functools

import numpy as np

from deepsets_jax import fusion
from tests.sets import FEATURES, NAMES

HEADS = 3


def dense(params, x):
  return x @ params["kernel"] + params["bias"]


def norm(params, x):
  centred = x - x.mean(-1, keepdims=True)
  scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
  return scaled * params["scale"] + params["bias"]


def gelu(x):
  """Of the tanh form, as Flax's."""
  return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attention(params, queries, keys):
  """All heads of one example, one after the other: `[n, d]`."""
  heads = []
  for head in range(params["query"]["kernel"].shape[1]):
    q, k, v = (
      x @ params[name]["kernel"][:, head] + params[name]["bias"][head]
      for name, x in (("query", queries), ("key", keys), ("value", keys))
    )
    logits = q @ k.T / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    heads.append(weights / weights.sum(-1, keepdims=True) @ v)
  return dense(params["Dense_0"], np.concatenate(heads, axis=-1))


def block(params, x):
  normed = norm(params["LayerNorm_0"], x)
  x = x + attention(params["MultiHeadAttention_0"], normed, normed)
  feed = params["FeedForward_0"]
  hidden = gelu(dense(feed["Dense_0"], norm(params["LayerNorm_1"], x)))
  return x + dense(feed["Dense_1"], hidden)


def transformer(params, x):
  """A `Transformer` on the elements `[n, d]` of one example."""
  if not len(x):
    return x
  for index in range(sum(name.startswith("block") for name in params)):
    x = block(params[f"block_{index}"], x)
  return norm(params["norm"], x)


def two_stage_loop(params, sets, pool, readout):
  vectors = [
    getattr(elements, pool)(axis=0) + params[f"code_{name}"][0]
    for name, elements in sorted(sets.items())
    if len(elements)
  ]
  tokens = transformer(params["transformer"], np.array(vectors).reshape(-1, FEATURES))
  if not len(tokens):
    return np.zeros(FEATURES * len(readout))
  return np.concatenate([getattr(tokens, name)(axis=0) for name in readout])


def single_stream_loop(params, sets, fused, readout, pools):
  tokens, elements = [], []
  for name, values in sorted(sets.items()):
    code = params[f"code_{name}"][0]
    elements += list(values + code)
    if len(values) and fused:
      pooled = getattr(values, fused)(axis=0)
      tokens.append(pooled + code + params["fused_token"][0])
  stream = np.array(tokens + elements).reshape(-1, FEATURES)
  stream = transformer(params["transformer"], stream)
  if readout != "all":
    count = len(tokens)
    stream = stream[:count] if readout == "fused" else stream[count:]
  if not len(stream):
    return np.zeros(FEATURES * len(pools))
  return np.concatenate([getattr(stream, name)(axis=0) for name in pools])


def _two_stage(**settings):
  module = fusion.TwoStageFusion(NAMES, FEATURES, heads=HEADS, hidden=5, **settings)
  return module, functools.partial(two_stage_loop, **settings)


def _single_stream(layers=1, **settings):
  module = fusion.SingleStreamFusion(
    NAMES, FEATURES, layers=layers, heads=HEADS, hidden=5, **settings
  )
  return module, functools.partial(single_stream_loop, **settings)


FUSIONS = {
  "two stage": _two_stage(pool="mean", readout=("mean", "max")),
  "single stream, fused": _single_stream(fused="max", readout="fused", pools=("mean",)),
  "single stream, all": _single_stream(
    layers=2, fused=None, readout="all", pools=("sum",)
  ),
}
