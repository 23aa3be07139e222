"""Gradients: how the output answers to a little more or less of each element.

An element's weight multiplies its vector in the common space (`encoders.elements`), so
that the derivative by the weight, times the weight, is gradient times input summed over
the vector's features: the same for pixels, words and numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from deepsets_jax import sharding
from deepsets_jax.data.table import Table
from deepsets_jax.importance import outputs, result
from deepsets_jax.importance.outputs import Output
from deepsets_jax.importance.result import Importance
from deepsets_jax.ragged import Batch
from deepsets_jax.trained import Trained

# Points of the integral along the path.
_POINTS = 32


def gradient_x_input(trained: Trained, table: Table, output: Output) -> Importance:
  """The gradient at each element times the element, in the common space.

  Of a max pool an element that did not win has 0.
  """
  elements = _along(trained, table, output, np.ones(1), np.ones(1))
  return result.of_elements("gradient_x_input", table, elements)


def integrated_gradients(trained: Trained, table: Table, output: Output) -> Importance:
  """The gradient along the path from zero vectors to the elements, times the elements.

  Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks" (2017), by
  Gauss-Legendre quadrature of 32 points. The scores of an example add up to f(elements)
  - f(as many zero vectors), to the quadrature's error, which is large where norms make
  the path jump at its start: zeros are not absence.
  """
  points, weights = np.polynomial.legendre.leggauss(_POINTS)
  elements = _along(trained, table, output, (points + 1) / 2, weights / 2)
  return result.of_elements("integrated_gradients", table, elements)


def _along(
  trained: Trained,
  table: Table,
  output: Output,
  points: Sequence[float],
  weights: Sequence[float],
) -> dict[str, np.ndarray]:
  """The weighted sum of gradients at scaled elements, times the elements."""
  kind = output.target.kind
  of_shard = functools.partial(
    _of_shard,
    trained,
    kind,
    jnp.asarray(points, jnp.float32),
    jnp.asarray(weights, jnp.float32),
  )
  step = trained.step(("gradients", kind, len(points)), of_shard)
  return trained.per_element(step, output.as_targets(table))


def _of_shard(
  trained: Trained,
  kind: str,
  points: Array,
  weights: Array,
  params: PyTree,
  batch: Batch,
) -> dict[str, Array]:
  """By modality `[n]`: of one shard, whose targets are the output's weights."""
  modalities = batch.modalities
  # Nothing is asked of the parameters: no gradient of theirs is summed over devices.
  params = jax.lax.pcast(params, sharding.AXIS, to="varying")
  full = {
    name: v.mask.astype(jnp.float32) if v.weights is None else v.weights
    for name, v in modalities.items()
  }

  def total(of_elements: dict[str, Array]) -> Array:
    scaled = {k: v.replace(weights=of_elements[k]) for k, v in modalities.items()}
    logits = trained.run.model.apply({"params": params}, scaled)
    return outputs.score(kind, logits, batch.targets).sum()

  def at(point: Array) -> dict[str, Array]:
    return jax.grad(total)({k: v * point for k, v in full.items()})

  gradients = jax.lax.map(at, points)
  return {k: jnp.tensordot(weights, g, axes=1) * full[k] for k, g in gradients.items()}
