"""Importance that a model tells of itself: what won its pools, what it attends to."""

from __future__ import annotations

from collections.abc import Mapping

import jax
from jaxtyping import Array, PyTree

from deepsets_jax.analysis.attribution import result
from deepsets_jax.analysis.attribution.outputs import Output
from deepsets_jax.analysis.attribution.result import Attribution
from deepsets_jax.data.tables.table import Table
from deepsets_jax.ragged import Batch
from deepsets_jax.tasks.trained import Trained
from deepsets_jax.training import sharding

# Where in the collection "importance" a model leaves each.
_PATHS = {"argmax": ("fusion", "argmax"), "attention": ("attention",)}


def argmax(trained: Trained, table: Table, output: Output) -> Attribution:
  """The share of the max- and min-pooled features that each element won.

  The importance of Reiter et al., "Deep Multi-Modal Sets" (2020), whose tie rule was
  not at hand: ties share equally, as they do the gradient. Shares of an example add up
  to 1. It knows nothing of the output: a feature counts though the head ignores it.
  """
  del output
  return _read("argmax", trained, table)


def attention(trained: Trained, table: Table, output: Output) -> Attribution:
  """The weight of each element in the model's attention, through all its layers.

  What is sown by the fusions, see there. The weights of an example add up to 1, and
  know nothing of the output.
  """
  del output
  return _read("attention", trained, table)


def tells(trained: Trained, method: str) -> bool:
  """Whether the model leaves importance of this kind."""
  one = sharding.shard_shapes(trained.run.abstract_batch)
  found = jax.eval_shape(lambda *x: _sown(trained, *x), trained.params, one)
  return _at(found, _PATHS[method]) is not None


def _read(method: str, trained: Trained, table: Table) -> Attribution:
  def of_shard(params: PyTree, batch: Batch) -> dict[str, Array]:
    return dict(_at(_sown(trained, params, batch), _PATHS[method]))

  step = trained.step(method, of_shard)
  return result.of_elements(method, table, trained.per_element(step, table))


def _sown(trained: Trained, params: PyTree, batch: Batch) -> Mapping:
  _, state = trained.run.model.apply(
    {"params": params}, batch.modalities, mutable=["importance"]
  )
  return state


def _at(state: Mapping, path: tuple[str, ...]) -> Mapping[str, Array] | None:
  for key in ("importance", *path):
    if key not in state:
      return None
    state = state[key]
  return state
