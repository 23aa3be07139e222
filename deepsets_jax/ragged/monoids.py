"""The pools of `pooling`, each a commutative monoid.

Each implements the protocol `pooling.Pool`: `lift` elements to states, `merge` two
states, `finish` a state to the pooled values.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from deepsets_jax.ragged import reductions
from deepsets_jax.ragged.arrays import Ragged
from deepsets_jax.ragged.offsets import element_mask, expand_like
from deepsets_jax.ragged.segments import (
  extreme_and_ties,
  finite,
  merge_extremes,
  segment_max,
  segment_prod,
  segment_sum,
  shifted_exp,
)


class _Total(NamedTuple):
  count: Int[Array, "b ..."]
  total: Float[Array, "b ..."]


class Sum:
  """Sum of the elements."""

  def lift(self, elements: Ragged, scores: Array | None = None) -> _Total:
    refuse_scores(scores, self)
    return _Total(_count(elements), segment_sum(floats(elements), elements))

  def merge(self, a: _Total, b: _Total) -> _Total:
    return _Total(a.count + b.count, a.total + b.total)

  def finish(self, state: _Total, empty: float = 0.0) -> Float[Array, "..."]:
    return jnp.where(state.count > 0, state.total, empty)


class Mean(Sum):
  """Mean element. Counts come from the offsets, and are exact up to 2**24."""

  def finish(self, state: _Total, empty: float = 0.0) -> Float[Array, "..."]:
    mean = state.total / _at_least_one(state.count, state.total)
    return jnp.where(state.count > 0, mean, empty)


class Prod(Sum):
  """Product of the elements, with a right gradient at zeros, too."""

  def lift(self, elements: Ragged, scores: Array | None = None) -> _Total:
    refuse_scores(scores, self)
    return _Total(_count(elements), segment_prod(floats(elements), elements))

  def merge(self, a: _Total, b: _Total) -> _Total:
    return _Total(a.count + b.count, a.total * b.total)


class _Extreme(NamedTuple):
  count: Int[Array, "b ..."]
  value: Float[Array, "b ..."]
  ties: Float[Array, "b ..."]


class Max:
  """Largest value of each feature.

  Elements that tie share the gradient equally, within a modality and across modalities:
  the state carries the number of elements that attain the value.
  """

  largest = True

  def lift(self, elements: Ragged, scores: Array | None = None) -> _Extreme:
    refuse_scores(scores, self)
    value, ties = extreme_and_ties(floats(elements), elements, largest=self.largest)
    return _Extreme(_count(elements), value, ties)

  def merge(self, a: _Extreme, b: _Extreme) -> _Extreme:
    value, ties = merge_extremes(self.largest, (a.value, a.ties), (b.value, b.ties))
    return _Extreme(a.count + b.count, value, ties)

  def finish(self, state: _Extreme, empty: float = 0.0) -> Float[Array, "..."]:
    return jnp.where(state.count > 0, state.value, empty)


class Min(Max):
  """Smallest value of each feature, with ties as in `Max`."""

  largest = False


class _Exponentials(NamedTuple):
  count: Int[Array, "b ..."]
  peak: Float[Array, "b ..."]
  total: Float[Array, "b ..."]
  weighted: Float[Array, "b ..."] | None


class LogSumExp:
  """Logarithm of the sum of exponentials of each feature."""

  def lift(self, elements: Ragged, scores: Array | None = None) -> _Exponentials:
    refuse_scores(scores, self)
    peak, exponentials = _exponentials(floats(elements), elements)
    total = segment_sum(exponentials, elements)
    return _Exponentials(_count(elements), peak, total, None)

  def merge(self, a: _Exponentials, b: _Exponentials) -> _Exponentials:
    peak = jnp.maximum(a.peak, b.peak)
    scale_a, scale_b = jnp.exp(a.peak - finite(peak)), jnp.exp(b.peak - finite(peak))

    def add(x, y):
      if x is None:
        return None
      # The barrier rounds both products before the sum; a fused multiply-add would not
      # round one of them.
      x, y = jax.lax.optimization_barrier((x * scale_a, y * scale_b))
      return x + y

    return _Exponentials(
      a.count + b.count, peak, add(a.total, b.total), add(a.weighted, b.weighted)
    )

  def finish(self, state: _Exponentials, empty: float = 0.0) -> Float[Array, "..."]:
    none = state.total == 0
    # `where` comes before the logarithm, whose gradient at 0 is not finite.
    log = jnp.log(jnp.where(none, 1, state.total)) + finite(state.peak)
    # The sum is also 0 for elements that are all -inf, which are not an empty set.
    return jnp.where(none, jnp.where(state.count > 0, -jnp.inf, empty), log)


class Softmax(LogSumExp):
  """Mean element, weighted by the softmax of given scores.

  Scores are `[n]`, one per element, or have more axes of the values, up to one per
  feature. The softmax runs over the elements of an example in all modalities. An
  element of score -inf is ignored; an example with no other element counts as empty.
  """

  def lift(self, elements: Ragged, scores: Array | None = None) -> _Exponentials:
    if scores is None:
      raise ValueError("the softmax pool needs scores: pass one per element")
    values = floats(elements)
    scores = scores.astype(values.dtype)
    scores = scores.reshape(*scores.shape, *[1] * (values.ndim - scores.ndim))
    peak, exponentials = _exponentials(scores, elements)
    # Ignored elements and padding may hold anything, such as NaN.
    part = element_mask(values, elements.offsets) & (scores != -jnp.inf)
    values = jnp.where(part, values, 0)
    return _Exponentials(
      count=_count(elements),
      peak=peak,
      total=segment_sum(exponentials, elements),
      weighted=segment_sum(exponentials * values, elements),
    )

  def finish(self, state: _Exponentials, empty: float = 0.0) -> Float[Array, "..."]:
    none = state.total == 0
    return jnp.where(none, empty, state.weighted / jnp.where(none, 1, state.total))


class _Powers(NamedTuple):
  count: Int[Array, "b ..."]
  scale: Float[Array, "b ..."]
  total: Float[Array, "b ..."]


class PowerMean:
  """Power mean, (mean of x^p)^(1/p); with p = 2 it is the root mean square.

  Elements are scaled by the largest magnitude of their example (the smallest if `p` is
  negative), so that powers do not overflow. A negative element needs an integer `p`:
  for odd `p` the root keeps the sign, and for fractional `p` the result is NaN. The
  gradient is 0 where the mean is 0 and, for `p` below 1, where the element is 0.

  Attributes:
    p: The exponent, finite and not 0.

  Raises:
    ValueError: `p` is 0, infinite or NaN.
  """

  def __init__(self, p: float | int):
    if not math.isfinite(p) or p == 0:
      raise ValueError(
        f"a power mean of p = {p}: p must be finite and not 0; the limits are the"
        " pools 'max' (p = inf) and 'min' (p = -inf)"
      )
    self.p = p

  def lift(self, elements: Ragged, scores: Array | None = None) -> _Powers:
    refuse_scores(scores, self)
    values = floats(elements)
    part = element_mask(values, elements.offsets)
    size = jnp.abs(jax.lax.stop_gradient(values))
    scale, _ = extreme_and_ties(size, elements, largest=self.p > 0)
    # Padding, and zeros whose power or gradient would be infinite, are replaced by 1
    # until the power is taken, and are left out of the sum.
    if self.p < 1:
      part &= values != 0
    scaled = jnp.where(part, values, 1)
    scaled = scaled / jnp.where(part, elements.to_elements(_usable(scale)), 1)
    powers = jnp.where(part, self._power(scaled), 0)
    return _Powers(_count(elements), scale, segment_sum(powers, elements))

  def _power(self, x: Array) -> Array:
    if float(self.p).is_integer():
      return jax.lax.integer_pow(x, int(self.p))
    return x**self.p

  def merge(self, a: _Powers, b: _Powers) -> _Powers:
    scale = (jnp.maximum if self.p > 0 else jnp.minimum)(a.scale, b.scale)

    def rescaled(x):
      ratio = _usable(x.scale) / _usable(scale)
      # The identity has an infinite scale and a total of 0.
      return jnp.where(x.count > 0, x.total * self._power(ratio), 0)

    x, y = jax.lax.optimization_barrier((rescaled(a), rescaled(b)))
    return _Powers(a.count + b.count, scale, x + y)

  def finish(self, state: _Powers, empty: float = 0.0) -> Float[Array, "..."]:
    mean = state.total / _at_least_one(state.count, state.total)
    size = jnp.abs(mean) if self.p % 2 == 1 else mean
    # With a negative exponent, one element of 0 makes the mean 0.
    zero = (size == 0) | (state.scale == 0)
    # `where` comes before the root, whose gradient at 0 is not finite.
    root = jnp.where(zero, 1, size) ** (1 / self.p)
    root = jnp.sign(mean) * root if self.p % 2 == 1 else root
    root = jnp.where(zero, 0, root) * _usable(state.scale)
    return jnp.where(state.count > 0, root, empty)


def _usable(scale: Array) -> Array:
  """Return a scale to divide by: 1 instead of 0 and infinity (also of empty sets)."""
  return jnp.where((scale == 0) | jnp.isinf(scale), 1, scale)


class _Moments(NamedTuple):
  count: Int[Array, "b ..."]
  first: Float[Array, "b ..."]
  mean: Float[Array, "b ..."]
  squares: Float[Array, "b ..."]


class Var:
  """Population variance of each feature; 0 for a single element.

  The first element of the example, and then the mean, are subtracted from all elements:
  equal elements have a variance of exactly 0, and numbers far from 0 lose no digits.
  States are merged by the formula of Chan, Golub and LeVeque (1979), which avoids the
  cancellation of a difference of two large sums. Their means are relative to the first
  element.
  """

  def lift(self, elements: Ragged, scores: Array | None = None) -> _Moments:
    refuse_scores(scores, self)
    values, count = floats(elements), _count(elements)
    values = reductions.without_gradient_on_padding(values, elements.offsets)
    size = _at_least_one(count, values)
    # Neither the variance nor its gradient depends on the number subtracted.
    first = jax.lax.stop_gradient(_first(values, elements))
    shifted = values - elements.to_elements(first)
    mean = segment_sum(shifted, elements) / size
    deviations = shifted - elements.to_elements(mean)
    return _Moments(count, first, mean, segment_sum(deviations**2, elements))

  def merge(self, a: _Moments, b: _Moments) -> _Moments:
    count = a.count + b.count
    # The division comes first: if `a` is empty, the share is exactly 1.
    share = b.count.astype(a.mean.dtype) / _at_least_one(count, a.mean)
    some_a, some_b = a.count > 0, b.count > 0
    first = jnp.where(some_a, a.first, b.first)
    # An empty side takes the mean of the other, so that the means differ by exactly 0.
    mean_a = jnp.where(some_a, (a.first - first) + a.mean, b.mean)
    mean_b = jnp.where(some_b, (b.first - first) + b.mean, mean_a)
    delta = mean_b - mean_a
    between = delta**2 * (a.count.astype(a.mean.dtype) * share)
    mean = mean_a + delta * share
    return _Moments(count, first, mean, a.squares + b.squares + between)

  def finish(self, state: _Moments, empty: float = 0.0) -> Float[Array, "..."]:
    variance = state.squares / _at_least_one(state.count, state.squares)
    return jnp.where(state.count > 0, variance, empty)


class Std(Var):
  """Population standard deviation; its gradient is 0 where the deviation is 0."""

  def finish(self, state: _Moments, empty: float = 0.0) -> Float[Array, "..."]:
    variance = super().finish(state)
    zero = variance == 0
    root = jnp.sqrt(jnp.where(zero, 1, variance))
    return jnp.where(state.count > 0, jnp.where(zero, 0, root), empty)


def refuse_scores(scores: Array | None, owner: Any) -> None:
  """Raise an error if scores are given to a pool that does not use them."""
  if scores is not None:
    raise ValueError(f"{type(owner).__name__} takes no scores; only softmax does")


def floats(elements: Ragged) -> Float[Array, "n ..."]:
  """Return the values as float32, or as float64 if they are; also of a host batch."""
  values = reductions.widened(jnp.asarray(elements.values))
  inexact = jnp.issubdtype(values.dtype, jnp.inexact)
  return values if inexact else values.astype(jnp.float32)


def _count(elements: Ragged) -> Int[Array, "b ..."]:
  """Return the number of elements of each example, with as many axes as the values."""
  return expand_like(jnp.asarray(elements.lengths), elements.values)


def _at_least_one(count: Array, values: Array) -> Array:
  return jnp.maximum(count, 1).astype(values.dtype)


def _first(values: Array, elements: Ragged) -> Array:
  """Return the first element of each example; 0 for an empty example."""
  count = _count(elements)
  if values.shape[0] == 0:
    return jnp.zeros((count.shape[0], *values.shape[1:]), values.dtype)
  first = jnp.take(values, elements.offsets[:-1], axis=0, mode="clip")
  return jnp.where(count > 0, first, 0)


def _exponentials(values: Array, elements: Ragged) -> tuple[Array, Array]:
  """Return the peak of each example, and exp(value - peak) of each element.

  The gradient treats the peak as a constant, because results do not depend on it.
  """
  peak = segment_max(jax.lax.stop_gradient(values), elements)
  return peak, shifted_exp(values, peak, elements)
