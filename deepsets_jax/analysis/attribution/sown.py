"""Importance from what a model reports of itself: max shares, and attention."""

from __future__ import annotations

from collections.abc import Mapping

import jax
from jaxtyping import Array, PyTree

from deepsets_jax.analysis.attribution import result, rollout
from deepsets_jax.analysis.attribution.outputs import Output
from deepsets_jax.analysis.attribution.result import Attribution
from deepsets_jax.data.tables.table import Table
from deepsets_jax.ragged import Batch
from deepsets_jax.tasks.trained import Trained
from deepsets_jax.training import sharding


def argmax(trained: Trained, table: Table, output: Output) -> Attribution:
  """The share of the max- and min-pooled features that each element won.

  The importance of Reiter et al., "Deep Multi-Modal Sets" (2020), whose tie rule was
  not at hand: ties share equally, as they share the gradient. The shares of an example
  add up to 1. They do not depend on the output: a feature counts even if the head
  ignores it.
  """
  del output
  return _attribution("argmax", trained, table)


def attention(trained: Trained, table: Table, output: Output) -> Attribution:
  """The weight of each element in the model's attention, through all its layers.

  See `rollout.attention_weights`. The weights of an example add up to 1, and do not
  depend on the output.
  """
  del output
  return _attribution("attention", trained, table)


def is_reported(trained: Trained, method: str) -> bool:
  """Whether the model reports what a method ("argmax" or "attention") needs."""
  one = sharding.shard_shapes(trained.run.abstract_batch)
  found = jax.eval_shape(lambda *x: _weights(method, trained, *x), trained.params, one)
  return found is not None


def _attribution(method: str, trained: Trained, table: Table) -> Attribution:
  step = trained.step(method, lambda *shard: _weights(method, trained, *shard))
  return result.of_elements(method, table, trained.per_element(step, table))


def _weights(
  method: str, trained: Trained, params: PyTree, batch: Batch
) -> Mapping[str, Array] | None:
  """The weights of elements `[n]` by modality, or None if there are none."""
  model, variables = trained.run.model, {"params": params}
  if method == "attention":
    return rollout.attention_weights(model, variables, batch.modalities)
  reports = rollout.read_reports(model, variables, batch.modalities)
  return reports.get("fusion", {}).get("argmax")
