"""Gradient attributions: the response of the output to a small change of each element.

The input is the vector that the encoder makes of an element. Gradient times input,
summed over the features of the vector, is comparable between pixels, words and numbers;
it is also the derivative with respect to a factor on the vector. If the model
normalizes vectors (`normalize=True` in a set pool), the output does not depend on such
a factor and all scores are zero up to rounding: see `Attribution.rounding`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from deepsets_jax.analysis.attribution import outputs, result
from deepsets_jax.analysis.attribution.outputs import Output
from deepsets_jax.analysis.attribution.result import Attribution
from deepsets_jax.data.tables.ablation import Bags
from deepsets_jax.data.tables.table import Table
from deepsets_jax.models.set_model import SetModel
from deepsets_jax.ragged import Batch, Ragged
from deepsets_jax.tasks.trained import Trained
from deepsets_jax.training import sharding

# Quadrature points on the path.
_POINTS = 32
# Rounding error of a score, in float steps of the sum of its absolute terms. Measured:
# 0.8 for vectors scaled to length 1 with 2 to 512 features, in float32 and
# bfloat16. Without scaling, the scores of the same vectors are at least 8 steps of
# bfloat16.
_STEPS = 4


def gradient_x_input(trained: Trained, table: Table, output: Output) -> Attribution:
  """The gradient of the output at each element times the element's encoded vector.

  In a max pool, an element that wins no feature scores 0.
  """
  elements, rounding = _along(trained, table, output, np.ones(1), np.ones(1))
  return result.of_elements("gradient_x_input", table, elements, rounding=rounding)


def integrated_gradients(trained: Trained, table: Table, output: Output) -> Attribution:
  """The mean gradient on the path from zero vectors to the elements, times these.

  Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks" (2017), with
  Gauss-Legendre quadrature at 32 points. The scores of an example add up to f(elements)
  - f(the same number of zero vectors), up to the `gap` of the result. The gap is the
  error of the quadrature; it is large where norms make the output jump at the start of
  the path. A zero vector is not the same as an absent element.
  """
  points, weights = np.polynomial.legendre.leggauss(_POINTS)
  elements, rounding = _along(trained, table, output, (points + 1) / 2, weights / 2)
  step = trained.step(
    ("ends", output.target.kind),
    functools.partial(_ends, trained.run.model, output.target.kind),
  )
  full, zero = trained.per_example(step, output.as_targets(table)).T.astype(np.float64)
  bags = Bags(table)
  gap = full - zero - bags.total(bags.join(elements))
  return result.of_elements(
    "integrated_gradients", table, elements, rounding=rounding, gap=gap
  )


def _along(
  trained: Trained,
  table: Table,
  output: Output,
  points: Sequence[float],
  weights: Sequence[float],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """The weighted sum of gradients at scaled elements, times the elements.

  Returns:
    The scores by modality, `[n]`, and the bound on their rounding error, `[b]`.
  """
  kind = output.target.kind
  of_shard = functools.partial(
    _of_shard,
    trained.run.model,
    kind,
    jnp.asarray(points, jnp.float32),
    jnp.asarray(weights, jnp.float32),
  )
  step = trained.step(("gradients", kind, len(points)), of_shard)
  both = trained.per_element(step, output.as_targets(table))
  bags = Bags(table)
  scores, rounding = ({k: v[:, i] for k, v in both.items()} for i in (0, 1))
  return scores, bags.total(bags.join(rounding))


def _of_shard(
  model: SetModel,
  kind: str,
  points: Array,
  weights: Array,
  params: PyTree,
  batch: Batch,
) -> dict[str, Array]:
  """Scores and rounding errors of one shard, by modality: `[n, 2]`.

  The targets of the shard hold the weights of the output.
  """
  # Parameters get no gradient, so that none is summed over devices.
  params = jax.lax.pcast(params, sharding.AXIS, to="varying")
  encoded = _encode(model, params, batch)
  full = {name: elements.values for name, elements in encoded.items()}

  def total(values: Mapping[str, Array]) -> Array:
    return _score(model, kind, params, batch, encoded, values).sum()

  def at(point: Array) -> dict[str, Array]:
    gradients = jax.grad(total)(_scaled(full, point))
    found = {}
    for name, gradient in gradients.items():
      terms = gradient.astype(jnp.float32) * full[name].astype(jnp.float32)
      error = _STEPS * float(jnp.finfo(gradient.dtype).eps) * jnp.abs(terms)
      found[name] = jnp.stack([terms.sum(axis=-1), error.sum(axis=-1)], axis=-1)
    return found

  return {
    k: jnp.tensordot(weights, v, axes=1) for k, v in jax.lax.map(at, points).items()
  }


def _ends(model: SetModel, kind: str, params: PyTree, batch: Batch) -> Array:
  """The output for the elements and for as many zero vectors: `[b, 2]` of a shard."""
  encoded = _encode(model, params, batch)
  full = {name: elements.values for name, elements in encoded.items()}
  return jnp.stack(
    [
      _score(model, kind, params, batch, encoded, _scaled(full, point))
      for point in (jnp.float32(1), jnp.float32(0))
    ],
    axis=-1,
  )


def _scaled(values: Mapping[str, Array], point: Array) -> dict[str, Array]:
  return {k: v * point.astype(v.dtype) for k, v in values.items()}


def _encode(model: SetModel, params: PyTree, batch: Batch) -> dict[str, Ragged]:
  def encode(model: SetModel, modalities: Mapping[str, Ragged]) -> dict[str, Ragged]:
    return {k: model.encoders[k](v, train=False) for k, v in modalities.items()}

  return model.apply({"params": params}, batch.modalities, method=encode)


def _score(
  model: SetModel,
  kind: str,
  params: PyTree,
  batch: Batch,
  encoded: Mapping[str, Ragged],
  values: Mapping[str, Array],
) -> Array:
  """The output if the elements' encoded vectors are replaced by `values`: `[b]`."""

  def logits(model: SetModel, modalities: Mapping[str, Ragged]) -> Array:
    return model.head(model.fusion(modalities, train=False), train=False)

  elements = {k: v.replace(values=values[k]) for k, v in encoded.items()}
  found = model.apply({"params": params}, elements, method=logits)
  return outputs.score(kind, found, batch.targets)
