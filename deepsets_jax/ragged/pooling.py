"""Pools of ragged elements, each a commutative monoid.

`lift` turns one modality's elements into a partial state per example, `merge` joins
two partial states, `finish` gives the pooled values. The same `merge` therefore pools
over elements, over modalities, over chunks of a set too large for memory and over
devices, and order and grouping cannot matter (Reiter et al., 2020, "Deep Multi-Modal
Sets", pool by sum, max and min). `Quantile` is the exception: it needs all elements of
a set at once. It pools over modalities by joining their elements, and does not merge.

Every pool has these properties:

* Values are `[n, ...]` with elements of any shape. Each feature is pooled by itself.
* The contents of padding slots do not matter, and their gradient is zero.
* An example without elements gives `empty`, 0 by default, and passes no gradient.
* NaN in, NaN out: where an element is NaN, so is the result of its example in that
  feature, and any gradient that depends on it. Other examples are not affected.
* An absent modality is the identity of `merge`: the result equals that of the same call
  without the modality, bit for bit. Only "softmax", "logsumexp" and power means may
  differ in the last bit when they are compiled.
* Reductions and results are in float32 for inputs of any type, and in float64 for
  float64. They are within 1e-6 of float64, relative to the sum of magnitudes, for up to
  10^7 elements in an example.
* Derivatives exist in forward and in reverse mode, and of higher order.

To add a pool of your own, subclass `Pool` and pass an instance to `pool`.
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
  """A commutative monoid over elements; subclass it for a pool of your own.

  States are pytrees of arrays with a leading axis `b`. In `merge` and `finish` they may
  have further axes in front.
  """

  def lift(self, elements: Ragged, scores: Array | None = None) -> Any:
    """Return the state of each example; only `Softmax` takes `scores`."""

  def merge(self, a: Any, b: Any) -> Any:
    """Return the state of the union of two disjoint sets of elements."""

  def finish(self, state: Any, empty: float = 0.0) -> Float[Array, "..."]:
    """Return the pooled values `[b, ...]`; `empty` for an example without elements."""


def pool(
  pool: Pool | Quantile | str,
  elements: Ragged | Mapping[str, Ragged],
  *,
  scores: Array | Mapping[str, Array] | None = None,
  empty: float = 0.0,
) -> Float[Array, "b ..."]:
  """Pool the elements of each example, of one modality or of several.

  Args:
    pool: A name in `POOLS` or `WHOLE_SET_POOLS`, a `Quantile`, or any `Pool` instance.
    elements: Values `[n, ...]`. The modalities of a dictionary share `b` and the shape
      of an element. They are merged in sorted order, so that the order of the
      dictionary does not change a bit of the result.
    scores: Needed by "softmax" only: `[n]`, or with more axes of the values; a
      dictionary if `elements` is one.
    empty: The result for an example without elements.

  Raises:
    ValueError: The pool is unknown, scores are missing or not used, or there is no
      modality.
  """
  owner = WHOLE_SET_POOLS.get(pool, pool) if isinstance(pool, str) else pool
  if not isinstance(elements, Ragged) and not elements:
    raise ValueError("no modality to pool: pass at least one; its sets may be empty")
  if isinstance(owner, Quantile):
    refuse_scores(scores, owner)
    return owner.of(elements, empty)
  owner = get(owner)
  if isinstance(elements, Ragged):
    return owner.finish(owner.lift(elements, scores), empty)
  scores = scores or {}
  # With these barriers, lifting and merging compile to the same code whatever the other
  # modalities are; otherwise an absent modality could change the last bit. (It still
  # can for "softmax" and "logsumexp", because XLA may round fused exponentials either
  # way.)
  barrier = jax.lax.optimization_barrier
  lifted = [barrier(owner.lift(elements[k], scores.get(k))) for k in sorted(elements)]
  merged = functools.reduce(lambda a, b: barrier(owner.merge(a, b)), lifted)
  return owner.finish(merged, empty)


def merge_across(pool: Pool | str, state: Any, axis_name: str) -> Any:
  """Merge the states of all devices along a mesh axis, inside `jax.shard_map`.

  Use it for sets larger than a device, where each device holds some elements of every
  example. Devices exchange partial states (`b x d`) instead of elements, and merge them
  in device order. The states are exchanged by a `psum`, not a gather, because the
  result is then typed as the same on all devices: a replicated output needs that, and
  its gradient is counted once.
  """
  size, index = jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name)

  def share(leaf):
    placed = jnp.zeros((size, *leaf.shape), leaf.dtype).at[index].set(leaf)
    return jax.lax.psum(placed, axis_name)

  shared = jax.tree.map(share, state)
  parts = [jax.tree.map(lambda leaf, i=i: leaf[i], shared) for i in range(size)]
  return functools.reduce(get(pool).merge, parts)


def get(pool: Pool | str) -> Pool:
  """Return the pool with this name, or the given pool itself, if its states merge.

  Raises:
    ValueError: The name is unknown (the message lists the legal ones), the pool does
      not merge, or the object is not a pool.
  """
  if not isinstance(pool, str):
    # A class has the methods, too, but only an instance is a pool.
    if isinstance(pool, type) or not isinstance(pool, Pool):
      raise ValueError(
        f"{pool!r} is not a pool; pass a name or an instance of a subclass of Pool"
      )
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
  """Pool by a quantile of each feature, see `ordering.segment_quantile`.

  It does not merge.

  Attributes:
    q: Between 0 (the minimum) and 1 (the maximum).
    method: The result where the quantile lies between two elements; one of
      `ordering.METHODS`.
  """

  q: float | int
  method: str = "linear"

  def of(
    self, elements: Ragged | Mapping[str, Ragged], empty: float = 0.0
  ) -> Float[Array, "b ..."]:
    """Return the quantile of each example's elements of all modalities."""
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
# Pools that need all elements of a set at once, and do not merge. The median is the
# lower of the two middle elements, as in torch.
WHOLE_SET_POOLS: Mapping[str, Quantile] = {"median": Quantile(0.5, "lower")}
