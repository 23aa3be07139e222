"""Segment ops: reductions of each example's elements, and the softmax over them.

Names are those of `jax.ops` and numpy. Values are `[n, ...]` in the slots of a
`Ragged`, whose own values are not read; results are `[b, ...]`. All ops share:

* The contents of padding slots do not matter, and their gradient is zero.
* NaN in, NaN out: where an element is NaN, so is the result of its example in that
  feature, and any gradient that depends on it. Other examples are not affected.
* Floats are reduced in float32, float64 in float64 (see `reductions` for the accuracy
  of sums). Integers are reduced in their own type, in which sums and products wrap
  around. Booleans count as 0 and 1.
* Derivatives exist in forward and in reverse mode.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from deepsets_jax.ragged import reductions
from deepsets_jax.ragged.arrays import Ragged
from deepsets_jax.ragged.offsets import element_mask, expand_like


def segment_sum(
  values: Shaped[Array, "n ..."], elements: Ragged
) -> Shaped[Array, "b ..."]:
  """Sum each example's values; 0 for an empty example."""
  return reductions.segment_sum(_widened(values), elements.offsets)


def segment_prod(
  values: Shaped[Array, "n ..."], elements: Ragged
) -> Shaped[Array, "b ..."]:
  """Multiply each example's values; 1 for an empty example.

  The gradient of a value is the product of the others, even where some are zero.
  """
  return _prod(_widened(values), elements.offsets)


@jax.custom_jvp
def _prod(values, offsets):
  return reductions.segment_prod(values, offsets)


@_prod.defjvp
def _prod_jvp(primals, tangents):
  values, offsets = primals
  n = values.shape[0]
  product, zero = _prod(values, offsets), values == 0
  # Division cannot give the product of the others where a factor is zero.
  nonzero = _prod(jnp.where(zero, 1, values), offsets)
  zeros = reductions.segment_sum(zero.astype(jnp.int32), offsets)
  others = jnp.where(
    zero,
    reductions.spread(jnp.where(zeros == 1, nonzero, 0), offsets, n),
    reductions.spread(product, offsets, n) / jnp.where(zero, 1, values),
  )
  others = jnp.where(element_mask(values, offsets), others, 0)
  return product, reductions.tangent_sum(others * tangents[0], offsets)


def segment_max(
  values: Shaped[Array, "n ..."], elements: Ragged
) -> Shaped[Array, "b ..."]:
  """Return the largest of each example's values.

  An empty example gives -inf, or the lowest integer of the type. Elements that tie
  share the gradient equally.
  """
  return extreme_and_ties(values, elements, largest=True)[0]


def segment_min(
  values: Shaped[Array, "n ..."], elements: Ragged
) -> Shaped[Array, "b ..."]:
  """Return the smallest of each example's values.

  An empty example gives inf, or the highest integer of the type. Elements that tie
  share the gradient equally.
  """
  return extreme_and_ties(values, elements, largest=False)[0]


def extreme_and_ties(
  values: Shaped[Array, "n ..."], elements: Ragged, *, largest: bool
) -> tuple[Shaped[Array, "b ..."], Float[Array, "b ..."]]:
  """Return the maximum (or minimum) of each example, and the number of ties.

  Ties are the elements that attain the extreme. All elements of an example attain NaN.
  """
  return _extreme(largest, _widened(values), elements.offsets)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _extreme(largest, values, offsets):
  value = reductions.segment_extreme(values, offsets, largest)
  return value, _count(attains(values, value, offsets), offsets)


def _count(attained, offsets):
  ties = reductions.segment_sum(attained.astype(jnp.int32), offsets)
  return ties.astype(jnp.float32)


@_extreme.defjvp
def _extreme_jvp(largest, primals, tangents):
  """Differentiate without a scatter in reverse mode.

  The default rule of JAX gathers twice and scatters once more.
  """
  values, offsets = primals
  value, _ = _extreme(largest, values, offsets)
  # Computed once, for the ties and for the backward pass.
  attained = attains(values, value, offsets)
  ties = _count(attained, offsets)
  return (value, ties), (
    shared_tangent(attained, value, ties, tangents[0], offsets),
    jnp.zeros_like(ties),
  )


def attains(
  values: Shaped[Array, "n ..."],
  value: Shaped[Array, "b ..."],
  offsets,
) -> Bool[Array, "n ..."]:
  """Return True for elements equal to their example's value, and for all if it is NaN.

  Padding is arbitrary, because no reduction reads it: a mask would double the cost.
  """
  own = reductions.spread(value, offsets, values.shape[0])
  return (values == own) | (own != own)


def shared_tangent(
  attained: Bool[Array, "n ..."],
  value: Float[Array, "b ..."],
  ties: Shaped[Array, "b ..."],
  tangent: Float[Array, "n ..."],
  offsets,
) -> Float[Array, "b ..."]:
  """Return the mean tangent of the elements that attain a value; NaN if it is NaN."""
  total = reductions.tangent_sum(jnp.where(attained, tangent, 0), offsets)
  return total / _sharers(value, ties)


