"""Evaluation: logits of every example of a table, and their metrics."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float, PyTree

from deepsets_jax.data.tables import loader
from deepsets_jax.data.tables.batching import Budget
from deepsets_jax.data.tables.table import Table
from deepsets_jax.ragged import Batch
from deepsets_jax.training import losses, metrics, sharding

Predict = Callable[[PyTree, Batch], Array]


def shard_map_jit(
  shard_fn: Callable[[PyTree, Batch], PyTree], mesh: jax.sharding.Mesh
) -> Predict:
  """Jit a function of one shard as a function of a batch `[s, ...]`.

  Args:
    shard_fn: (params, shard) -> outputs. No collectives.
    mesh: Mesh of all devices.
  """

  def device_fn(params: PyTree, batch: Batch) -> PyTree:
    return jax.lax.map(lambda shard: shard_fn(params, shard), batch)

  return jax.jit(
    jax.shard_map(
      device_fn,
      mesh=mesh,
      in_specs=(jax.P(), jax.P(sharding.AXIS)),
      out_specs=jax.P(sharding.AXIS),
    )
  )


def build_predict(apply: Callable[..., Array], mesh: jax.sharding.Mesh) -> Predict:
  """Jit `model.apply` as (params, batch `[s, ...]`) -> logits `[s, b, k]`."""
  return shard_map_jit(
    lambda params, batch: apply({"params": params}, batch.modalities), mesh
  )


def predict(
  step: Predict,
  params: PyTree,
  table: Table,
  budget: Budget,
  shards: int,
  mesh: jax.sharding.Mesh,
) -> Float[np.ndarray, "b k"]:
  """Compute the logits of a table, in its order, on every process.

  Args:
    step: See `build_predict`.
    params: Parameters of the model.
    table: Table to evaluate; each example must fit the budget.
    budget: Examples and slots of a shard.
    shards: Number of shards of a batch, over all devices.
    mesh: Mesh of all devices.

  Raises:
    RuntimeError: An example was evaluated never or twice; a defect of the batches.
  """
  logits, seen = None, np.zeros(len(table), np.int64)
  for batch in loader.evaluation_batches(table, budget, shards):
    on_devices = sharding.put(batch, mesh)
    values = step(params, on_devices)
    values, indices = multihost_utils.process_allgather(
      (values, on_devices.indices), tiled=True
    )
    real = indices >= 0
    if logits is None:
      logits = np.zeros((len(table), values.shape[-1]), np.float32)
    logits[indices[real]] = values[real]
    np.add.at(seen, indices[real], 1)
  if not (seen == 1).all():
    row = int(np.argmax(seen != 1))
    raise RuntimeError(f"row {row} was evaluated {seen[row]} times")
  return logits


def predict_elements(
  step: Callable[[PyTree, Batch], dict[str, Array]],
  params: PyTree,
  table: Table,
  budget: Budget,
  shards: int,
  mesh: jax.sharding.Mesh,
) -> dict[str, np.ndarray]:
  """Compute values per element of a table, in its order, on every process.

  Args:
    step: (params, batch) -> {modality: values per slot `[s, n, ...]`}.
    params, table, budget, shards, mesh: See `predict`.

  Returns:
    {modality: values per element `[n, ...]`}, without those of padding.
  """
  columns = {}
  for batch in loader.evaluation_batches(table, budget, shards):
    on_devices = sharding.put(batch, mesh)
    values = step(params, on_devices)
    offsets = {k: v.offsets for k, v in on_devices.modalities.items()}
    values, offsets, indices = multihost_utils.process_allgather(
      (values, offsets, on_devices.indices), tiled=True
    )
    if not columns:
      columns = {
        k: np.zeros((len(v.values), *values[k].shape[2:]), np.float32)
        for k, v in table.modalities.items()
      }
    for shard, rows in enumerate(indices):
      if rows[0] < 0:  # An empty shard that fills up the last batch.
        continue
      for name, column in columns.items():
        # The examples of an evaluation shard are consecutive rows of the table.
        begin, size = table.modalities[name].offsets[rows[0]], offsets[name][shard, -1]
        column[begin : begin + size] = values[name][shard, :size]
  return columns


def choose_threshold(table: Table, logits: Float[np.ndarray, "b k"]) -> float:
  """Choose the probability above which a label is predicted; for validation data only.

  The threshold maximises micro F1 (multi-label) or F1 of the positive class (binary).
  An example without labels counts through the labels that are wrongly predicted for it.
  It is 0.5 for other targets, and for a binary target with examples of only one class.
  """
  targets = np.asarray(table.targets)
  match table.schema.target.kind:
    case "multilabel":
      return metrics.choose_threshold(logits, targets)
    case "binary" if len(np.unique(targets)) == 2:
      return metrics.choose_threshold(logits, targets[:, None])
  return 0.5


def undefined(table: Table) -> tuple[str, ...]:
  """Names of the metrics that are undefined on a table, whatever a model predicts.

  They are NaN, such as ROC AUC if all examples have one class. F1 counts as undefined
  too if nothing is positive: it is then always 0.
  """
  target, targets = table.schema.target, np.asarray(table.targets)
  logits, weights = np.zeros((len(table), target.size)), np.ones(len(table))
  values = metrics.for_target(target, logits, targets, weights, 0.5)
  zero: tuple[str, ...] = ()
  if target.kind in ("binary", "multilabel") and not targets.any():
    zero = ("f1", "f1_micro", "f1_macro", "f1_weighted")
  return tuple(k for k, value in values.items() if np.isnan(value) or k in zero)


def evaluate(
  table: Table, logits: Float[np.ndarray, "b k"], loss: losses.Loss, threshold: float
) -> dict[str, float]:
  """Compute the loss and every metric of the table's kind of target."""
  target, weights = table.schema.target, np.ones(len(table), np.float32)
  arrays = (jnp.asarray(x) for x in (logits, table.targets, weights))
  total, weight = loss(*arrays)
  values = metrics.for_target(target, logits, table.targets, weights, threshold)
  return {"loss": float(total / weight)} | values
