"""Sets, parameters and compiled functions for tests of every fusion."""

import functools

import hypothesis.strategies as st
import jax
import numpy as np

from deepsets_jax.analysis.attribution import rollout
from tests.fusion.reference import FUSIONS
from tests.sets import BUDGETS, FEATURES, NAMES, NUM_EXAMPLES, pack, set_lists

SETS = st.fixed_dictionaries({name: set_lists() for name in NAMES})


def pack_all(sets, budget=BUDGETS[0]):
  """A dictionary of lists as a dictionary of `Ragged`."""
  return {name: pack(lists, budget) for name, lists in sets.items()}


@functools.cache
def params_of(name):
  """The initial parameters of a fusion."""
  module, _ = FUSIONS[name]
  rng = np.random.default_rng(0)
  lists = [rng.normal(size=(2, FEATURES))] * NUM_EXAMPLES
  variables = module.init(
    jax.random.key(0), pack_all(dict.fromkeys(NAMES, lists)), train=False
  )
  return variables.get("params", {})


@functools.partial(jax.jit, static_argnums=0)
def fused_with(name, params, modalities):
  """The fused vectors for given parameters."""
  return FUSIONS[name][0].apply({"params": params}, modalities, train=False)


def fused(name, modalities):
  """The fused vectors `[b, f]`."""
  return np.asarray(fused_with(name, params_of(name), modalities))


@functools.partial(jax.jit, static_argnums=0)
def explained(name, params, modalities):
  """The fused vectors of a fusion that reports its attention, and the weights."""
  module, variables = FUSIONS[name][0], {"params": params}
  result, _ = module.apply(variables, modalities, train=False, mutable=["importance"])
  return result, rollout.attention_weights(module, variables, modalities)


def attention(name, modalities):
  """The weight of each element, `[n]` by modality."""
  return jax.device_get(explained(name, params_of(name), modalities)[1])


def of_lists(weights, sets):
  """Weights by modality `[n]` as lists of each example, without padding."""
  return {
    k: pack(v, len(weights[k])).replace(values=weights[k]).to_lists()
    for k, v in sets.items()
  }
