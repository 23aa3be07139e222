"""The gated multimodal unit by a loop over examples."""

import functools

import numpy as np

from deepsets_jax import fusion
from tests.sets import FEATURES, NAMES


def gated_loop(params, sets, pool):
  """The fused vector of one example: present modalities times their gates."""
  vectors = {k: getattr(v, pool)(axis=0) for k, v in sets.items() if len(v)}
  nothing = np.zeros(FEATURES)
  joined = np.concatenate([vectors.get(name, nothing) for name in NAMES])
  gates = 1 / (1 + np.exp(-joined @ params["gates"]["kernel"]))
  fused = nothing
  for name, gate in zip(NAMES, np.split(gates, len(NAMES)), strict=True):
    if name in vectors:
      fused = fused + gate * np.tanh(vectors[name] @ params[f"hidden_{name}"]["kernel"])
  return fused


FUSIONS = {
  "gated": (
    fusion.GatedFusion(NAMES, FEATURES, pool="max"),
    functools.partial(gated_loop, pool="max"),
  )
}
