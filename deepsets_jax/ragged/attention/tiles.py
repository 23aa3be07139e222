"""Attention of short segments: dense tiles of similar lengths, one group at a time."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from deepsets_jax.ragged.attention.options import bias_gradient, bias_of
from deepsets_jax.ragged.attention.plans import Plan, group_size
from deepsets_jax.ragged.attention.rows import (
  merge,
  products,
  put,
  rows_of,
  take,
  weighted,
)


def for_groups(plan: Plan, index: int, body: Callable, carry):
  """Run a body over the groups of one kind of tile.

  The body takes the kind and number of the group, which identify it, the rows of
  queries `[g, a]` and of keys `[g, z]` (out of range on padding), and the carry.
  """
  (a, z), begin, end = plan.tiles[index], plan.starts[index], plan.starts[index + 1]
  group = group_size(a, z)

  def of_group(trip, carry):
    places = begin + trip * group + jnp.arange(group, dtype=jnp.int32)
    last = plan.order.shape[0] - 1
    segments = plan.order[jnp.minimum(places, last)]
    inside = places < end
    rows_q = _rows(plan.query_offsets, segments, inside, a)
    rows_k = _rows(plan.key_offsets, segments, inside, z)
    return body((index, trip), rows_q, rows_k, carry)

  return jax.lax.fori_loop(0, (end - begin + group - 1) // group, of_group, carry)


def _rows(offsets, segments, inside, size):
  """Return the first `size` rows of each segment `inside`, `[g, size]`."""
  begin = offsets[segments]
  return rows_of(begin, jnp.where(inside, offsets[segments + 1], begin), size)


def _softmax(logits, mask, axis):
  """Return the softmax over the masked logits: 0 outside, NaN if all are outside."""
  logits = jnp.where(mask, logits, -jnp.inf)
  peak = jax.lax.stop_gradient(jnp.max(logits, axis, keepdims=True))
  exponentials = jnp.exp(logits - peak)
  return exponentials / jnp.sum(exponentials, axis, keepdims=True)


def tile(q, k, v, options, group, rows_q, rows_k, out):
  """Compute attention of a group of tiles, and write it to their rows of `out`."""
  heads, scale = q.shape[1], q.shape[-1] ** -0.5
  mask = options.visible(rows_q, rows_k)
  logits = products(take(q, rows_q), take(k, rows_k, heads)) * scale
  if options.bias is not None:
    logits += bias_of(options.bias, 0, *logits.shape[-2:])[None]
  weights = _softmax(logits, mask, axis=-1)
  if options.masks:
    weights = jnp.where(mask, weights, 0)
  kept = options.dropout(*group, shape=weights.shape)
  if kept is not None:
    weights *= kept.astype(weights.dtype)
  seen = mask if options.masks else None
  return put(out, rows_q, weighted(weights, take(v, rows_k, heads), seen))


def tile_gradient(q, k, v, options, cotangent, group, rows_q, rows_k, grads):
  """Write a group's gradients of q, k and v to their rows, and add that of the bias.

  Keys come before queries here: then only one of five products is transposed.
  """
  of_all_q, of_all_k, of_all_v, of_bias = grads
  (heads, few), scale = (q.shape[1], k.shape[1]), q.shape[-1] ** -0.5
  by_query_mask = options.visible(rows_q, rows_k)
  mask = jnp.swapaxes(by_query_mask, -1, -2)
  q, g = take(q, rows_q), take(cotangent, rows_q)
  k, v = take(k, rows_k, heads), take(v, rows_k, heads)
  logits = products(k, q) * scale
  if options.bias is not None:
    bias = bias_of(options.bias, 0, *logits.shape[:-3:-1])
    logits += jnp.swapaxes(bias, -1, -2)[None]
  # Zero wherever a query or a key is padding: products with infinite or NaN keys and
  # values would be NaN there.
  weights = jnp.where(mask, _softmax(logits, mask, axis=-2), 0)
  of_weights, dropped = jnp.where(mask, products(v, g), 0), weights
  by_query_shape = (*weights.shape[:2], *weights.shape[:-3:-1])
  kept = options.dropout(*group, shape=by_query_shape)
  if kept is not None:
    kept = jnp.swapaxes(kept, -1, -2).astype(weights.dtype)
    of_weights, dropped = of_weights * kept, weights * kept
  mean = jnp.sum(of_weights * weights, axis=-2, keepdims=True)
  of_logits = jnp.where(mask, weights * (of_weights - mean) * scale, 0)
  by_query = jax.lax.optimization_barrier(jnp.swapaxes(of_logits, -1, -2))
  seen, by_query_seen = (mask, by_query_mask) if options.masks else (None, None)
  of_q = weighted(by_query, k, by_query_seen)
  of_k, of_v = weighted(of_logits, q, seen), weighted(dropped, g, seen)
  if of_bias is not None:
    of_bias += bias_gradient(options.bias, 0, by_query.sum(axis=0) / scale)
  return (
    put(of_all_q, rows_q, of_q),
    put(of_all_k, rows_k, merge(of_k, few)),
    put(of_all_v, rows_k, merge(of_v, few)),
    of_bias,
  )
