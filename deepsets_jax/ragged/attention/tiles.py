"""Attention of short segments: dense tiles of similar lengths, a group at a time."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from deepsets_jax.ragged.attention.plans import Plan, group_size
from deepsets_jax.ragged.attention.rows import (
  products,
  put,
  real,
  rows_of,
  take,
  weighted,
)


def for_groups(plan: Plan, index: int, body: Callable, carry):
  """Runs a body over the groups of one kind of tile.

  The body takes the rows of queries `[g, a]` and of keys `[g, z]` (past the end where
  there is none) and the carry.
  """
  (a, z), begin, end = plan.tiles[index], plan.starts[index], plan.starts[index + 1]
  group = group_size(a, z)

  def of_group(trip, carry):
    places = begin + trip * group + jnp.arange(group)
    last = plan.order.shape[0] - 1
    segments = plan.order[jnp.minimum(places, last)]
    inside = places < end
    rows_q = _rows(plan.query_offsets, segments, inside, a)
    rows_k = _rows(plan.key_offsets, segments, inside, z)
    return body(rows_q, rows_k, carry)

  return jax.lax.fori_loop(0, (end - begin + group - 1) // group, of_group, carry)


def _rows(offsets, segments, inside, size):
  """The first `size` rows of each segment, `[g, size]`; none of those not inside."""
  begin = offsets[segments]
  return rows_of(begin, jnp.where(inside, offsets[segments + 1], begin), size)


def _softmax(logits, mask, axis):
  """The softmax where `mask`, 0 elsewhere; where nothing is, nobody reads it."""
  logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
  exponentials = jnp.exp(logits - jnp.max(logits, axis, keepdims=True))
  return exponentials / jnp.sum(exponentials, axis, keepdims=True)


def tile(q, k, v, rows_q, rows_k, out):
  """Attention of a group of tiles, written to their rows of `out`."""
  scale = q.shape[-1] ** -0.5
  mask = real(rows_k)[:, None, None, :]
  logits = products(take(q, rows_q), take(k, rows_k)) * scale
  weights = _softmax(logits, mask, axis=-1)
  return put(out, rows_q, weighted(weights, take(v, rows_k)))


def tile_gradient(q, k, v, cotangent, rows_q, rows_k, grads):
  """The gradients of q, k and v of a group of tiles, written to their rows.

  Keys come before queries here: of five products only one is then transposed.
  """
  scale = q.shape[-1] ** -0.5
  mask = real(rows_k)[:, None, :, None]
  q, g = take(q, rows_q), take(cotangent, rows_q)
  k, v = take(k, rows_k), take(v, rows_k)
  weights = _softmax(products(k, q) * scale, mask, axis=-2)
  of_weights = products(v, g)
  mean = jnp.sum(of_weights * weights, axis=-2, keepdims=True)
  of_logits = weights * (of_weights - mean) * scale
  by_query = jax.lax.optimization_barrier(jnp.swapaxes(of_logits, -1, -2))
  of_q = weighted(by_query, k)
  of_k, of_v = weighted(of_logits, q), weighted(weights, g)
  return (
    put(grads[0], rows_q, of_q),
    put(grads[1], rows_k, of_k),
    put(grads[2], rows_k, of_v),
  )
