"""Rows of flat arrays, gathered with the heads first, and their matrix products."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

# Row numbers from here on are out of range of any array.
MOST_ROWS = 1 << 30


def rows_of(begin, end, size):
  """Return the `size` rows from `begin`, `[..., size]`; out of range from `end` on."""
  shape = (*begin.shape, size)
  rows = begin[..., None] + jax.lax.broadcasted_iota(jnp.int32, shape, begin.ndim)
  # Each row out of range has a number of its own, so that no place is written twice.
  past = MOST_ROWS + jnp.arange(math.prod(shape), dtype=jnp.int32).reshape(shape)
  return jnp.where(rows < end[..., None], rows, past)


def in_range(rows):
  """Return True where a row is one of an array."""
  return rows < MOST_ROWS


def take(x, rows, heads=None):
  """Gather rows of `[n, g, d]` with the heads first, `[..., h, l, d]`.

  Rows out of range give zeros. With `heads`, each of the `g` heads is repeated
  `heads / g` times.
  """
  # Gathering and transposing in one step would gather number by number.
  taken = jnp.take(x, rows.reshape(-1), axis=0, mode="fill", fill_value=0)
  taken = jnp.swapaxes(taken.reshape(*rows.shape, *x.shape[1:]), -2, -3)
  if heads in (None, x.shape[1]):
    return taken
  return jnp.repeat(taken, heads // x.shape[1], axis=-3)


def merge(values, heads):
  """Sum `[..., h, l, d]` over the repetitions of each of `heads` heads."""
  *batch, many, length, width = values.shape
  if many == heads:
    return values
  return values.reshape(*batch, heads, many // heads, length, width).sum(axis=-3)


def put(x, rows, values):
  """Write `[..., h, l, d]` to these rows of `x`, and return the result."""
  values = jnp.swapaxes(values, -2, -3).reshape(-1, *x.shape[1:])
  return x.at[rows.reshape(-1)].set(
    values.astype(x.dtype), mode="drop", unique_indices=True
  )


def accumulator(dtype):
  """Return the type of sums and of the softmax: float64 for float64, else float32."""
  return jnp.float64 if dtype == jnp.float64 else jnp.float32


def products(x, y):
  """Return `x y'` over the last axis, in the type of `accumulator`."""
  return jnp.einsum(
    "...qd,...kd->...qk", x, y, preferred_element_type=accumulator(x.dtype)
  )


def weighted(weights, values, mask=None):
  """Return `weights values`, with the weights rounded to the type of the values.

  The result has the type of `accumulator`. With a mask `[..., q, k]`, outside of which
  the weights are 0, masked values have no effect even if they are NaN or infinite,
  where a product with 0 would be NaN.
  """
  if mask is None:
    return jnp.einsum(
      "...qk,...kd->...qd",
      weights.astype(values.dtype),
      values,
      preferred_element_type=accumulator(values.dtype),
    )
  finite = jnp.isfinite(values)
  total = weighted(weights, jnp.where(finite, values, 0))
  others = jnp.where(finite, 0, values).astype(total.dtype)

  def add(index, total):
    seen, weight = (
      jax.lax.dynamic_index_in_dim(x, index, axis=-1) for x in (mask, weights)
    )
    value = jax.lax.dynamic_index_in_dim(others, index, axis=-2)
    return total + jnp.where(seen, weight * value, 0)

  # A loop instead of a condition, which would compute both sides under `jax.vmap`.
  trips = jnp.where(jnp.all(finite), 0, values.shape[-2])
  return jax.lax.fori_loop(0, trips, add, total)


def zeros(shape, dtype, *like):
  """Return zeros that vary over the mesh axes that any array in `like` varies over.

  Inside `jax.shard_map` the carry of a loop must have its final type from the start.
  """
  leaves = [
    jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    for x in jax.tree.leaves(like)
  ]
  scalars = [jax.lax.full_like(x, 0, dtype, shape=()) for x in leaves]
  return jnp.broadcast_to(sum(scalars), shape)
