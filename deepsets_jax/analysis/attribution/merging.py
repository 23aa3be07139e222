"""Outputs of all subsets of modalities for fusions that merge partial states.

Each modality is encoded and pooled once. An example with `p` of the `m` modalities has
2**p different subsets. Examples are sorted by `p`, so that a batch runs through no more
subsets than its examples have.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from deepsets_jax.analysis.attribution.outputs import Output, score
from deepsets_jax.data.tables.table import Table
from deepsets_jax.ragged import Batch
from deepsets_jax.tasks.trained import Trained
from deepsets_jax.training import sharding

# Modalities whose subsets are evaluated together: 16 states per example.
_INNER = 4


def scores_of_subsets(
  trained: Trained, table: Table, output: Output, present: Bool[np.ndarray, "b m"]
) -> np.ndarray:
  """The output of the subsets of each example's present modalities, `[b, 2**m]`.

  Bit `j` of the column number says whether the subset has the `j`-th present modality.
  Columns from 2**p on have no meaning.
  """
  step = trained.step(
    ("subsets", output.target.kind),
    functools.partial(_of_shard, trained, output.target.kind),
  )
  order = np.argsort(present.sum(axis=1), kind="stable")
  found = trained.per_example(step, output.as_targets(table).select(order))
  scores = np.zeros(found.shape)
  scores[order] = found
  return scores


def _of_shard(trained: Trained, kind: str, params: PyTree, batch: Batch) -> Array:
  """Outputs of one shard, whose targets hold the output's weights: `[b, 2**m]`."""
  model = trained.run.model.bind({"params": params})
  merge = model.fusion.merge
  names = list(trained.run.tables["train"].schema.modalities)
  states = model.lift({name: batch.modalities[name] for name in names})
  first = batch.modalities[names[0]]
  first = first.replace(offsets=jnp.zeros_like(first.offsets))
  none = model.lift({names[0]: first})[names[0]]
  present = jnp.stack([batch.modalities[name].lengths > 0 for name in names])
  slots = _present_first([states[name] for name in names], present)
  inner, outer = slots[:_INNER], slots[_INNER:]
  block = _subsets(none, inner, merge)

  def at(index: Array, found: Array) -> Array:
    rest = none
    for bit, slot in enumerate(outer):
      there = (index >> bit) & 1 == 1
      more = merge(rest, slot)
      rest = jax.tree.map(lambda x, y, there=there: jnp.where(there, y, x), rest, more)
    merged = merge(block, jax.tree.map(lambda x: x[None], rest))
    logits = model.finish(merged)
    values = score(kind, logits, batch.targets[None])
    return jax.lax.dynamic_update_index_in_dim(found, values, index, 0)

  most = present.sum(axis=0, dtype=jnp.int32).max() - len(inner)
  steps = jnp.where(most > 0, 1 << jnp.maximum(most, 0), 1)
  shape = (1 << len(outer), 1 << len(inner), len(batch.weights))
  found = jax.lax.pcast(jnp.zeros(shape, jnp.float32), sharding.AXIS, to="varying")
  found = jax.lax.fori_loop(0, steps, at, found)
  return found.reshape(-1, shape[-1]).T


def _present_first(states: list[PyTree], present: Bool[Array, "m b"]) -> list[PyTree]:
  """The states of each example's modalities, the present ones before the absent ones.

  The state of an absent modality is that of an empty set.
  """
  order = jnp.argsort(~present, axis=0, stable=True)

  def reorder(*leaves: Array) -> Array:
    stacked = jnp.stack(leaves)
    indices = order.reshape(*order.shape, *(1,) * (stacked.ndim - 2))
    return jnp.take_along_axis(stacked, indices, axis=0)

  stacked = jax.tree.map(reorder, *states)
  return [jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(len(states))]


def _subsets(none: PyTree, states: list[PyTree], merge) -> PyTree:
  """The merged state of every subset of some states, along a new leading axis."""
  every = jax.tree.map(lambda x: x[None], none)
  for state in states:
    more = merge(every, jax.tree.map(lambda x: x[None], state))
    every = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), every, more)
  return every
