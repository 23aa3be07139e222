"""The Set Transformer by a loop over examples."""

import functools

import numpy as np

from deepsets_jax import fusion
from tests.fusions.transformer import attention, dense, gelu, norm
from tests.sets import FEATURES, NAMES


def feed(params, x):
  return dense(params["Dense_1"], gelu(dense(params["Dense_0"], x)))


def mab(params, queries, keys):
  normed = norm(params["query_norm"], queries)
  seen = normed if keys is queries else norm(params["key_norm"], keys)
  x = queries + attention(params["attention"], normed, seen)
  return x + feed(params["feed"], norm(params["feed_norm"], x))


def set_transformer_loop(params, sets, seeds, layers=1, inducing=None):
  """Of one example: SABs or ISABs, seeds that look, a SAB over several seeds."""
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


def _set_transformer(**settings):
  module = fusion.SetTransformerFusion(NAMES, FEATURES, hidden=5, **settings)
  del settings["heads"]
  return module, functools.partial(set_transformer_loop, **settings)


FUSIONS = {
  "set transformer, SAB": _set_transformer(layers=1, seeds=2, heads=3),
  "set transformer, ISAB": _set_transformer(layers=1, seeds=1, inducing=2, heads=1),
}
