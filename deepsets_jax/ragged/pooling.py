"""Pools of ragged elements, each a commutative monoid.

`lift` turns one modality's elements into a partial state per example, `merge` joins
two partial states, `finish` gives the pooled vector. One `merge` therefore pools over
elements, over modalities, over chunks of a set too large for memory and over devices,
and order and grouping cannot matter (Reiter et al., 2020, "Deep Multi-Modal Sets",
pool by sum, max and min).

What holds for every pool. Elements in padding slots take no part, and get a zero
gradient. An example without elements gives `empty`, 0 by default, and passes no
gradient. An absent modality is the identity of `merge`: the result is that of the
same call without the modality, bit for bit; only "softmax" and "logsumexp", compiled,
may differ in the last bit. Reductions are in float32 whatever the input's type, and so
is the result.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from deepsets_jax.ragged.arrays import Ragged
from deepsets_jax.ragged.segments import merge_max, segment_max, segment_sum


@runtime_checkable
class Pool(Protocol):
  """A commutative monoid over elements; states are pytrees with a leading `b`."""

  def lift(self, elements: Ragged, scores: Array | None = None) -> Any:
    """The partial state of each example; `scores` only for `Softmax`."""

  def merge(self, a: Any, b: Any) -> Any:
    """The state of the union of two disjoint sets of elements."""

  def finish(self, state: Any, empty: float = 0.0) -> Float[Array, "*q b d"]:
    """The pooled vectors; `empty` where an example has no elements.

    States, here and in `merge`, may have further axes in front.
    """


def pool(
  pool: Pool | str,
  elements: Ragged | Mapping[str, Ragged],
  *,
  scores: Array | Mapping[str, Array] | None = None,
  empty: float = 0.0,
) -> Float[Array, "b d"]:
  """The pooled elements of each example, of one modality or of several.

  Args:
    pool: A pool, or its name in `POOLS`.
    elements: Vectors `[n, d]`; a dictionary's modalities share `b` and `d`, and are
      merged in sorted order, so that the caller's order does not matter to a bit.
    scores: For "softmax": `[n]` or `[n, d]`, in the form of `elements`.
    empty: The value of an example without elements.

  Raises:
    ValueError: An unknown pool, scores missing or not used, or no modality.
  """
  owner = get(pool)
  if isinstance(elements, Ragged):
    return owner.finish(owner.lift(elements, scores), empty)
  if not elements:
    raise ValueError("no modality to pool: give at least one, its sets may be empty")
  scores = scores or {}
  # Barriers, so that lifting and merging compile to the same code whatever stands
  # beside them; otherwise an absent modality could change the last bit. (Of "softmax"
  # and "logsumexp" it still can: XLA rounds fused exponentials as it likes.)
  barrier = jax.lax.optimization_barrier
  lifted = [barrier(owner.lift(elements[k], scores.get(k))) for k in sorted(elements)]
  merged = functools.reduce(lambda a, b: barrier(owner.merge(a, b)), lifted)
  return owner.finish(merged, empty)


def merge_across(pool: Pool | str, state: Any, axis_name: str) -> Any:
  """The merged state of all devices along a mesh axis, inside `jax.shard_map`.

  For sets larger than a device: each holds some elements of every example. Partial
  states travel (`b x d`, not the elements) and are merged in device order. The result
  is the same on all devices and typed so, hence a `psum` of placed states, not a
  gather: a replicated output needs it, and its gradient is counted once.
  """
  size, index = jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name)

  def share(leaf):
    placed = jnp.zeros((size, *leaf.shape), leaf.dtype).at[index].set(leaf)
    return jax.lax.psum(placed, axis_name)

  shared = jax.tree.map(share, state)
  parts = [jax.tree.map(lambda leaf, i=i: leaf[i], shared) for i in range(size)]
  return functools.reduce(get(pool).merge, parts)


def get(pool: Pool | str) -> Pool:
  """The pool of this name, or the pool itself.

  Raises:
    ValueError: No such name; the message lists the legal ones.
  """
  if not isinstance(pool, str):
    return pool
  if pool not in POOLS:
    raise ValueError(f"unknown pool {pool!r}; one of {sorted(POOLS)}")
  return POOLS[pool]


class _Total(NamedTuple):
  count: Int[Array, "b 1"]
  total: Float[Array, "b d"]


class Sum:
  """The sum of the elements."""

  def lift(self, elements: Ragged, scores: Array | None = None) -> _Total:
    _refuse(scores, self)
    return _Total(_count(elements), segment_sum(_float32(elements), elements))

  def merge(self, a: _Total, b: _Total) -> _Total:
    return _Total(a.count + b.count, a.total + b.total)

  def finish(self, state: _Total, empty: float = 0.0) -> Float[Array, "*q b d"]:
    return jnp.where(state.count > 0, state.total, empty)


class Mean(Sum):
  """The mean element; counts come from the offsets, exact up to 2**24."""

  def finish(self, state: _Total, empty: float = 0.0) -> Float[Array, "*q b d"]:
    count = jnp.maximum(state.count, 1).astype(jnp.float32)
    return jnp.where(state.count > 0, state.total / count, empty)


class _Extreme(NamedTuple):
  count: Int[Array, "b 1"]
  value: Float[Array, "b d"]
  ties: Float[Array, "b d"]


class Max:
  """The largest value of each feature.

  Elements that tie share the gradient equally, in one modality or across several:
  the state carries how many attain the value, and each passes on its share.
  """

  def lift(self, elements: Ragged, scores: Array | None = None) -> _Extreme:
    _refuse(scores, self)
    value, ties = segment_max(_float32(elements), elements)
    return _Extreme(_count(elements), value, ties)

  def merge(self, a: _Extreme, b: _Extreme) -> _Extreme:
    value, ties = merge_max((a.value, a.ties), (b.value, b.ties))
    return _Extreme(a.count + b.count, value, ties)

  def finish(self, state: _Extreme, empty: float = 0.0) -> Float[Array, "*q b d"]:
    return jnp.where(state.count > 0, state.value, empty)


class Min(Max):
  """The smallest value of each feature; ties as in `Max`."""

  def lift(self, elements: Ragged, scores: Array | None = None) -> _Extreme:
    return super().lift(elements.replace(values=-_float32(elements)), scores)

  def finish(self, state: _Extreme, empty: float = 0.0) -> Float[Array, "*q b d"]:
    return jnp.where(state.count > 0, -state.value, empty)


class _Exponentials(NamedTuple):
  count: Int[Array, "b 1"]
  peak: Float[Array, "b d"]
  total: Float[Array, "b d"]
  weighted: Float[Array, "b d"] | None


class LogSumExp:
  """The logarithm of the sum of exponentials of each feature."""

  def lift(self, elements: Ragged, scores: Array | None = None) -> _Exponentials:
    _refuse(scores, self)
    peak, exponentials = _exponentials(_float32(elements), elements)
    total = segment_sum(exponentials, elements)
    return _Exponentials(_count(elements), peak, total, None)

  def merge(self, a: _Exponentials, b: _Exponentials) -> _Exponentials:
    peak = jnp.maximum(a.peak, b.peak)
    finite = _finite(peak)
    scale_a, scale_b = jnp.exp(a.peak - finite), jnp.exp(b.peak - finite)

    def add(x, y):
      if x is None:
        return None
      # Rounded before the sum: a fused multiply-add may take either product.
      x, y = jax.lax.optimization_barrier((x * scale_a, y * scale_b))
      return x + y

    return _Exponentials(
      a.count + b.count, peak, add(a.total, b.total), add(a.weighted, b.weighted)
    )

  def finish(self, state: _Exponentials, empty: float = 0.0) -> Float[Array, "*q b d"]:
    some = state.total > 0
    # `where` before the logarithm: its gradient at 0 is not finite.
    log = jnp.log(jnp.where(some, state.total, 1.0)) + _finite(state.peak)
    # Of elements that are all -inf the sum is 0, and they are not an empty set.
    return jnp.where(some, log, jnp.where(state.count > 0, -jnp.inf, empty))


class Softmax(LogSumExp):
  """The mean element, weighted by the softmax of given scores.

  Scores are `[n]`, one per element, or `[n, d]`, one per feature; the softmax runs
  over all elements of an example, whatever their modality. An element of score -inf
  takes no part, and where all have it the example counts as empty.
  """

  def lift(self, elements: Ragged, scores: Array | None = None) -> _Exponentials:
    if scores is None:
      raise ValueError("the softmax pool needs scores, one per element")
    scores = scores.astype(jnp.float32)
    scores = scores[:, None] if scores.ndim == 1 else scores
    peak, exponentials = _exponentials(scores, elements)
    return _Exponentials(
      count=_count(elements),
      peak=peak,
      total=segment_sum(exponentials, elements),
      weighted=segment_sum(exponentials * _float32(elements), elements),
    )

  def finish(self, state: _Exponentials, empty: float = 0.0) -> Float[Array, "*q b d"]:
    some = state.total > 0
    return jnp.where(some, state.weighted / jnp.where(some, state.total, 1.0), empty)


class _Moments(NamedTuple):
  count: Int[Array, "b 1"]
  mean: Float[Array, "b d"]
  squares: Float[Array, "b d"]


class Var:
  """The population variance of each feature; 0 for a single element.

  Sums of squared deviations are merged by Chan, Golub and LeVeque (1979), which does
  not cancel as the difference of two large sums does.
  """

  def lift(self, elements: Ragged, scores: Array | None = None) -> _Moments:
    _refuse(scores, self)
    values, count = _float32(elements), _count(elements)
    mean = segment_sum(values, elements) / jnp.maximum(count, 1).astype(jnp.float32)
    deviations = values - elements.to_elements(mean)
    return _Moments(count, mean, segment_sum(deviations**2, elements))

  def merge(self, a: _Moments, b: _Moments) -> _Moments:
    count = a.count + b.count
    # Divided first: where a is empty the share is exactly 1, and merging exact.
    share = b.count.astype(jnp.float32) / jnp.maximum(count, 1).astype(jnp.float32)
    delta = b.mean - a.mean
    between = delta**2 * (a.count.astype(jnp.float32) * share)
    return _Moments(count, a.mean + delta * share, a.squares + b.squares + between)

  def finish(self, state: _Moments, empty: float = 0.0) -> Float[Array, "*q b d"]:
    count = jnp.maximum(state.count, 1).astype(jnp.float32)
    return jnp.where(state.count > 0, state.squares / count, empty)


class Std(Var):
  """The population standard deviation; gradient 0 where it is 0."""

  def finish(self, state: _Moments, empty: float = 0.0) -> Float[Array, "*q b d"]:
    variance = super().finish(state)
    spread = variance > 0
    root = jnp.sqrt(jnp.where(spread, variance, 1.0))
    return jnp.where(state.count > 0, jnp.where(spread, root, 0.0), empty)


POOLS: Mapping[str, Pool] = {
  "sum": Sum(),
  "mean": Mean(),
  "max": Max(),
  "min": Min(),
  "logsumexp": LogSumExp(),
  "softmax": Softmax(),
  "var": Var(),
  "std": Std(),
}


def _refuse(scores: Array | None, owner: Pool) -> None:
  if scores is not None:
    raise ValueError(f"{type(owner).__name__} takes no scores; only softmax does")


def _float32(elements: Ragged) -> Float[Array, "n d"]:
  return elements.values.astype(jnp.float32)


def _count(elements: Ragged) -> Int[Array, "b 1"]:
  return jnp.asarray(elements.lengths)[:, None]  # A host batch works, too.


def _exponentials(values: Array, elements: Ragged) -> tuple[Array, Array]:
  """The largest value per example, and exp(value - largest) per element.

  The peak is a constant to the gradient: whatever it is, the result is the same.
  """
  peak, _ = segment_max(jax.lax.stop_gradient(values), elements)
  return peak, jnp.exp(values - elements.to_elements(_finite(peak)))


def _finite(peak: Array) -> Array:
  """The peak, or 0 where nothing is above -inf: -inf - -inf would be NaN."""
  return jnp.where(jnp.isfinite(peak), peak, 0.0)
