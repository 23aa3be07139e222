"""Ragged arrays: elements end to end, offsets per example.

Axes, in all of the package: `s` shards, `b` examples, `n` element slots, `d` features,
`k` classes or labels. A batch for the devices has one more leading axis `s`; functions
are written without it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from deepsets_jax.ragged import reductions
from deepsets_jax.ragged.offsets import (
  check_offsets,
  device_offsets,
  element_mask,
  expand_like,
  offsets_from_lengths,
  segment_ids,
  slot_mask,
)


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class Ragged:
  """`b` lists of elements, laid end to end in `n` slots.

  Slots from `offsets[-1]` on are padding. They hold zeros, and their segment id is `b`,
  one past the last example, so that segment ops drop them and ids stay sorted.

  Offsets are checked where their values are known, that is outside of `jax.jit`;
  `debug_offsets` checks them inside, too.

  Attributes:
    values: The elements: feature vectors `[n, d]`, token ids `[n]`, or any `[n, ...]`.
    offsets: Where each example's elements begin; the last entry is the number of
      elements. int32 in a batch, int64 in a table on the host.
    weights: A weight per element, such as TF-IDF; None for equal weights.
    times: The time of each element, in any unit; None for elements without times.

  Raises:
    ValueError: The offsets do not begin at 0, decrease, or run past the slots.
  """

  values: Shaped[Array, "n ..."]
  offsets: Int[Array, "b+1"]
  weights: Float[Array, "n"] | None = None
  times: Float[Array, "n"] | None = None

  def __post_init__(self):
    # Opening a memory-mapped table must not read it; `Table.validate` checks it.
    known = isinstance(self.offsets, np.ndarray | jax.Array)
    if known and not isinstance(self.offsets, jax.core.Tracer | np.memmap):
      check_offsets(np.asarray(self.offsets), np.shape(self.values))

  def replace(self, **changes: Any) -> Ragged:
    """Return a copy with other values of some attributes."""
    if "offsets" in changes:
      return dataclasses.replace(self, **changes)
    unknown = set(changes) - set(_FIELDS)
    if unknown:
      raise TypeError(f"Ragged has no attribute {sorted(unknown)[0]!r}")
    # The offsets are checked already.
    return _unchecked([changes.get(k, getattr(self, k)) for k in _FIELDS])

  def tree_flatten_with_keys(self):
    """Flatten to pairs of name and attribute, for `jax.tree_util`."""
    children = [(jax.tree_util.GetAttrKey(k), getattr(self, k)) for k in _FIELDS]
    return children, None

  def tree_flatten(self):
    """Flatten to the attributes, for `jax.tree_util`."""
    return [getattr(self, k) for k in _FIELDS], None

  @classmethod
  def tree_unflatten(cls, structure, children) -> Ragged:
    """Build from any attributes without a check, for `jax.tree_util`."""
    del structure
    return _unchecked(children)

  @property
  def num_examples(self) -> int:
    """The number of examples `b`, a Python int."""
    return self.offsets.shape[-1] - 1

  @property
  def num_slots(self) -> int:
    """The number of slots `n`, a Python int."""
    return self.values.shape[0]

  @property
  def lengths(self) -> Int[Array, "b"]:
    """The number of elements of each example."""
    return self.offsets[1:] - self.offsets[:-1]

  @property
  def segment_ids(self) -> Int[Array, "n"]:
    """The example of each slot, in increasing order; `b` on padding."""
    return segment_ids(self.offsets, self.num_slots)

  @property
  def positions(self) -> Int[Array, "n"]:
    """Each element's position in its example, from 0; 0 on padding."""
    starts = self.to_elements(self.offsets[:-1]).astype(jnp.int32)
    slots = jax.lax.iota(jnp.int32, self.num_slots)
    return jnp.where(self.mask, slots - starts, 0)

  @property
  def mask(self) -> Bool[Array, "n"]:
    """True where a slot holds an element, False on padding."""
    return slot_mask(self.offsets, self.num_slots)

  def to_elements(
    self, per_example: Shaped[Array, "b ..."], fill: float = 0
  ) -> Shaped[Array, "n ..."]:
    """Give each element the row of its example; `fill` on padding."""
    rows = reductions.spread(jnp.asarray(per_example), self.offsets, self.num_slots)
    if isinstance(fill, int | float) and fill == 0:
      return rows
    return jnp.where(expand_like(self.mask, rows), rows, jnp.asarray(fill, rows.dtype))

  @classmethod
  def from_index(
    cls, values: Shaped[Array, "n ..."], index: Int[Array, "n"], num_examples: int
  ) -> Ragged:
    """Group elements in any order by the example of each.

    Elements of one example keep their order. Elements whose index is out of range,
    such as `num_examples`, become padding.

    Args:
      values: The elements.
      index: The example of each element, in any order.
      num_examples: `b`, a Python int.

    Raises:
      ValueError: Index and values differ in length.
    """
    values, index = jnp.asarray(values), jnp.asarray(index)
    if index.shape != values.shape[:1]:
      raise ValueError(
        f"an index of shape {index.shape} for {values.shape[0]} elements: expected one"
        " example per element"
      )
    inside = (index >= 0) & (index < num_examples)
    index = jnp.where(inside, index, num_examples).astype(jnp.int32)
    order = jnp.argsort(index, stable=True)
    counts = jnp.zeros(num_examples, jnp.int32).at[index].add(1, mode="drop")
    return cls(values[order], device_offsets(counts)).map_elements(lambda x: x)

  @classmethod
  def from_padded(
    cls,
    values: Shaped[Array, "b l ..."],
    lengths: Int[Array, "b"],
    num_slots: int | None = None,
  ) -> Ragged:
    """Take the first elements of each row of a padded array.

    Args:
      values: Rows of elements; those from `lengths` on are padding.
      lengths: Number of elements of each row, at most `l`.
      num_slots: `n`, by default `b * l`. Elements that do not fit are lost.
    """
    values = jnp.asarray(values)
    b, size = values.shape[:2]
    row, place = jnp.indices((b, size), jnp.int32)
    index = jnp.where(place < jnp.asarray(lengths)[:, None], row, b)
    elements = cls.from_index(
      values.reshape(b * size, *values.shape[2:]), index.reshape(b * size), b
    )
    if num_slots is None:
      return elements
    offsets = jnp.minimum(elements.offsets, num_slots)
    return cls(elements.values[:num_slots], offsets)

  def to_padded(self, length: int, fill: float = 0) -> Shaped[Array, "b l ..."]:
    """Return the values in rows of one length; elements beyond it are left out.

    Args:
      length: `l`, a Python int.
      fill: The value of padding.
    """
    values = jnp.asarray(self.values)
    place = jax.lax.iota(jnp.int32, length)[None]
    slots = self.offsets[:-1, None].astype(jnp.int32) + place
    inside = place < self.lengths[:, None]
    if self.num_slots == 0:
      return jnp.full((*inside.shape, *values.shape[1:]), fill, values.dtype)
    slots = jnp.where(inside, slots, self.num_slots)
    return jnp.take(values, slots, axis=0, mode="fill", fill_value=fill)

  def map_elements(
    self, function: Callable[[Shaped[Array, "n ..."]], Shaped[Array, "n ..."]]
  ) -> Ragged:
    """Apply a function of all slots to the values, and set padding to zeros again.

    Wrap a function of one element in `jax.vmap`.

    Raises:
      ValueError: The function changes the number of slots.
    """
    values = function(self.values)
    if values.shape[:1] != self.values.shape[:1]:
      raise ValueError(
        f"the function maps {self.values.shape} to {values.shape}; it must keep the"
        " first axis, the slots"
      )
    zero = jnp.zeros((), values.dtype)
    values = jnp.where(element_mask(values, self.offsets), values, zero)
    return self.replace(values=values)

  def to_lists(self) -> list[np.ndarray]:
    """Return the elements of each example on the host, without padding."""
    values, offsets = np.asarray(self.values), np.asarray(self.offsets)
    return [values[a:z] for a, z in itertools.pairwise(offsets)]


