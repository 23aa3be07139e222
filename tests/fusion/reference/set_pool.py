"""The set pool by a loop over examples."""

import functools

import numpy as np

from deepsets_jax import fusion
from tests.fusion.reference.mil import mil_attention, mil_weights
from tests.sets import FEATURES, NAMES


def set_pool_loop(params, sets, pools, normalize=False, use_size=False):
  """The fused vector of one example; `sets` has `[n, d]` by modality."""
  elements = np.concatenate([np.zeros((0, FEATURES)), *sets.values()])
  if normalize:
    lengths = np.linalg.norm(elements, axis=1, keepdims=True)
    elements = elements / np.where(lengths > 0, lengths, 1)
  parts = []
  for pool in pools:
    if not len(elements):
      parts.append(np.zeros(FEATURES))
    elif pool == "softmax":
      parts.append(mil_weights(params["scores"], elements) @ elements)
    else:
      parts.append(getattr(elements, pool)(axis=0))
  return np.concatenate([*parts, *([[np.log1p(len(elements))]] if use_size else [])])


def _set_pool(**arguments):
  return (
    fusion.SetPoolFusion(NAMES, FEATURES, **arguments),
    functools.partial(set_pool_loop, **arguments),
  )


ATTENTION = {"softmax": mil_attention}
FUSIONS = {
  "max": _set_pool(pools=("max",)),
  "side by side": _set_pool(pools=("sum", "mean", "min", "std", "var")),
  "softmax": _set_pool(pools=("softmax",)),
  "normalized with size": _set_pool(pools=("sum",), normalize=True, use_size=True),
}
