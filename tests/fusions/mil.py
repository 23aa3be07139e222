"""Attention-based MIL pooling by a loop over examples."""

import functools

import numpy as np

from deepsets_jax import fusion
from tests.sets import FEATURES, NAMES


def mil_loop(params, sets, gated):
  """Of one example: the elements weighted by the softmax of their scores."""
  bag = np.concatenate([np.zeros((0, FEATURES)), *sets.values()])
  if not len(bag):
    return np.zeros(FEATURES)
  layers = params["scores"]
  hidden = np.tanh(bag @ layers["hidden"]["kernel"] + layers["hidden"]["bias"])
  if gated:
    gate = bag @ layers["gate"]["kernel"] + layers["gate"]["bias"]
    hidden = hidden / (1 + np.exp(-gate))
  weights = np.exp(hidden @ layers["score"]["kernel"])
  return (weights * bag).sum(axis=0) / weights.sum()


def _mil(gated):
  module = fusion.MILFusion(NAMES, FEATURES, hidden=5, gated=gated)
  return module, functools.partial(mil_loop, gated=gated)


FUSIONS = {"mil, plain": _mil(gated=False), "mil, gated": _mil(gated=True)}