_FIELDS = tuple(field.name for field in dataclasses.fields(Ragged))


def _unchecked(values: Iterable[Any]) -> Ragged:
  elements = object.__new__(Ragged)
  for name, value in zip(_FIELDS, values, strict=True):
    object.__setattr__(elements, name, value)
  return elements


def from_lists(
  lists: Iterable[Any], *, dtype: Any, feature_shape: tuple[int, ...] = ()
) -> Ragged:
  """Build a host `Ragged` from one list (or array) of elements per example.

  Args:
    lists: The elements of each example.
    dtype: The type of the values.
    feature_shape: The shape of an element: `()` for token ids, `(d,)` for vectors. The
      lists cannot show it, because all of them may be empty.

  Raises:
    ValueError: An example's elements have another shape; the message names it.
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
  """Build a host `Ragged` from elements laid end to end and lengths of examples.

  Raises:
    ValueError: A length is negative, or the lengths do not add up to the number of
      elements.
  """
  lengths = np.asarray(lengths)
  if lengths.size and lengths.min() < 0:
    index = int(np.argmin(lengths))
    raise ValueError(f"example {index}: negative length {lengths[index]}")
  if lengths.sum() != len(values):
    raise ValueError(
      f"lengths add up to {lengths.sum()}, and there are {len(values)} elements"
    )
  return Ragged(values=values, offsets=offsets_from_lengths(lengths))
