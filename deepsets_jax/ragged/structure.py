"""Ragged arrays made of others: parts of them, several joined.

Shapes are static: where a result has fewer elements than slots, the slots after them
are padding. Weights and times go along unless a function says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree, Shaped

from deepsets_jax.ragged.arrays import Ragged


def compress(
  elements: Ragged, keep: Bool[Array, "n"], num_slots: int | None = None
) -> Ragged:
  """The elements to keep, in their order, moved together; as `numpy.compress`.

  Args:
    elements: Of which some are kept.
    keep: Which; padding is never kept.
    num_slots: Slots of the result, by default as many as before. Elements beyond are
      lost.
  """
  n = elements.num_slots
  num_slots = n if num_slots is None else num_slots
  keep = jnp.asarray(keep) & elements.mask
  counts = jnp.pad(jnp.cumsum(keep, dtype=jnp.int32), (1, 0))
  # What is dropped goes past the end, each slot to a place of its own, so that no place
  # is written twice and the gradient is a gather.
  past = num_slots + jax.lax.iota(jnp.int32, n)
  slots = jnp.where(keep & (counts[:-1] < num_slots), counts[:-1], past)
  offsets = jnp.minimum(counts[elements.offsets], num_slots)
  return _moved(elements, slots, num_slots, offsets)


def _moved(
  elements: Ragged, slots: Int[Array, "n"], num_slots: int, offsets: Array
) -> Ragged:
  def move(x: Shaped[Array, "n ..."]) -> Shaped[Array, "m ..."]:
    target = jnp.zeros((num_slots, *x.shape[1:]), x.dtype)
    return target.at[slots].set(x, mode="drop", unique_indices=True)

  return Ragged(
    move(jnp.asarray(elements.values)),
    offsets,
    *(None if x is None else move(x) for x in (elements.weights, elements.times)),
  )


def slice_elements(
  elements: Ragged, start: int | None = None, stop: int | None = None
) -> Ragged:
  """Each example's elements from `start` to `stop`, as the slice of a list.

  Negative numbers count from an example's end: `slice_elements(x, -10)` are the last
  ten of each.
  """
  lengths = elements.lengths

  def bound(limit, default):
    if limit is None:
      return default
    return jnp.clip(limit + lengths if limit < 0 else limit, 0, lengths)

  begin = elements.to_elements(bound(start, jnp.zeros_like(lengths)))
  end = elements.to_elements(bound(stop, lengths))
  position = elements.positions
  return compress(elements, (position >= begin) & (position < end))


def sample(
  key: Array, elements: Ragged, k: int, num_slots: int | None = None
) -> Ragged:
  """At most `k` elements of each example, any of them equally likely, in their order.

  Without replacement. `num_slots` are by default the fewest that always suffice.
  """
  if num_slots is None:
    num_slots = min(elements.num_slots, elements.num_examples * k)
  return compress(elements, sample_mask(key, elements, k), num_slots)


def sample_mask(key: Array, elements: Ragged, k: int) -> Bool[Array, "n"]:
  """True for at most `k` elements of each example, any of them equally likely."""
  lots = jax.random.uniform(key, (elements.num_slots,), jnp.float32)
  order = jnp.lexsort((lots, elements.segment_ids))
  # Sorted by segment: what stands at slot i is of the example that i belongs to.
  ranks = elements.positions.at[order].set(elements.positions, unique_indices=True)
  return (ranks < k) & elements.mask


def take(elements: Ragged, rows: Int[Array, "c"], num_slots: int) -> Ragged:
  """The `Ragged` of these examples, in this order, as `jnp.take`.

  An example may be taken several times; a row that is not of an example, such as `b`,
  gives an empty one.

  Args:
    elements: From which to take.
    rows: Numbers of examples.
    num_slots: Slots of the result; elements beyond are lost.
  """
  rows = jnp.asarray(rows)
  inside = (rows >= 0) & (rows < elements.num_examples)
  rows = jnp.where(inside, rows, elements.num_examples)
  lengths = jnp.take(elements.lengths, rows, mode="fill", fill_value=0)
  ends = jnp.cumsum(lengths.astype(jnp.int32), dtype=jnp.int32)
  offsets = jnp.minimum(jnp.pad(ends, (1, 0)), num_slots)
  taken = Ragged(jnp.zeros((num_slots, 0), jnp.float32), offsets)
  begin = jnp.take(elements.offsets[:-1], rows, mode="fill", fill_value=0)
  slots = taken.to_elements(begin.astype(jnp.int32)) + taken.positions
  slots = jnp.where(taken.mask, slots, elements.num_slots)

  def move(x: Shaped[Array, "n ..."]) -> Shaped[Array, "m ..."]:
    if x.shape[0] == 0:
      return jnp.zeros((num_slots, *x.shape[1:]), x.dtype)
    return jnp.take(x, slots, axis=0, mode="fill", fill_value=0)

  return Ragged(
    move(jnp.asarray(elements.values)),
    offsets,
    *(None if x is None else move(x) for x in (elements.weights, elements.times)),
  )


def concatenate(parts: Sequence[Ragged]) -> tuple[Ragged, list[Int[Array, "n"]]]:
  """Each example's elements of all parts, one part after the other.

  Weights and times are left behind.

  Args:
    parts: With the same `b` and shape of an element, in the order wanted.

  Returns:
    A `Ragged` with as many slots as all parts together, and for each part the slot
    that each of its elements went to (past the last slot for padding), so that
    `jnp.take(merged.values, slots, axis=0, mode="fill", fill_value=0)` is the part.
  """
  offsets = sum(part.offsets for part in parts)
  num_slots = sum(part.num_slots for part in parts)
  values = jnp.zeros((num_slots, *parts[0].values.shape[1:]), parts[0].values.dtype)
  begin, slots = offsets[:-1], []
  for part in parts:
    slot = part.to_elements(begin) + part.positions
    # Padding goes past the end, each slot to a place of its own: no place is written
    # twice, so that the gradient is a gather.
    past = num_slots + jax.lax.iota(slot.dtype, part.num_slots)
    slots.append(jnp.where(part.mask, slot, past))
    values = values.at[slots[-1]].set(part.values, mode="drop", unique_indices=True)
    begin = begin + part.lengths
  return Ragged(values, offsets), slots


def concatenate_examples(parts: Sequence[Ragged]) -> Ragged:
  """The examples of all parts, one part after the other, in as many slots as all have.

  All parts have weights (or times), or they are left behind.
  """
  num_slots = sum(part.num_slots for part in parts)
  begin, offsets, slots, past = 0, [jnp.zeros(1, jnp.int32)], [], num_slots
  for part in parts:
    place = jax.lax.iota(jnp.int32, part.num_slots)
    slots.append(jnp.where(part.mask, begin + place, past + place))
    offsets.append(begin + part.offsets[1:].astype(jnp.int32))
    begin, past = offsets[-1][-1], past + part.num_slots

  def joined(name):
    arrays = [getattr(part, name) for part in parts]
    return None if any(x is None for x in arrays) else jnp.concatenate(arrays)

  whole = Ragged(joined("values"), jnp.zeros(1, jnp.int32))
  whole = whole.replace(weights=joined("weights"), times=joined("times"))
  return _moved(whole, jnp.concatenate(slots), num_slots, jnp.concatenate(offsets))


def of_vectors(vectors: Shaped[Array, "b ..."], present: Bool[Array, "b"]) -> Ragged:
  """One element per example where `present`, none elsewhere; `b` slots."""
  return compress(
    Ragged(vectors, jnp.arange(vectors.shape[0] + 1, dtype=jnp.int32)), present
  )


def stack(shards: Sequence[PyTree]) -> PyTree:
  """One `Ragged` or batch with a leading shard axis, of some of equal shapes (host)."""
  return jax.tree.map(lambda *leaves: np.stack(leaves), *shards)


def unstack(shards: PyTree) -> list[Any]:
  """Each shard of a `Ragged` or batch with a leading shard axis."""
  count = jax.tree.leaves(shards)[0].shape[0]
  return [jax.tree.map(lambda leaf, i=i: leaf[i], shards) for i in range(count)]
