"""Pools of ragged elements, each a commutative monoid.

`lift` turns one modality's elements into a partial state per example, `merge` joins
two partial states, `finish` gives the pooled values. One `merge` therefore pools over
elements, over modalities, over chunks of a set too large for memory and over devices,
and order and grouping cannot matter (Reiter et al., 2020, "Deep Multi-Modal Sets",
pool by sum, max and min). `Quantile` is the exception: it needs a set's elements at
once, so it pools over modalities by joining them, and does not merge.

What holds for every pool:

* Values are `[n, ...]`, whatever an element's shape. Each feature is pooled by itself.
* Whatever a padding slot holds takes no part, and gets a zero gradient.
* An example without elements gives `empty`, 0 by default, and passes no gradient.
* NaN in, NaN out: where an element is NaN, so is the result of its example, in that
  feature, and any gradient that depends on it. Other examples are not affected.
* An absent modality is the identity of `merge`: the result is that of the same call
  without the modality, bit for bit; only "softmax", "logsumexp" and power means,
  compiled, may differ in the last bit.
* Reductions and results are in float32 whatever the input's type, in float64 if it is.
  They are within 1e-6 of float64, relative to the sum of magnitudes, for up to 10^7
  elements in an example.
* Derivatives exist in forward and in reverse mode, and of higher order.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax.ragged.arrays import Ragged
from deepsets_jax.ragged.monoids import (
  LogSumExp,
  Max,
  Mean,
  Min,
  PowerMean,
  Prod,
  Softmax,
  Std,
  Sum,
  Var,
  floats,
  refuse_scores,
)
from deepsets_jax.ragged.ordering import segment_quantile
from deepsets_jax.ragged.structure import concatenate


@runtime_checkable
class Pool(Protocol):
  """A commutative monoid over elements; states are pytrees with a leading `b`."""

  def lift(self, elements: Ragged, scores: Array | None = None) -> Any:
    """The partial state of each example; `scores` only for `Softmax`."""

  def merge(self, a: Any, b: Any) -> Any:
    """The state of the union of two disjoint sets of elements."""

  def finish(self, state: Any, empty: float = 0.0) -> Float[Array, "..."]:
    """The pooled values `[b, ...]`; `empty` where an example has no elements.

    States, here and in `merge`, may have further axes in front.
    """


def pool(
  pool: Pool | Quantile | str,
  elements: Ragged | Mapping[str, Ragged],
  *,
  scores: Array | Mapping[str, Array] | None = None,
  empty: float = 0.0,
) -> Float[Array, "b ..."]:
  """The pooled elements of each example, of one modality or of several.

  Args:
    pool: A pool, or its name in `POOLS` or `WHOLE_SET_POOLS`.
    elements: Values `[n, ...]`; a dictionary's modalities share `b` and the shape of
      an element, and are merged in sorted order, so that the caller's order does not
      matter to a bit.
    scores: For "softmax": `[n]`, or with more axes of the values, in the form of
      `elements`.
    empty: The value of an example without elements.

  Raises:
    ValueError: An unknown pool, scores missing or not used, or no modality.
  """
  owner = WHOLE_SET_POOLS.get(pool, pool) if isinstance(pool, str) else pool
  if not isinstance(elements, Ragged) and not elements:
    raise ValueError("no modality to pool: give at least one, its sets may be empty")
  if isinstance(owner, Quantile):
    refuse_scores(scores, owner)
    return owner.of(elements, empty)
  owner = get(owner)
  if isinstance(elements, Ragged):
    return owner.finish(owner.lift(elements, scores), empty)
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
  """The pool that merges of this name, or the pool itself.

  Raises:
    ValueError: No such name; the message lists the legal ones.
  """
  if not isinstance(pool, str):
    return pool
  if pool in WHOLE_SET_POOLS:
    raise ValueError(
      f"the pool {pool!r} does not merge partial states; one of {sorted(POOLS)}"
    )
  if pool not in POOLS:
    raise ValueError(
      f"unknown pool {pool!r}; one of {sorted([*POOLS, *WHOLE_SET_POOLS])}"
    )
  return POOLS[pool]


@dataclasses.dataclass(frozen=True)
class Quantile:
  """A quantile of each feature, see `ordering.segment_quantile`. It does not merge.

  Attributes:
    q: Between 0 (the minimum) and 1 (the maximum).
    method: What is taken where the quantile lies between two elements.
  """

  q: float | int
  method: str = "linear"

  def of(
    self, elements: Ragged | Mapping[str, Ragged], empty: float = 0.0
  ) -> Float[Array, "b ..."]:
    """The quantile of each example, over its elements of all modalities."""
    if not isinstance(elements, Ragged):
      elements, _ = concatenate([elements[k] for k in sorted(elements)])
    return segment_quantile(floats(elements), elements, self.q, self.method, empty)


POOLS: Mapping[str, Pool] = {
  "sum": Sum(),
  "mean": Mean(),
  "prod": Prod(),
  "max": Max(),
  "min": Min(),
  "logsumexp": LogSumExp(),
  "softmax": Softmax(),
  "rms": PowerMean(2),
  "var": Var(),
  "std": Std(),
}
# Those that need all elements of a set at once, and do not merge. The median is the
# lower of the two in the middle, as in torch.
WHOLE_SET_POOLS: Mapping[str, Quantile] = {"median": Quantile(0.5, "lower")}
