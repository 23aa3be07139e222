"""Attention rollout: the weight of each input element in the vector that a model reads.

Abnar and Zuidema, "Quantifying Attention Flow in Transformers" (2020). The modules of a
model only report the attention that they computed, see `encoders.importance`. Here
every element gets a mark, and `fused_marks` follows the marks forward through a fusion.
A pool takes the mean of marks. A block of attention takes half of them from its
residual connection and half from its attention, with the mean weights of its heads.
This is a linear map, so its vector-Jacobian product gives the weights of all elements
at once: exactly, and in memory linear in the number of elements, because no attention
matrix is formed.

What a learned token or seed holds comes from no element: its mark is 0, and the weights
of an example are divided by their sum.

To give a fusion of your own a rollout, register a function for its class with
`fused_marks.register`. A fusion that sows the weights of its elements as "attention"
needs none.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from deepsets_jax import fusion as fusions
from deepsets_jax import ragged
from deepsets_jax.fusion.bottleneck import mean_of_present
from deepsets_jax.models.set_model import SetModel
from deepsets_jax.ragged import Ragged, attention, pooling

# Values sown by the modules of a model or of a fusion, by the names of the modules.
Reports = Mapping[str, Any]
# Elements `[n, 1]` whose values are their marks, by modality.
Marks = Mapping[str, Ragged]


def attention_weights(
  module: SetModel | fusions.Fusion,
  variables: PyTree,
  modalities: Mapping[str, Ragged],
) -> dict[str, Float[Array, "n"]] | None:
  """The weight of each element in the attention of a model, through all its layers.

  Args:
    module: A model, or a fusion alone.
    variables: Its variables, `{"params": ...}`.
    modalities: Its input.

  Returns:
    Weights in float32 by modality. They are at least 0, add up to 1 over the elements
    of an example, and are 0 on padding. None if the fusion does not attend.
  """
  reports = read_reports(module, variables, modalities)

  def read(marks: Mapping[str, Array]) -> Float[Array, "b 1"] | None:
    parts = {k: Ragged(marks[k], part.offsets) for k, part in modalities.items()}
    if not isinstance(module, SetModel):
      return fused_marks(module, reports, parts)
    encoded = {
      name: _through_encoder(reports.get(f"encoders_{name}", {}), part)
      for name, part in parts.items()
    }
    return fused_marks(module.fusion, reports.get("fusion", {}), encoded)

  ones = {k: part.mask.astype(jnp.float32)[:, None] for k, part in modalities.items()}
  total, pull_back = jax.vjp(read, ones)
  if total is None:
    return None
  scale = jnp.where(total > 0, 1 / jnp.where(total > 0, total, 1), 0)
  (weights,) = pull_back(scale)
  return {name: column[:, 0] for name, column in weights.items()}


def read_reports(
  module: SetModel | fusions.Fusion,
  variables: PyTree,
  modalities: Mapping[str, Ragged],
) -> Reports:
  """Return the collection "importance" that a module sows for an input."""
  _, state = module.apply(variables, modalities, train=False, mutable=["importance"])
  return state.get("importance", {})


def _through_encoder(reports: Reports, elements: Ragged) -> Ragged:
  """The marks of encoded elements, which may have met in a transformer.

  The weight that a sequence encoder multiplies its result by is left out.
  """
  return _through_transformer(reports.get("transformer", {}), elements)


def _through_transformer(reports: Reports, elements: Ragged) -> Ragged:
  """The marks after all blocks of a `transformer.Transformer`."""
  marks = elements.values
  for index in range(len(reports)):
    marks = _through_block(reports[f"block_{index}"]["MultiHeadAttention_0"], marks)
  return elements.replace(values=marks)


def _through_block(
  report: Reports, queries: Float[Array, "n 1"], keys: Float[Array, "m 1"] | None = None
) -> Float[Array, "n 1"]:
  """The marks of the results of a block; without keys the queries see each other."""
  return queries / 2 + _seen(report, queries if keys is None else keys)


def _seen(report: Reports, keys: Float[Array, "m 1"]) -> Float[Array, "n 1"]:
  """The half of a block's marks that comes from the keys."""
  q, k, plan = report["attended"]
  values = jnp.broadcast_to(keys[:, None], (*k.shape[:2], 1))
  # Inside `jax.shard_map` gradients vary over the axes of their arguments, and learned
  # queries or keys, such as seeds, are the same on all devices: here all vary alike.
  nothing = sum(jax.lax.full_like(x, 0, q.dtype, shape=()) for x in (q, k, values))
  q, k, values = q + nothing, k + nothing, values + nothing.astype(values.dtype)
  return attention.attend(q, k, values, plan).mean(axis=1) / 2


