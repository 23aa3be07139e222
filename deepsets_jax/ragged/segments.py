"""Reductions of each example's elements, with the names of `jax.ops` and numpy.

Values are `[n, ...]` in the slots of a `Ragged`, whose own values are not read; results
are `[b, ...]`. For all of them:

* Whatever a padding slot holds takes no part, and gets a zero gradient.
* NaN in, NaN out: where an element is NaN, so is the result of its example, in that
  feature, and any gradient that depends on it. Other examples are not affected.
* Floats are reduced in float32, float64 in float64 (see `reductions` for the accuracy
  of sums); integers in their own type, where sums and products wrap around; booleans
  count as 0 and 1.
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
  """The sum of each example's values; 0 where there are none."""
  return reductions.segment_sum(_widened(values), elements.offsets)


def segment_prod(
  values: Shaped[Array, "n ..."], elements: Ragged
) -> Shaped[Array, "b ..."]:
  """The product of each example's values; 1 where there are none.

  The gradient is the product of the other values, also where some are zero.
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
  # A product without a single zero factor cannot be had by division.
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
  """The largest of each example's values.

  -inf, or the lowest integer of the type, where there are none. Elements that tie share
  the gradient equally.
  """
  return extreme_and_ties(values, elements, largest=True)[0]


def segment_min(
  values: Shaped[Array, "n ..."], elements: Ragged
) -> Shaped[Array, "b ..."]:
  """The smallest of each example's values.

  inf, or the highest integer of the type, where there are none. Elements that tie share
  the gradient equally.
  """
  return extreme_and_ties(values, elements, largest=False)[0]


def extreme_and_ties(
  values: Shaped[Array, "n ..."], elements: Ragged, *, largest: bool
) -> tuple[Shaped[Array, "b ..."], Float[Array, "b ..."]]:
  """The maximum (or minimum) of each example, and how many elements attain it.

  All elements of an example attain NaN.
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
  """A rule that scatters nothing in reverse mode.

  The default rule of JAX gathers twice and scatters once more.
  """
  values, offsets = primals
  value, _ = _extreme(largest, values, offsets)
  # Once for both, the ties and the backward pass.
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
  """Which elements are equal to their example's value; all of them where it is NaN.

  Arbitrary on padding, which no reduction reads: a mask would cost as much as this.
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
  """The tangent of a value: the mean over the elements that attain it; NaN of NaN."""
  total = reductions.tangent_sum(jnp.where(attained, tangent, 0), offsets)
  return total / _sharers(value, ties)


def _sharers(value, ties):
  """What a gradient is divided by: the number of elements it goes to; NaN of NaN.

  A division, not a product with the inverse: XLA takes it once for each example, where
  it would take a product again for each element.
  """
  return jnp.where(value != value, jnp.nan, jnp.maximum(ties, 1).astype(value.dtype))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def merge_extremes(largest, a, b):
  """The larger (or smaller) of two (value, ties) pairs.

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
  """Whether any of each example's values is true; False where there are none."""
  truth = _widened(values) != 0
  return reductions.segment_sum(truth.astype(jnp.int32), elements.offsets) > 0


def segment_all(
  values: Shaped[Array, "n ..."], elements: Ragged
) -> Bool[Array, "b ..."]:
  """Whether all of each example's values are true; True where there are none."""
  return ~segment_any(_widened(values) == 0, elements)


def segment_argmax(
  values: Shaped[Array, "n ..."], elements: Ragged
) -> Int[Array, "b ..."]:
  """The slot of the first of each example's largest values, or of its first NaN.

  `n` where there are none, so that `jnp.take(x, slots, axis=0, mode="fill")` gives the
  fill value there. Subtract `offsets[:-1]` for places inside the example.
  """
  return _argextreme(values, elements, largest=True)


def segment_argmin(
  values: Shaped[Array, "n ..."], elements: Ragged
) -> Int[Array, "b ..."]:
  """The slot of the first of each example's smallest values; see `segment_argmax`."""
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
  """The softmax of the scores over each example's elements.

  With dictionaries, over the example's elements of all modalities. 0 on padding and
  where the score is -inf, also if all of them are.
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
  # An example without a score above -inf has exponentials of 0, and so have slots of
  # padding, whose total reads as 0.
  return {
    k: exponentials[k] / _nonzero(v.to_elements(total)) for k, v in elements.items()
  }


def _nonzero(x: Array) -> Array:
  return jnp.where(x == 0, 1, x)


def shifted_exp(
  values: Float[Array, "n ..."], peak: Float[Array, "b ..."], elements: Ragged
) -> Float[Array, "n ..."]:
  """exp(value - peak of its example); 0 on padding."""
  shifted = values - elements.to_elements(finite(peak))
  # `where` before the exponential: on padding nothing bounds the value, and an infinite
  # exponential would make its gradient NaN.
  return jnp.exp(jnp.where(element_mask(values, elements.offsets), shifted, -jnp.inf))


def finite(peak: Array) -> Array:
  """The peak, or 0 where it is infinite or NaN: -inf - -inf would be NaN."""
  return jnp.where(jnp.isfinite(peak), peak, 0)


def _widened(values: Shaped[Array, "n ..."]) -> Shaped[Array, "n ..."]:
  return reductions.widened(jnp.asarray(values))
