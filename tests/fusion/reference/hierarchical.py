"""Hierarchical attention by a loop over examples."""

import numpy as np

from deepsets_jax import fusion
from tests.fusion.reference.mil import mil_weights
from tests.sets import FEATURES, NAMES


def weighted_and_plain_mean(params, x):
  return (mil_weights(params, x) @ x + x.mean(axis=0)) / 2


def modality_vectors(params, sets):
  """The vector of each modality that is present."""
  return {
    name: weighted_and_plain_mean(
      params["element_scores"], values + params[f"code_{name}"]
    )
    for name, values in sets.items()
    if len(values)
  }


def hierarchical_loop(params, sets):
  """The fused vector of one example: elements to modalities to one vector."""
  vectors = list(modality_vectors(params, sets).values())
  if not vectors:
    return np.zeros(FEATURES)
  return weighted_and_plain_mean(params["modality_scores"], np.stack(vectors))


def hierarchical_attention(params, sets):
  """The importance of each element times that of its modality."""
  vectors = modality_vectors(params, sets)
  weights = {name: np.zeros(0) for name in sets}
  if vectors:
    shares = mil_weights(params["modality_scores"], np.stack(list(vectors.values())))
    for name, share in zip(vectors, shares, strict=True):
      coded = sets[name] + params[f"code_{name}"]
      weights[name] = share * mil_weights(params["element_scores"], coded)
  return weights


ATTENTION = {"hierarchical": hierarchical_attention}
FUSIONS = {
  "hierarchical": (
    fusion.HierarchicalFusion(NAMES, FEATURES, hidden=4),
    hierarchical_loop,
  )
}