def _sharers(value, ties):
  """Return the number of elements that share a gradient; NaN for a value of NaN.

  Gradients are divided by it, not multiplied by its inverse: XLA computes the division
  once per example, but would compute a product again for each element.
  """
  return jnp.where(value != value, jnp.nan, jnp.maximum(ties, 1).astype(value.dtype))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def merge_extremes(largest, a, b):
  """Return the larger (or smaller) of two pairs of value and number of ties.

  Ties add up where the values are equal, and where one of them is NaN.
  """
  value = (jnp.maximum if largest else jnp.minimum)(a[0], b[0])
  ties_a, ties_b = _tied(a, value), _tied(b, value)
  return value, ties_a + ties_b


def _tied(pair, value):
  return jnp.where((pair[0] == value) | (value != value), pair[1], 0)


@merge_extremes.defjvp
def _merge_extremes_jvp(largest, primals, tangents):
  value, ties = merge_extremes(largest, *primals)
  total = sum(
    _tied(pair, value).astype(value.dtype) * pair_tangent[0]
    for pair, pair_tangent in zip(primals, tangents, strict=True)
  )
  tangent = total / _sharers(value, ties)
  return (value, ties), (tangent, jnp.zeros_like(ties))


def segment_any(
  values: Shaped[Array, "n ..."], elements: Ragged
) -> Bool[Array, "b ..."]:
  """Return whether any value of each example is true; False for an empty example."""
  truth = _widened(values) != 0
  return reductions.segment_sum(truth.astype(jnp.int32), elements.offsets) > 0


def segment_all(
  values: Shaped[Array, "n ..."], elements: Ragged
) -> Bool[Array, "b ..."]:
  """Return whether all values of each example are true; True for an empty example."""
  return ~segment_any(_widened(values) == 0, elements)


def segment_argmax(
  values: Shaped[Array, "n ..."], elements: Ragged
) -> Int[Array, "b ..."]:
  """Return the slot of each example's first largest value, or of its first NaN.

  An empty example gives `n`, so that `jnp.take(x, slots, axis=0, mode="fill")` gives
  the fill value there. Subtract `offsets[:-1]` for positions inside the example.
  """
  return _argextreme(values, elements, largest=True)


def segment_argmin(
  values: Shaped[Array, "n ..."], elements: Ragged
) -> Int[Array, "b ..."]:
  """Return the slot of each example's first smallest value, as `segment_argmax`."""
  return _argextreme(values, elements, largest=False)


def _argextreme(values, elements, largest):
  values, offsets = jax.lax.stop_gradient(_widened(values)), elements.offsets
  n = values.shape[0]
  value = reductions.segment_extreme(values, offsets, largest)
  hit = (values == reductions.spread(value, offsets, n)) | (values != values)
  slots = expand_like(jax.lax.iota(jnp.int32, n), values)
  slots = jnp.where(hit, slots, n)
  return jnp.minimum(reductions.segment_extreme(slots, offsets, largest=False), n)


def segment_softmax(
  scores: Float[Array, "n ..."] | Mapping[str, Float[Array, "n ..."]],
  elements: Ragged | Mapping[str, Ragged],
) -> Float[Array, "n ..."] | dict[str, Float[Array, "n ..."]]:
  """Compute the softmax of the scores over each example's elements.

  With dictionaries, the softmax runs over the example's elements of all modalities. The
  result is 0 on padding and where the score is -inf, even if all scores are.
  """
  if isinstance(elements, Ragged):
    return segment_softmax({"": scores}, {"": elements})[""]
  scores = {k: _widened(scores[k]) for k in elements}
  peak = functools.reduce(
    jnp.maximum,
    [
      reductions.segment_extreme(jax.lax.stop_gradient(scores[k]), v.offsets, True)
      for k, v in elements.items()
    ],
  )
  exponentials = {k: shifted_exp(scores[k], peak, v) for k, v in elements.items()}
  total = sum(segment_sum(exponentials[k], v) for k, v in elements.items())
  # The total is 0 for padding, and for an example whose scores are all -inf; their
  # exponentials are 0, too.
  return {
    k: exponentials[k] / _nonzero(v.to_elements(total)) for k, v in elements.items()
  }


def _nonzero(x: Array) -> Array:
  return jnp.where(x == 0, 1, x)


def shifted_exp(
  values: Float[Array, "n ..."], peak: Float[Array, "b ..."], elements: Ragged
) -> Float[Array, "n ..."]:
  """Return exp(value - peak of its example); 0 on padding."""
  shifted = values - elements.to_elements(finite(peak))
  # `where` comes before the exponential: values of padding have no bound, and an
  # infinite exponential would make the gradient NaN.
  return jnp.exp(jnp.where(element_mask(values, elements.offsets), shifted, -jnp.inf))


def finite(peak: Array) -> Array:
  """Return the peak, or 0 where it is infinite or NaN: -inf - -inf would be NaN."""
  return jnp.where(jnp.isfinite(peak), peak, 0)


def _widened(values: Shaped[Array, "n ..."]) -> Shaped[Array, "n ..."]:
  return reductions.widened(jnp.asarray(values))
