"""Low-rank fusion by a loop over examples."""

import functools

import numpy as np

from deepsets_jax import fusion
from tests.sets import FEATURES, NAMES


def low_rank_loop(params, sets, rank, pool):
  """The fused vector of one example: each term a product over present modalities."""
  fused = np.zeros(FEATURES)
  for term in range(rank):
    product = np.ones(FEATURES)
    for name, elements in sets.items():
      if len(elements):
        vector = getattr(elements, pool)(axis=0)
        columns = slice(term * FEATURES, (term + 1) * FEATURES)
        layer = params[f"factor_{name}"]
        product *= 1 + vector @ layer["kernel"][:, columns] + layer["bias"][columns]
    fused += params["weights"][term] * (product - 1)
  return fused


FUSIONS = {
  "low rank": (
    fusion.LowRankFusion(NAMES, FEATURES, rank=2, pool="mean"),
    functools.partial(low_rank_loop, rank=2, pool="mean"),
  )
}
