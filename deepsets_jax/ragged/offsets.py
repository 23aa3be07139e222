"""Offsets of segments: made from lengths, checked, and turned into ids and masks."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int, Shaped

# Whether compiled functions check their offsets, see `debug_offsets`.
_debugging = False


def offsets_from_lengths(lengths: ArrayLike) -> Int[np.ndarray, "b+1"]:
  """Return the offsets of segments with these lengths, on the host in int64.

  Segment `i` is `values[offsets[i] : offsets[i + 1]]`, and `offsets[-1]` is the total.
  A boolean mask counts as lengths of 0 and 1: `offsets[i]` is then the number of true
  entries before entry `i`.
  """
  lengths = np.asarray(lengths)
  offsets = np.zeros(len(lengths) + 1, np.int64)
  np.cumsum(lengths, out=offsets[1:])
  return offsets


def device_offsets(lengths: Shaped[Array, "b"]) -> Int[Array, "b+1"]:
  """`offsets_from_lengths` for compiled functions, in int32."""
  return jnp.pad(jnp.cumsum(lengths, dtype=jnp.int32), (1, 0))


@contextlib.contextmanager
def debug_offsets() -> Iterator[None]:
  """Check offsets inside `jax.jit`, too, while the context is open.

  A compiled function does not know its offsets, and bad ones give wrong numbers. In
  this context it sends them to the host, and fails with the message of
  `check_offsets`. All functions are compiled again inside the context, and after it.
  """
  global _debugging
  before, _debugging = _debugging, True
  jax.clear_caches()
  try:
    yield
    jax.effects_barrier()  # Wait for the checks of the last calls.
  finally:
    _debugging = before
    jax.clear_caches()


def check_offsets(offsets: np.ndarray, shape: tuple[int, ...]) -> None:
  """Check that offsets fit values of this shape.

  Both may have the same leading axes, such as one of shards.

  Raises:
    ValueError: The offsets do not begin at 0, decrease, or run past the slots; the
      message names the first such example.
  """
  if offsets.ndim < 1 or offsets.shape[-1] < 1:
    raise ValueError(
      f"offsets of shape {offsets.shape}: expected one more than there are examples"
    )
  num_slots = shape[offsets.ndim - 1] if len(shape) >= offsets.ndim else 0
  rows = offsets.reshape(-1, offsets.shape[-1])
  if (rows[:, 0] != 0).any():
    first = rows[rows[:, 0] != 0][0, 0]
    raise ValueError(
      f"offsets begin at {first}; they must begin at 0: subtract the first from all"
    )
  shrinks = rows[:, 1:] < rows[:, :-1]
  if shrinks.any():
    row, index = np.argwhere(shrinks)[0]
    raise ValueError(
      f"offsets decrease from {rows[row, index]} to {rows[row, index + 1]} at example"
      f" {index}; build them from lengths with ragged.from_lengths"
    )
  if (rows[:, -1] > num_slots).any():
    raise ValueError(
      f"offsets end at {rows[:, -1].max()}, and there are {num_slots} slots; give at"
      " least as many values as the last offset says"
    )


def _check_on_host(num_slots: int, offsets: np.ndarray) -> None:
  check_offsets(np.asarray(offsets), (num_slots,))


def segment_ids(offsets: Int[Array, "b+1"], num_slots: int) -> Int[Array, "n"]:
  """Return the segment of each slot, in increasing order; `b` on padding.

  Counts the boundaries before each slot. Of the three ways to write it, this one is
  fast and exports with symbolic sizes. A boundary at `n` is out of range of the counts
  and dropped.
  """
  offsets = jnp.asarray(offsets)
  if _debugging:
    jax.debug.callback(functools.partial(_check_on_host, num_slots), offsets)
  passed = jnp.zeros(num_slots, jnp.int32)
  passed = passed.at[offsets[1:]].add(1, mode="drop")
  return jnp.cumsum(passed, dtype=jnp.int32)


def slot_mask(offsets: Int[Array, "b+1"], num_slots: int) -> Bool[Array, "n"]:
  """Return True where a slot holds an element, False on padding."""
  return jax.lax.iota(offsets.dtype, num_slots) < offsets[-1]


def element_mask(
  values: Shaped[Array, "n ..."], offsets: Array
) -> Bool[Array, "n ..."]:
  """Return `slot_mask` with as many axes as the values."""
  return expand_like(slot_mask(jnp.asarray(offsets), values.shape[0]), values)


def expand_like(x: Shaped[Array, "n"], values: Array) -> Shaped[Array, "n ..."]:
  """Give an array of one axis (slots or examples) as many axes as the values."""
  return x.reshape(x.shape[0], *[1] * (values.ndim - 1))


def positions(ids: Int[Array, "n"], starts: Int[Array, "b"]) -> Int[Array, "n"]:
  """Return each slot's position in its segment, from 0; arbitrary on padding."""
  slots = jax.lax.iota(jnp.int32, ids.shape[0])
  return slots - jnp.take(starts, ids, mode="clip").astype(jnp.int32)
