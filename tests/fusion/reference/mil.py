"""Attention-based MIL pooling by a loop over examples."""

import functools

import numpy as np

from deepsets_jax import fusion
from tests.fusion.reference.transformer import dense
from tests.sets import FEATURES, NAMES


def mil_weights(params, bag, gated=False):
  """The softmax of `layers.Scores` over a bag that is not empty."""
  hidden = np.tanh(dense(params["hidden"], bag))
  if gated:
    hidden = hidden / (1 + np.exp(-dense(params["gate"], bag)))
  weights = np.exp(dense(params["score"], hidden))[:, 0]
  return weights / weights.sum()


def mil_loop(params, sets, gated):
  """The fused vector of one example: elements weighted by their scores' softmax."""
  bag = np.concatenate([np.zeros((0, FEATURES)), *sets.values()])
  if not len(bag):
    return np.zeros(FEATURES)
  return mil_weights(params["scores"], bag, gated) @ bag


def mil_attention(params, sets, gated=False):
  """The weights of one example's elements by modality."""
  bag = np.concatenate([np.zeros((0, FEATURES)), *sets.values()])
  weights = mil_weights(params["scores"], bag, gated) if len(bag) else np.zeros(0)
  parts = np.split(weights, np.cumsum([len(v) for v in sets.values()])[:-1])
  return dict(zip(sets, parts, strict=True))


def _mil(gated):
  module = fusion.MILFusion(NAMES, FEATURES, hidden=5, gated=gated)
  return module, functools.partial(mil_loop, gated=gated)


ATTENTION = {
  "mil, plain": mil_attention,
  "mil, gated": functools.partial(mil_attention, gated=True),
}
FUSIONS = {"mil, plain": _mil(gated=False), "mil, gated": _mil(gated=True)}
