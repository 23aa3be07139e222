"""Costs of a run, known before it trains: parameters, FLOPs, slots and memory.

FLOPs are those of training an example, forward and backward: the FLOPs of one shard
over the number of examples that a shard typically holds. They depend neither on the
number of shards nor on the number of devices. All slots count, also empty ones.

The FLOPs of a part (an encoder, the fusion, or the head with the loss) are counted by
`flops.count`: its forward pass, its gradients by the parameters and, for fusion and
head, by their inputs, but never by the data. Attention adds its own FLOPs: its loops
depend on the data, and its modules report them (see `attention_flops`).

The FLOPs of the compiled step are XLA's count of the program of a device, with one
shard (XLA counts the body of the loop over shards once) and one update of all
parameters, plus those of attention. They are not the sum of the parts: with large
embeddings the update may dominate, XLA counts some operations differently, and on a CPU
it counts the loop of a scatter once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from deepsets_jax.data.tables import budgets
from deepsets_jax.models.set_model import SetModel
from deepsets_jax.ragged import Batch, Ragged
from deepsets_jax.training import flops

# The forward pass has two matrix products, and the backward pass, which recomputes the
# scores, has five.
_ATTENTION_PASSES = 1 + 2.5
# Number of real shards over which the FLOPs of attention are averaged.
SHARDS = 8


def model_parts(
  params: PyTree,
  counted: Mapping[str, float],
  attention: Mapping[str, float],
  usage: Mapping[str, budgets.Usage],
) -> dict[str, dict[str, Any]]:
  """Costs of the parts of a `SetModel`.

  Args:
    params: Parameters of the model, or their shapes.
    counted: FLOPs per example by part, see `model_flops`.
    attention: FLOPs per example that attention reports, by part.
    usage: Use of the slots by modality.

  Returns:
    By "encoders.<modality>", "fusion" and "head", in this order, the number of
    "parameters", "flops_per_example" and, for an encoder, the fields of
    `budgets.Usage`.
  """
  usage = {f"encoders.{k}": v for k, v in usage.items()}
  parameters = _parameters(params)
  parts = {}
  for name in dict.fromkeys([*usage, "fusion", "head", *parameters]):
    parts[name] = {
      "parameters": parameters.get(name, 0),
      "flops_per_example": counted.get(name, 0) + attention.get(name, 0),
    }
    if name in usage:
      parts[name] |= dataclasses.asdict(usage[name])
  return parts


def combine_parts(
  parts: dict[str, dict[str, Any]], attention: Mapping[str, float], examples: float
) -> dict[str, Any]:
  """Costs of a model from those of its parts; a value for `json.dump`.

  Args:
    parts: See `model_parts`.
    attention: FLOPs per example that attention reports, by part.
    examples: Median number of examples of a shard.

  Returns:
    "parts"; the sums "parameters", "flops_per_example" and
    "attention_flops_per_example" (included in the former); "examples_per_shard".
  """
  return {
    "parts": parts,
    "parameters": sum(part["parameters"] for part in parts.values()),
    "flops_per_example": sum(part["flops_per_example"] for part in parts.values()),
    "attention_flops_per_example": sum(attention.values()),
    "examples_per_shard": examples,
  }


def step_costs(step: jax.stages.Compiled, costs: Mapping[str, Any]) -> dict[str, Any]:
  """Costs of the compiled step; None where its backend does not report them.

  Args:
    step: The compiled step.
    costs: See `combine_parts`.

  Returns:
    "flops_per_example", and per device "argument_bytes" (state and batch) and
    "temporary_bytes".
  """
  counted = (step.cost_analysis() or {}).get("flops", -1)
  total = counted / costs["examples_per_shard"] + costs["attention_flops_per_example"]
  memory = step.memory_analysis()
  return {
    "flops_per_example": total if counted >= 0 else None,
    "argument_bytes": getattr(memory, "argument_size_in_bytes", None),
    "temporary_bytes": getattr(memory, "temp_size_in_bytes", None),
  }


def describe(costs: Mapping[str, Any]) -> str:
  """Format the result of `combine_parts` as a table for a terminal."""
  columns = ("missing", "mean", "p50", "p99", "max", "slots", "fill")
  rows = [("", *columns, "parameters", "FLOPs")]
  for name, part in costs["parts"].items():
    cells = [""] * len(columns)
    if "slots" in part:
      cells = [str(part[column]) for column in columns]
      cells[0], cells[-1] = f"{part['missing']:.0%}", f"{part['fill']:.0%}"
      cells[1] = f"{part['mean']:.1f}"
    rows.append((name.removeprefix("encoders."), *cells, *_cells(part)))
  rows.append(("total", *[""] * len(columns), *_cells(costs)))
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  lines = [
    "Elements per example; slots of a shard of"
    f" {costs['examples_per_shard']:g} examples; FLOPs to train on an example"
  ]
  for name, *cells in rows:
    cells = [cell.rjust(w) for cell, w in zip(cells, widths[1:], strict=True)]
    lines.append("  ".join([name.ljust(widths[0]), *cells]))
  return "\n".join(lines)


def describe_step(step: Mapping[str, float | None]) -> str:
  """Format the result of `step_costs` as a line for a terminal."""
  return (
    f"Compiled step: {short(step['flops_per_example'])} FLOPs per example with the"
    f" update of the parameters; on a device {short(step['argument_bytes'])}B of"
    f" state and batch, {short(step['temporary_bytes'])}B temporary"
  )


def short(number: float | None) -> str:
  """Format a number with three digits and a prefix: "1.23 M", "12 "; "?" for None."""
  if number is None:
    return "?"
  for prefix in ("", "k", "M", "G"):
    if number < 999.5:
      return f"{number:.3g} {prefix}"
    number /= 1000
  return f"{number:.3g} T"


def _cells(part: Mapping[str, Any]) -> tuple[str, str]:
  return f"{part['parameters']:,}", short(part["flops_per_example"])


def _part(key: str) -> str:
  """Name of the part that a top-level key of the model's variables belongs to."""
  modality = key.removeprefix("encoders_")
  return key if modality == key else f"encoders.{modality}"


