"""Ragged arrays and batches: elements end to end, offsets per example.

Axes, here and everywhere: `s` shards, `b` examples, `n` element slots,
`d` features, `k` classes or labels. A batch for the devices has one more leading
axis `s`; functions are written without it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped


@flax.struct.dataclass
class Ragged:
  """`b` lists of elements, laid end to end in `n` slots.

  Slots from `offsets[-1]` on are padding: zeros, with `b` as their segment id,
  one past the last example, so that segment ops drop them and ids stay sorted.

  Attributes:
    values: The elements: feature vectors `[n, d]`, or token ids `[n]`.
    offsets: Where each example's elements begin; the last entry is the number of
      real elements. int32 in a batch; int64 in a table on the host.
    weights: A float per element (TF-IDF, say), or None where elements are alike.
    times: When each element was, in a unit of the data's choice, or None.
  """

  values: Shaped[Array, "n ..."]
  offsets: Int[Array, "b+1"]
  weights: Float[Array, "n"] | None = None
  times: Float[Array, "n"] | None = None

  @property
  def num_examples(self) -> int:
    """`b`, a Python int."""
    return self.offsets.shape[-1] - 1

  @property
  def num_slots(self) -> int:
    """`n`, a Python int."""
    return self.values.shape[0]

  @property
  def lengths(self) -> Int[Array, "b"]:
    """Number of elements of each example."""
    return self.offsets[1:] - self.offsets[:-1]

  @property
  def segment_ids(self) -> Int[Array, "n"]:
    """The example that each slot belongs to, sorted; `b` on padding.

    A count of the boundaries passed: of the three ways to write it the one that is
    fast and exports with symbolic sizes. A boundary at `n` is out of range of the
    counts, and dropped.
    """
    passed = jnp.zeros(self.num_slots, jnp.int32)
    passed = passed.at[self.offsets[1:]].add(1, mode="drop")
    return jnp.cumsum(passed)

  @property
  def positions(self) -> Int[Array, "n"]:
    """Each element's place in its example, from 0; 0 on padding."""
    starts = self.to_elements(self.offsets[:-1])
    return jnp.where(self.mask, jnp.arange(self.num_slots) - starts, 0)

  @property
  def mask(self) -> Bool[Array, "n"]:
    """True where a slot holds a real element."""
    return jnp.arange(self.num_slots) < self.offsets[-1]

  def to_elements(
    self, per_example: Shaped[Array, "b ..."], fill: float = 0
  ) -> Shaped[Array, "n ..."]:
    """Each slot's own row of `per_example`; `fill` on padding."""
    return jnp.take(
      per_example,
      self.segment_ids,
      axis=0,
      mode="fill",
      fill_value=fill,
      indices_are_sorted=True,
    )

  def to_lists(self) -> list[np.ndarray]:
    """The elements of each example, on the host, padding left out."""
    values, offsets = np.asarray(self.values), np.asarray(self.offsets)
    return [values[a:z] for a, z in itertools.pairwise(offsets)]


def from_lists(
  lists: Iterable[Any], *, dtype: Any, feature_shape: tuple[int, ...] = ()
) -> Ragged:
  """A host `Ragged` of one list (or array) of elements per example.

  `feature_shape` is an element's shape: `()` for token ids, `(d,)` for vectors.
  It cannot be read off the lists, which may all be empty.

  Raises:
    ValueError: An example's elements are of another shape; it names the example.
  """
  arrays = []
  for index, elements in enumerate(lists):
    array = np.asarray(elements, dtype=dtype)
    if array.size == 0:
      array = array.reshape(0, *feature_shape)
    if array.shape[1:] != feature_shape or array.ndim == 0:
      raise ValueError(
        f"example {index}: elements of shape {array.shape[1:]}, expected"
        f" {feature_shape}"
      )
    arrays.append(array)
  values = np.concatenate([np.zeros((0, *feature_shape), dtype), *arrays])
  return from_lengths(values, np.array([len(a) for a in arrays], np.int64))


def from_lengths(values: np.ndarray, lengths: np.ndarray) -> Ragged:
  """A host `Ragged` of elements laid end to end and their number per example.

  Raises:
    ValueError: The lengths do not add up to the number of elements, or one is
      negative.
  """
  lengths = np.asarray(lengths)
  if lengths.size and lengths.min() < 0:
    index = int(np.argmin(lengths))
    raise ValueError(f"example {index}: a length of {lengths[index]}")
  if lengths.sum() != len(values):
    raise ValueError(
      f"lengths add up to {lengths.sum()}, and there are {len(values)} elements"
    )
  offsets = np.zeros(len(lengths) + 1, np.int64)
  np.cumsum(lengths, out=offsets[1:])
  return Ragged(values=values, offsets=offsets)


def concatenate(parts: Sequence[Ragged]) -> tuple[Ragged, list[Int[Array, "n"]]]:
  """Each example's elements of all parts, one part after the other.

  Weights and times are left behind.

  Args:
    parts: Of the same `b` and `d`; `[n, d]` each, in the order wanted.

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
    past = num_slots + jnp.arange(part.num_slots)
    slots.append(jnp.where(part.mask, slot, past))
    values = values.at[slots[-1]].set(part.values, mode="drop", unique_indices=True)
    begin = begin + part.lengths
  return Ragged(values, offsets), slots


def of_vectors(vectors: Float[Array, "b d"], present: Bool[Array, "b"]) -> Ragged:
  """One element per example where `present`, none elsewhere; `b` slots."""
  offsets = jnp.pad(jnp.cumsum(present.astype(jnp.int32)), (1, 0))
  b = len(present)
  slots = jnp.where(present, offsets[:-1], b + jnp.arange(b))
  values = (
    jnp.zeros_like(vectors).at[slots].set(vectors, mode="drop", unique_indices=True)
  )
  return Ragged(values, offsets)


@flax.struct.dataclass
class Batch:
  """Some examples, each a bag of elements from several modalities.

  Attributes:
    modalities: The elements by modality; all of `b` examples, each of its own
      number of slots. An absent modality is an empty segment, or no entry.
    targets: By the kind of target: `[b, k]` float for multilabel and regression,
      `[b]` int for multiclass, `[b]` float for binary.
    weights: Multiplies each example's loss; 0 for a padding example.
    indices: Row of each example in its table; -1 for a padding example.
  """

  modalities: Mapping[str, Ragged]
  targets: Shaped[Array, "b ..."]
  weights: Float[Array, "b"]
  indices: Int[Array, "b"]


def without(batch: Batch, names: Iterable[str]) -> Batch:
  """The batch as if these modalities had never been declared."""
  drop = set(names)
  kept = {k: v for k, v in batch.modalities.items() if k not in drop}
  return batch.replace(modalities=kept)


def stack(shards: list[Batch]) -> Batch:
  """One batch with a leading shard axis of batches of equal shapes (host)."""
  return jax.tree.map(lambda *leaves: np.stack(leaves), *shards)
