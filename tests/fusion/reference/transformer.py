"""Transformer blocks on one example in numpy, and the fusions made of them."""

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
  """The tanh form of GELU, as in Flax."""
  return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def head_of(params, head, x):
  return x @ params["kernel"][:, head] + params["bias"][head]


def attention_weights(params, queries, keys):
  """The attention weights of one example, `[h, n, m]`."""
  heads = []
  for head in range(params["query"]["kernel"].shape[1]):
    q, k = head_of(params["query"], head, queries), head_of(params["key"], head, keys)
    logits = q @ k.T / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True, initial=-np.inf))
    heads.append(weights / weights.sum(-1, keepdims=True))
  return np.stack(heads)


def attention(params, queries, keys):
  """The attended values of all heads, concatenated and projected: `[n, d]`."""
  weights = attention_weights(params, queries, keys)
  heads = [w @ head_of(params["value"], h, keys) for h, w in enumerate(weights)]
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


def rollout(params, x):
  """The rollout matrix of a `Transformer`: rows are outputs, columns are inputs."""
  matrix = np.eye(len(x))
  for index in range(sum(name.startswith("block") for name in params)):
    layer = params[f"block_{index}"]
    normed = norm(layer["LayerNorm_0"], x)
    weights = attention_weights(layer["MultiHeadAttention_0"], normed, normed)
    matrix = (matrix + weights.mean(0) @ matrix) / 2
    x = block(layer, x)
  return matrix


def evenly(total, count):
  return np.full(count, total / max(count, 1))


def two_stage_attention(params, sets, pool, readout):
  """The weights of one example's elements, from all tokens equally."""
  del readout
  names = [name for name, elements in sorted(sets.items()) if len(elements)]
  tokens = [getattr(sets[k], pool)(axis=0) + params[f"code_{k}"][0] for k in names]
  if not names:
    return {name: np.zeros(0) for name in sets}
  mean = rollout(params["transformer"], np.array(tokens)).mean(axis=0)
  of = dict(zip(names, mean, strict=True))
  return {name: evenly(of.get(name, 0), len(v)) for name, v in sets.items()}


def single_stream_attention(params, sets, fused, readout, pools):
  """The weights of one example's elements, from all rows read equally."""
  del pools
  tokens, elements, owners, rows = [], [], [], []
  for name, values in sorted(sets.items()):
    code = params[f"code_{name}"][0]
    elements += list(values + code)
    rows += [name] * len(values)
    if len(values) and fused:
      pooled = getattr(values, fused)(axis=0)
      tokens.append(pooled + code + params["fused_token"][0])
      owners.append(name)
  stream = np.array(tokens + elements).reshape(-1, FEATURES)
  if not len(stream):
    return {name: np.zeros(0) for name in sets}
  matrix, count = rollout(params["transformer"], stream), len(tokens)
  read = {"fused": slice(count), "elements": slice(count, None), "all": slice(None)}
  mean = matrix[read[readout]].mean(axis=0)
  weights = {}
  for name, values in sets.items():
    own = mean[count:][[row == name for row in rows]]
    of_token = mean[:count][[owner == name for owner in owners]].sum()
    weights[name] = own + evenly(of_token, len(values))
  return weights


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


TWO_STAGE = dict(pool="mean", readout=("mean", "max"))
OF_TOKENS = dict(fused="max", readout="fused", pools=("mean",))
OF_ALL = dict(fused=None, readout="all", pools=("sum",))

FUSIONS = {
  "two stage": _two_stage(**TWO_STAGE),
  "single stream, fused": _single_stream(**OF_TOKENS),
  "single stream, all": _single_stream(layers=2, **OF_ALL),
}
ATTENTION = {
  "two stage": functools.partial(two_stage_attention, **TWO_STAGE),
  "single stream, fused": functools.partial(single_stream_attention, **OF_TOKENS),
  "single stream, all": functools.partial(single_stream_attention, **OF_ALL),
}
