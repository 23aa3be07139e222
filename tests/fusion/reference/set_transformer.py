"""The Set Transformer by a loop over examples."""

import functools

import numpy as np

from deepsets_jax import fusion
from tests.fusion.reference.transformer import (
  attention,
  attention_weights,
  dense,
  gelu,
  norm,
)
from tests.sets import FEATURES, NAMES


def feed(params, x):
  return dense(params["Dense_1"], gelu(dense(params["Dense_0"], x)))


def mab(params, queries, keys):
  normed = norm(params["query_norm"], queries)
  seen = normed if keys is queries else norm(params["key_norm"], keys)
  x = queries + attention(params["attention"], normed, seen)
  return x + feed(params["feed"], norm(params["feed_norm"], x))


def set_transformer_loop(params, sets, seeds, layers=1, inducing=None):
  """The fused vector of one example: SABs or ISABs, PMA, a SAB over the seeds."""
  x = [values + params[f"code_{name}"] for name, values in sorted(sets.items())]
  x = np.concatenate([np.zeros((0, FEATURES)), *x])
  if not len(x):
    return np.zeros(seeds * FEATURES)
  for index in range(layers):
    if inducing is None:
      x = mab(params[f"encoder_{index}"], x, x)
    else:
      points = params[f"inducing_{index}"]
      points = mab(params[f"encoder_{index}_in"], points, x)
      x = mab(params[f"encoder_{index}_out"], x, points)
  x = feed(params["pooling_feed"], norm(params["pooling_norm"], x))
  x = mab(params["pooling"], params["seeds"], x)
  if seeds > 1:
    x = mab(params["decoder_0"], x, x)
  return norm(params["norm"], x).reshape(-1)


def mab_flow(params, queries, keys, of_queries, of_keys):
  """The share of each element in each result of a block, `[n, elements]`."""
  normed = norm(params["query_norm"], queries)
  seen = normed if keys is queries else norm(params["key_norm"], keys)
  weights = attention_weights(params["attention"], normed, seen).mean(axis=0)
  return (of_queries + weights @ of_keys) / 2


def set_transformer_attention(params, sets, seeds, layers=1, inducing=None):
  """The weights of one example's elements, from all seeds equally."""
  x = [values + params[f"code_{name}"] for name, values in sorted(sets.items())]
  x = np.concatenate([np.zeros((0, FEATURES)), *x])
  if not len(x):
    return {name: np.zeros(0) for name in sets}
  flow = np.eye(len(x))
  for index in range(layers):
    if inducing is None:
      block = params[f"encoder_{index}"]
      x, flow = mab(block, x, x), mab_flow(block, x, x, flow, flow)
    else:
      points = params[f"inducing_{index}"]
      gather, spread = (params[f"encoder_{index}_{way}"] for way in ("in", "out"))
      of_points = mab_flow(gather, points, x, np.zeros((inducing, len(x))), flow)
      points = mab(gather, points, x)
      flow = mab_flow(spread, x, points, flow, of_points)
      x = mab(spread, x, points)
  x = feed(params["pooling_feed"], norm(params["pooling_norm"], x))
  of_seeds = np.zeros((seeds, len(x)))
  flow = mab_flow(params["pooling"], params["seeds"], x, of_seeds, flow)
  x = mab(params["pooling"], params["seeds"], x)
  if seeds > 1:
    flow = mab_flow(params["decoder_0"], x, x, flow, flow)
  shares = flow.sum(axis=0) / flow.sum()
  sizes = [len(values) for _, values in sorted(sets.items())]
  parts = np.split(shares, np.cumsum(sizes)[:-1])
  return dict(zip(sorted(sets), parts, strict=True))


def _set_transformer(**settings):
  module = fusion.SetTransformerFusion(NAMES, FEATURES, hidden=5, **settings)
  del settings["heads"]
  return module, functools.partial(set_transformer_loop, **settings)


SAB = dict(layers=1, seeds=2)
ISAB = dict(layers=1, seeds=1, inducing=2)

FUSIONS = {
  "set transformer, SAB": _set_transformer(heads=3, **SAB),
  "set transformer, ISAB": _set_transformer(heads=1, **ISAB),
}
ATTENTION = {
  "set transformer, SAB": functools.partial(set_transformer_attention, **SAB),
  "set transformer, ISAB": functools.partial(set_transformer_attention, **ISAB),
}
