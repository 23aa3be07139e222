"""Rows of flat arrays, gathered with the heads first, and products of them."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

# Rows from here on are past the end of any array.
MOST_ROWS = 1 << 30


def rows_of(begin, end, size):
  """The `size` rows from `begin`, `[..., size]`; those from `end` on are past all."""
  shape = (*begin.shape, size)
  rows = begin[..., None] + jax.lax.broadcasted_iota(jnp.int32, shape, begin.ndim)
  # Each to a place of its own, so that no place is written twice.
  past = MOST_ROWS + jnp.arange(math.prod(shape)).reshape(shape)
  return jnp.where(rows < end[..., None], rows, past)


def real(rows):
  """Where a row is one of an array."""
  return rows < MOST_ROWS


def take(x, rows):
  """Rows of `[n, h, d]` with the heads first, `[..., h, l, d]`; zeros past the end."""
  # Not in one with the transposition, which would gather number by number.
  taken = jnp.take(x, rows.reshape(-1), axis=0, mode="fill", fill_value=0)
  return jnp.swapaxes(taken.reshape(*rows.shape, *x.shape[1:]), -2, -3)


def put(x, rows, values):
  """`x` with `[..., h, l, d]` written to these rows."""
  values = jnp.swapaxes(values, -2, -3).reshape(-1, *x.shape[1:])
  return x.at[rows.reshape(-1)].set(
    values.astype(x.dtype), mode="drop", unique_indices=True
  )


def products(x, y):
  """`x y'` over the last axis, in float32."""
  return jnp.einsum("...qd,...kd->...qk", x, y, preferred_element_type=jnp.float32)


def weighted(weights, values):
  """`weights values`, the weights rounded to the values' type, in float32."""
  return jnp.einsum(
    "...qk,...kd->...qd",
    weights.astype(values.dtype),
    values,
    preferred_element_type=jnp.float32,
  )


def zeros(shape, dtype, *like):
  """Zeros that vary over the mesh axes that any of some arrays varies over.

  A loop's carry has to be of one type from the start, inside `jax.shard_map`.
  """
  scalars = [jax.lax.full_like(x, 0, dtype, shape=()) for x in jax.tree.leaves(like)]
  return jnp.broadcast_to(sum(scalars), shape)