def _parameters(params: PyTree) -> dict[str, int]:
  """Number of parameters by part; a part without parameters may be missing."""
  return {
    _part(key): sum(leaf.size for leaf in jax.tree.leaves(subtree))
    for key, subtree in params.items()
  }


def model_flops(
  model: SetModel,
  params: PyTree,
  shard: Batch,
  loss_fn: Callable[[Array, Batch], Array],
) -> dict[str, float]:
  """Count the FLOPs of one shard by part, without those that modules report.

  Args:
    model: Model with encoders, fusion and head.
    params: Shapes of its parameters.
    shard: Shapes of a shard, see `sharding.shard_shapes`.
    loss_fn: (output of the head, shard) -> loss.
  """
  call, params = _caller(model), _shapes(params)

  def encode(name: str, params: PyTree, elements: Ragged) -> Ragged:
    return call(params, lambda model: model.encoders[name](elements, train=True))

  def values(name: str, params: PyTree, elements: Ragged) -> Array:
    return encode(name, params, elements).values

  def fuse(inputs: tuple, encoded: dict[str, Ragged]) -> Array:
    params, values = inputs
    elements = {k: v.replace(values=values[k]) for k, v in encoded.items()}
    return call(params, lambda model: model.fusion(elements, train=True))

  def finish(inputs: tuple, shard: Batch) -> Array:
    params, fused = inputs
    return loss_fn(call(params, lambda model: model.head(fused, train=True)), shard)

  encoded, counted = {}, {}
  for name, elements in shard.modalities.items():
    encoded[name] = jax.eval_shape(functools.partial(encode, name), params, elements)
    one = functools.partial(values, name)
    counted[f"encoders.{name}"] = _with_gradient(one, params, elements)
  inputs = (params, {name: ragged.values for name, ragged in encoded.items()})
  counted["fusion"] = _with_gradient(fuse, inputs, encoded)
  fused = jax.eval_shape(fuse, inputs, encoded)
  counted["head"] = _with_gradient(finish, (params, fused), shard)
  return counted


def _with_gradient(
  function: Callable[..., Array], inputs: PyTree, constants: PyTree
) -> float:
  """FLOPs of a function and of its gradient by its whole first argument."""

  def program(inputs: PyTree, constants: PyTree) -> tuple:
    value, pull_back = jax.vjp(lambda x: function(x, constants), inputs)
    return value, pull_back(jnp.ones_like(value))

  return flops.count(program, inputs, constants)


def attention_flops(
  model: SetModel, params: PyTree, shards: Sequence[Batch]
) -> dict[str, float]:
  """FLOPs per example of the attention that XLA does not count, by part.

  An attention module sows the FLOPs of its forward pass that XLA does not count, as
  "attention_flops" in the collection "cost".

  Args:
    model: Model with encoders, fusion and head.
    params: Parameters of the model, or their shapes.
    shards: Real shards, over which the FLOPs are averaged.

  Returns:
    Empty if the model has no attention.
  """
  params, call = _shapes(params), _caller(model)

  def sown(modalities: dict[str, Ragged]) -> dict[str, Array]:
    # The sown values depend on the lengths only; the compiler drops everything else.
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), params)
    cost = call(zeros, lambda m: m(modalities, train=True), mutable=["cost"])[1]
    leaves = jax.tree_util.tree_leaves_with_path(cost.get("cost", {}))
    by_part: dict[str, Array] = {}
    for path, value in leaves:
      if any(getattr(key, "key", None) == "attention_flops" for key in path):
        part = _part(path[0].key)
        by_part[part] = by_part.get(part, jnp.zeros((), jnp.float32)) + value
    return by_part

  sown = jax.jit(sown)
  if not jax.eval_shape(sown, shards[0].modalities):
    return {}
  sums = [jax.device_get(sown(shard.modalities)) for shard in shards]
  examples = sum(float(shard.weights.sum()) for shard in shards)
  return {
    part: _ATTENTION_PASSES * sum(float(s[part]) for s in sums) / examples
    for part in sums[0]
  }


def _caller(model: SetModel) -> Callable[..., Any]:
  """Build a function that calls a method of the model, as a training step does."""

  def call(params: PyTree, method: Callable[..., Any], **keywords: Any) -> Any:
    rngs = {"dropout": jax.random.key(0)}
    return model.apply({"params": params}, method=method, rngs=rngs, **keywords)

  return call


def _shapes(tree: PyTree) -> PyTree:
  """Shapes and types without shardings."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), tree)
