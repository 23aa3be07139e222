"""Ragged arrays made from others: selected elements or examples, several joined.

Shapes are static: where a result has fewer elements than slots, the slots after them
are padding. Weights and times follow their elements unless a function says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree, Shaped

from deepsets_jax.ragged.arrays import Ragged
from deepsets_jax.ragged.offsets import device_offsets


def compress(
  elements: Ragged, keep: Bool[Array, "n"], num_slots: int | None = None
) -> Ragged:
  """Keep some of the elements, in their order, as `numpy.compress` does.

  Args:
    elements: The elements to select from.
    keep: True for each slot to keep; padding is never kept.
    num_slots: Slots of the result, by default as many as before. Elements that do not
      fit are lost.
  """
  n = elements.num_slots
  num_slots = n if num_slots is None else num_slots
  keep = jnp.asarray(keep) & elements.mask
  counts = device_offsets(keep)
  # Dropped elements go past the end, each to a place of its own, so that no place is
  # written twice and the gradient is a gather.
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

  return _with_each_field(elements, move, offsets)


def _with_each_field(
  elements: Ragged, move: Callable[[Array], Array], offsets: Array
) -> Ragged:
  """Apply one function of `[n, ...]` to the values, the weights and the times."""
  return Ragged(
    move(jnp.asarray(elements.values)),
    offsets,
    *(None if x is None else move(x) for x in (elements.weights, elements.times)),
  )


def slice_elements(
  elements: Ragged, start: int | None = None, stop: int | None = None
) -> Ragged:
  """Slice the list of each example's elements, as `elements[start:stop]`.

  Negative numbers count from an example's end: `slice_elements(x, -10)` keeps the last
  ten elements of each example.
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
  """Draw at most `k` elements of each example, uniformly without replacement.

  The elements keep their order. `num_slots` is by default the smallest number that
  always suffices.
  """
  if num_slots is None:
    num_slots = min(elements.num_slots, elements.num_examples * k)
  return compress(elements, sample_mask(key, elements, k), num_slots)


def sample_mask(key: Array, elements: Ragged, k: int) -> Bool[Array, "n"]:
  """Return True for at most `k` elements of each example, drawn uniformly."""
  lots = jax.random.uniform(key, (elements.num_slots,), jnp.float32)
  order = jnp.lexsort((lots, elements.segment_ids))
  # The order is sorted by segment, so that slot `i` and `order[i]` are of one example.
  ranks = elements.positions.at[order].set(elements.positions, unique_indices=True)
  return (ranks < k) & elements.mask


def take(elements: Ragged, rows: Int[Array, "c"], num_slots: int) -> Ragged:
  """Take these examples, in this order, as `jnp.take` does.

  An example may be taken several times. A row out of range, such as `b`, gives an
  empty example.

  Args:
    elements: The examples to take from.
    rows: Indices of examples.
    num_slots: Slots of the result; elements that do not fit are lost.
  """
  rows = jnp.asarray(rows)
  inside = (rows >= 0) & (rows < elements.num_examples)
  rows = jnp.where(inside, rows, elements.num_examples)
  lengths = jnp.take(elements.lengths, rows, mode="fill", fill_value=0)
  offsets = jnp.minimum(device_offsets(lengths), num_slots)
  taken = Ragged(jnp.zeros((num_slots, 0), jnp.float32), offsets)
  begin = jnp.take(elements.offsets[:-1], rows, mode="fill", fill_value=0)
  slots = taken.to_elements(begin.astype(jnp.int32)) + taken.positions
  slots = jnp.where(taken.mask, slots, elements.num_slots)

  def move(x: Shaped[Array, "n ..."]) -> Shaped[Array, "m ..."]:
    if x.shape[0] == 0:
      return jnp.zeros((num_slots, *x.shape[1:]), x.dtype)
    return jnp.take(x, slots, axis=0, mode="fill", fill_value=0)

  return _with_each_field(elements, move, offsets)


def concatenate(parts: Sequence[Ragged]) -> tuple[Ragged, list[Int[Array, "n"]]]:
  """Join the elements of each example, one part after the other.

  Weights and times are dropped.

  Args:
    parts: Ragged arrays of the same `b` examples and the same shape of an element.

  Returns:
    A `Ragged` with as many slots as all parts together, and for each part the slot
    of each of its elements (past the last slot for padding), so that
    `jnp.take(merged.values, slots, axis=0, mode="fill", fill_value=0)` is the part.
  """
  offsets = sum(part.offsets for part in parts)
  num_slots = sum(part.num_slots for part in parts)
  values = jnp.zeros((num_slots, *parts[0].values.shape[1:]), parts[0].values.dtype)
  begin, slots = offsets[:-1], []
  for part in parts:
    slot = part.to_elements(begin) + part.positions
    # Padding goes past the end, each slot to a place of its own, as in `compress`.
    past = num_slots + jax.lax.iota(slot.dtype, part.num_slots)
    slots.append(jnp.where(part.mask, slot, past))
    values = values.at[slots[-1]].set(part.values, mode="drop", unique_indices=True)
    begin = begin + part.lengths
  return Ragged(values, offsets), slots


def concatenate_examples(parts: Sequence[Ragged]) -> Ragged:
  """Join the examples of all parts, one part after the other.

  The result has as many slots as all parts together. Weights (or times) are dropped
  unless all parts have them.
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


def from_vectors(vectors: Shaped[Array, "b ..."], present: Bool[Array, "b"]) -> Ragged:
  """Return a `Ragged` of `b` slots: one element per example where `present`."""
  return compress(
    Ragged(vectors, jnp.arange(vectors.shape[0] + 1, dtype=jnp.int32)), present
  )


def stack(shards: Sequence[PyTree]) -> PyTree:
  """Stack shards of equal shapes along a new leading axis, on the host."""
  return jax.tree.map(lambda *leaves: np.stack(leaves), *shards)


def unstack(shards: PyTree) -> list[Any]:
  """Split a `Ragged` or batch along its leading axis of shards."""
  count = jax.tree.leaves(shards)[0].shape[0]
  return [jax.tree.map(lambda leaf, i=i: leaf[i], shards) for i in range(count)]
