"""What a run will cost, told before it trains: parameters, FLOPs, slots, memory.

FLOPs are of training, forward and backward, per example: what one shard takes, over
the examples that a shard typically holds. So they depend neither on the number of
shards nor on that of devices. A slot counts whether it holds an element or not.

Of a part (an encoder, the fusion, the head with the loss) they are those of `flops`:
of its forward pass and of the gradients that a step takes, by the parameters, and by
what fusion and head are given, never by the data. To them come those of attention,
whose loops depend on the data: its modules report them (see `attention_flops`).

Of the compiled step they are XLA's count of the program of a device, which has one
shard (XLA counts the loop over more of them once) and one update of all parameters;
attention as above. It is not the sum of the parts: of large embeddings the update may
be most of it, what XLA counts differs a little from `flops`, and on a CPU its scatters
are loops that it counts once.
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

# Forward, and a backward pass that recomputes the scores: five products to two.
_ATTENTION_PASSES = 1 + 2.5
# Real shards over which what attention reports is averaged.
SHARDS = 8


def model_parts(
  params: PyTree,
  counted: Mapping[str, float],
  attention: Mapping[str, float],
  usage: Mapping[str, budgets.Usage],
) -> dict[str, dict[str, Any]]:
  """The parts of a `models.SetModel`, see `of_parts`; FLOPs are those per example."""
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


def assembled(
  parts: dict[str, dict[str, Any]], attention: Mapping[str, float], examples: float
) -> dict[str, Any]:
  """The parts with their sums, see `of_parts`."""
  return {
    "parts": parts,
    "parameters": sum(part["parameters"] for part in parts.values()),
    "flops_per_example": sum(part["flops_per_example"] for part in parts.values()),
    "attention_flops_per_example": sum(attention.values()),
    "examples_per_shard": examples,
  }


def step_costs(step: jax.stages.Compiled, costs: Mapping[str, Any]) -> dict[str, Any]:
  """What the compiled step costs; None for what its backend does not tell.

  Args:
    step: See `Run.compile_step`.
    costs: What `of_parts` found.

  Returns:
    "flops_per_example"; and of one device "argument_bytes", state and batch, and
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
  """What `of_parts` found as a table for a terminal."""
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
  """What `of_step` found as a line for a terminal."""
  return (
    f"Compiled step: {short(step['flops_per_example'])} FLOPs per example with the"
    f" update of the parameters; on a device {short(step['argument_bytes'])}B of"
    f" state and batch, {short(step['temporary_bytes'])}B temporary"
  )


def short(number: float | None) -> str:
  """Three digits and a prefix: "1.23 M", "12 "; "?" for what is not known."""
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
  """The part that a top-level key of the model's variables belongs to."""
  modality = key.removeprefix("encoders_")
  return key if modality == key else f"encoders.{modality}"


def _parameters(params: PyTree) -> dict[str, int]:
  """Number of parameters by part; a part without any may be left out."""
  return {
    _part(key): sum(leaf.size for leaf in jax.tree.leaves(subtree))
    for key, subtree in params.items()
  }


def shard_shapes(batch: PyTree) -> PyTree:
  """The shapes of one shard of a batch."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch)


def model_flops(
  model: SetModel,
  params: PyTree,
  shard: Batch,
  lose: Callable[[Array, Batch], Array],
) -> dict[str, float]:
  """FLOPs of one shard by part, without those that modules report.

  Args:
    model: Encoders, fusion and head.
    params: Their shapes.
    shard: Its shapes.
    lose: From the output of the head and the shard to the loss.
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
    return lose(call(params, lambda model: model.head(fused, train=True)), shard)

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
  """FLOPs of a function and of its gradient by all of its first argument."""

  def program(inputs: PyTree, constants: PyTree) -> tuple:
    value, pull_back = jax.vjp(lambda x: function(x, constants), inputs)
    return value, pull_back(jnp.ones_like(value))

  return flops.count(program, inputs, constants)


def attention_flops(
  model: SetModel, params: PyTree, shards: Sequence[Batch]
) -> dict[str, float]:
  """FLOPs per example of the attention that XLA does not count, by part.

  A module that attends sows, as "attention_flops" in the collection "cost", those of
  its forward pass for the batch it is given, beyond what XLA counts. They are averaged
  over some real shards; none is sown where nothing attends.
  """
  params, call = _shapes(params), _caller(model)

  def sown(modalities: dict[str, Ragged]) -> dict[str, Array]:
    # What is sown depends on the lengths alone; the compiler drops all else.
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
  """Calls a function of the model, bound to parameters, as a step does."""

  def call(params: PyTree, method: Callable[..., Any], **keywords: Any) -> Any:
    rngs = {"dropout": jax.random.key(0)}
    return model.apply({"params": params}, method=method, rngs=rngs, **keywords)

  return call


def _shapes(tree: PyTree) -> PyTree:
  """The shapes alone, without where the arrays are."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), tree)
