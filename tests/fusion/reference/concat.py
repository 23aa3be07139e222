"""The concatenation by a loop over examples."""

import functools

import numpy as np

from deepsets_jax import fusion
from tests.sets import FEATURES, NAMES


def concat_loop(params, sets, pools, placeholder):
  """The fused vector of one example: a slot per modality, in order."""
  slots = []
  for name in NAMES:
    elements = sets.get(name, np.zeros((0, FEATURES)))
    if len(elements):
      slots += [getattr(elements, pool)(axis=0) for pool in pools]
    elif placeholder == "learned":
      slots.append(params[f"placeholder_{name}"])
    else:
      slots.append(np.zeros(FEATURES * len(pools)))
  return np.concatenate(slots)


def _concat(**arguments):
  module = fusion.ConcatFusion(NAMES, FEATURES, **arguments)
  return module, functools.partial(concat_loop, **arguments)


FUSIONS = {
  "concat, zeros": _concat(pools=("mean", "max"), placeholder="zeros"),
  "concat, learned": _concat(pools=("sum",), placeholder="learned"),
}
