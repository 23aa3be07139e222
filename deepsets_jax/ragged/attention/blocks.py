"""Attention of long segments: blocks of queries by blocks of keys."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from deepsets_jax.ragged.attention.options import bias_gradient, bias_of
from deepsets_jax.ragged.attention.plans import BLOCK, Plan
from deepsets_jax.ragged.attention.rows import (
  accumulator,
  merge,
  products,
  put,
  rows_of,
  take,
  weighted,
  zeros,
)


def for_blocks(plan: Plan, body: Callable, carry):
  """Run a body over the blocks of queries of the long segments.

  The body takes the number of the block among all blocks, its number within its
  segment, the segment, and the carry.
  """

  def of_block(index, carry):
    if isinstance(plan.block_ends.shape[0], int):
      segment = jnp.searchsorted(plan.block_ends, index, side="right")
    else:  # The binary search does not take a symbolic number of segments.
      segment = jnp.sum(plan.block_ends <= index, dtype=jnp.int32)
    before = jnp.where(segment > 0, plan.block_ends[segment - 1], 0)
    return body(index, index - before, segment, carry)

  return jax.lax.fori_loop(0, plan.block_ends[-1], of_block, carry)


def _rows(offsets, segment, block):
  return rows_of(offsets[segment] + block * BLOCK, offsets[segment + 1], BLOCK)


def _key_blocks(plan, options, segment, block):
  """Return the range of blocks of keys that a block of queries sees: first, end."""
  keys = plan.key_offsets[segment + 1] - plan.key_offsets[segment]
  first, end = 0, (keys + BLOCK - 1) // BLOCK
  if options.window is not None:
    reach = (options.window + BLOCK - 2) // BLOCK
    first = jnp.maximum(block - reach, 0)
    end = jnp.minimum(end, block + reach + 1)
  if options.causal:
    end = jnp.minimum(end, block + 1)
  return first, end


def row(q, k, v, plan, options, number, block, segment, carry):
  """Attend from one block of queries to the blocks of keys that it sees."""
  out, log_totals = carry
  heads, scale, dtype = q.shape[1], q.shape[-1] ** -0.5, accumulator(q.dtype)
  rows_q = _rows(plan.query_offsets, segment, block)
  q = take(q, rows_q)

  def add(index, state):
    peak, total, summed = state
    rows_k = _rows(plan.key_offsets, segment, index)
    shift = (index - block) * BLOCK
    mask = options.visible(rows_q, rows_k, shift)
    logits = products(q, take(k, rows_k, heads)) * scale
    if options.bias is not None:
      logits += bias_of(options.bias, shift, BLOCK, BLOCK)
    logits = jnp.where(mask, logits, -jnp.inf)
    higher = jnp.maximum(peak, jnp.max(logits, axis=-1, keepdims=True))
    higher = jax.lax.stop_gradient(higher)
    # Logits that are all -inf so far must weigh nothing beside later finite ones.
    base = jnp.where(higher == -jnp.inf, 0, higher)
    exponentials, shrink = jnp.exp(logits - base), jnp.exp(peak - base)
    total = total * shrink + jnp.sum(exponentials, axis=-1, keepdims=True)
    kept = options.dropout(len(plan.tiles), number, index, shape=exponentials.shape)
    if kept is not None:
      exponentials *= kept.astype(dtype)
    seen = mask if options.masks else None
    new = weighted(exponentials, take(v, rows_k, heads), seen)
    return higher, total, summed * shrink + new

  shape = (*q.shape[:2], 1)
  like = (out, q, plan, options)
  state = (
    zeros(shape, dtype, *like) - jnp.inf,
    zeros(shape, dtype, *like),
    zeros((*q.shape[:2], v.shape[2]), dtype, *like),
  )
  bounds = _key_blocks(plan, options, segment, block)
  peak, total, summed = jax.lax.fori_loop(*bounds, add, state)
  mean = summed / total
  if options.window is not None:
    # Only a window can hide all keys from a query: a segment without a key has no
    # block, and no query comes before the first key.
    keys = plan.key_offsets[segment + 1] - plan.key_offsets[segment]
    position = block * BLOCK + jax.lax.broadcasted_iota(jnp.int32, mean.shape, 1)
    mean = jnp.where(position - options.window < keys - 1, mean, 0)
  log_total = jnp.swapaxes((peak + jnp.log(total))[..., 0], 0, 1)
  return (
    put(out, rows_q, mean),
    log_totals.at[rows_q].set(log_total, mode="drop", unique_indices=True),
  )


def row_gradient(
  q, k, v, plan, options, cotangent, out, log_totals, number, block, segment, grads
):
  """Write one block's gradient of q, and add its gradients of k, v and bias."""
  heads, scale, dtype = q.shape[1], q.shape[-1] ** -0.5, accumulator(q.dtype)
  few = k.shape[1]
  rows_q = _rows(plan.query_offsets, segment, block)
  q, g = take(q, rows_q), take(cotangent, rows_q)
  log_total = take(log_totals[..., None], rows_q)
  mean = jnp.sum(g.astype(dtype) * take(out, rows_q).astype(dtype), -1, keepdims=True)

  def add(index, carry):
    of_q, of_all_k, of_all_v, of_bias = carry
    rows_k = _rows(plan.key_offsets, segment, index)
    shift = (index - block) * BLOCK
    mask = options.visible(rows_q, rows_k, shift)
    keys, values = take(k, rows_k, heads), take(v, rows_k, heads)
    logits = products(q, keys) * scale
    if options.bias is not None:
      logits += bias_of(options.bias, shift, BLOCK, BLOCK)
    weights = jnp.exp(jnp.where(mask, logits - log_total, -jnp.inf))
    of_weights, dropped = products(g, values), weights
    kept = options.dropout(len(plan.tiles), number, index, shape=weights.shape)
    if kept is not None:
      of_weights, dropped = (x * kept.astype(dtype) for x in (of_weights, dropped))
    of_logits = jnp.where(mask, weights * (of_weights - mean) * scale, 0)
    seen = mask if options.masks else None
    seen_by = jnp.swapaxes(mask, -1, -2) if options.masks else None
    of_k = weighted(jnp.swapaxes(of_logits, -1, -2), q, seen_by)
    of_v = weighted(jnp.swapaxes(dropped, -1, -2), g, seen_by)
    of_all_k = put(of_all_k, rows_k, take(of_all_k, rows_k) + merge(of_k, few))
    of_all_v = put(of_all_v, rows_k, take(of_all_v, rows_k) + merge(of_v, few))
    if of_bias is not None:
      of_bias += bias_gradient(options.bias, shift, of_logits / scale)
    return of_q + weighted(of_logits, keys, seen), of_all_k, of_all_v, of_bias

  of_all_q, *others = grads
  of_q = zeros(q.shape, dtype, *jax.tree.leaves(grads))
  bounds = _key_blocks(plan, options, segment, block)
  of_q, *others = jax.lax.fori_loop(*bounds, add, (of_q, *others))
  return (put(of_all_q, rows_q, of_q), *others)