@functools.singledispatch
def fused_marks(
  fusion: fusions.Fusion, reports: Reports, marks: Marks
) -> Float[Array, "b 1"] | None:
  """The mark of the fused vector, or None if the fusion does not attend.

  This one is for fusions that report a weight for each element.

  Args:
    fusion: Its class selects the function, which may read its settings.
    reports: What the fusion has reported.
    marks: The marks of the encoded elements.
  """
  if "attention" not in reports:
    return None
  return sum(_weighted(reports["attention"], marks).values())


def _weighted(
  weights: Mapping[str, Float[Array, "n"]], marks: Marks
) -> dict[str, Float[Array, "b 1"]]:
  """The sum over the elements of each modality of weight times mark."""
  return {
    name: pooling.pool("sum", part.replace(values=part.values * weights[name][:, None]))
    for name, part in marks.items()
  }


@fused_marks.register
def _(fusion: fusions.HierarchicalFusion, reports: Reports, marks: Marks) -> Array:
  return sum(
    reports["modalities"][name][:, None] * vector
    for name, vector in _weighted(reports["elements"], marks).items()
  )


@fused_marks.register
def _(
  fusion: fusions.TorchMultimodalFusion, reports: Reports, marks: Marks
) -> Array | None:
  """A transformer after the attention is left out."""
  report = reports.get("fusion" if fusion.kind == "attention" else "deepset", {})
  if "weights" not in report:
    return None
  weights = report["weights"].reshape(-1, len(fusion.modalities))
  return sum(
    weights[:, index, None] * pooling.pool("mean", marks[name])
    for index, name in enumerate(sorted(fusion.modalities))
    if name in marks
  )


@fused_marks.register
def _(fusion: fusions.TwoStageFusion, reports: Reports, marks: Marks) -> Array:
  tokens, _ = ragged.concatenate([_vector(part) for _, part in sorted(marks.items())])
  tokens = _through_transformer(reports.get("transformer", {}), tokens)
  return pooling.pool("mean", tokens)


@fused_marks.register
def _(fusion: fusions.SingleStreamFusion, reports: Reports, marks: Marks) -> Array:
  elements = [part for _, part in sorted(marks.items())]
  tokens = [] if fusion.fused is None else [_vector(part) for part in elements]
  stream, slots = ragged.concatenate([*tokens, *elements])
  stream = _through_transformer(reports.get("transformer", {}), stream)
  return pooling.pool("mean", fusion.rows_read(stream, tokens, elements, slots))


def _vector(part: Ragged) -> Ragged:
  """One vector for each example that has elements, with their mean mark."""
  return ragged.from_vectors(pooling.pool("mean", part), part.lengths > 0)


@fused_marks.register
def _(fusion: fusions.SetTransformerFusion, reports: Reports, marks: Marks) -> Array:
  def report(name: str) -> Reports:
    return reports[name]["attention"]

  elements, _ = ragged.concatenate([part for _, part in sorted(marks.items())])
  values = elements.values
  for index in range(fusion.layers):
    if fusion.inducing is None:
      values = _through_block(report(f"encoder_{index}"), values)
    else:
      points = _seen(report(f"encoder_{index}_in"), values)
      values = _through_block(report(f"encoder_{index}_out"), values, points)
  seeds = _seen(report("pooling"), values)
  for index in range(fusion.decoder_layers if fusion.seeds > 1 else 0):
    seeds = _through_block(report(f"decoder_{index}"), seeds)
  return seeds.reshape(elements.num_examples, fusion.seeds).mean(axis=1, keepdims=True)


@fused_marks.register
def _(fusion: fusions.BottleneckFusion, reports: Reports, marks: Marks) -> Array:
  present = {name: part.lengths > 0 for name, part in marks.items()}
  b = next(iter(marks.values())).num_examples
  classes = b if fusion.pool is None else 0
  own = {k: jnp.pad(part.values, ((0, classes), (0, 0))) for k, part in marks.items()}
  shared = jnp.zeros((b * fusion.bottlenecks, 1), jnp.float32)
  for index in range(fusion.layers):
    report = reports[f"layer_{index}"]
    merged = jnp.zeros((len(report["attended"][0]), 1), jnp.float32)
    for name, slots in reports["slots"].items():
      rows = jnp.concatenate([own[name], shared])
      merged = merged.at[slots].set(rows, mode="drop", unique_indices=True)
    merged = _through_block(report, merged)
    copies = {}
    for name, slots in reports["slots"].items():
      rows = jnp.take(merged, slots, axis=0, mode="fill", fill_value=0)
      own[name], copy = jnp.split(rows, [len(own[name])])
      copies[name] = copy.reshape(b, -1)
    shared = mean_of_present(copies, present).reshape(shared.shape)
  read = {}
  for name, part in marks.items():
    elements, read[name] = jnp.split(own[name], [part.num_slots])
    if fusion.pool is not None:
      read[name] = pooling.pool("mean", part.replace(values=elements))
  return mean_of_present(read, present)
