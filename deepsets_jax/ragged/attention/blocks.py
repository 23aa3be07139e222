"""Attention of long segments: blocks of queries by blocks of keys."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from deepsets_jax.ragged.attention.plans import BLOCK, Plan
from deepsets_jax.ragged.attention.rows import (
  products,
  put,
  real,
  rows_of,
  take,
  weighted,
  zeros,
)


def for_blocks(plan: Plan, body: Callable, carry):
  """Runs a body over the blocks of queries of the long segments.

  The body takes the segment, the rows of the block `[BLOCK]`, and the carry.
  """

  def of_block(index, carry):
    segment = jnp.searchsorted(plan.block_ends, index, side="right")
    before = jnp.where(segment > 0, plan.block_ends[segment - 1], 0)
    rows = _block(plan.query_offsets, segment, index - before)
    return body(segment, rows, carry)

  return jax.lax.fori_loop(0, plan.block_ends[-1], of_block, carry)


def _block(offsets, segment, index):
  return rows_of(offsets[segment] + index * BLOCK, offsets[segment + 1], BLOCK)


def _num_key_blocks(plan, segment):
  keys = plan.key_offsets[segment + 1] - plan.key_offsets[segment]
  return (keys + BLOCK - 1) // BLOCK


def row(q, k, v, plan, segment, rows_q, carry):
  """One block of queries over all blocks of keys of its segment."""
  out, log_totals = carry
  q, scale = take(q, rows_q), q.shape[-1] ** -0.5

  def add(index, state):
    peak, total, summed = state
    rows_k = _block(plan.key_offsets, segment, index)
    mask = real(rows_k)[None, None, :]
    logits = jnp.where(mask, products(q, take(k, rows_k)) * scale, -jnp.inf)
    higher = jnp.maximum(peak, jnp.max(logits, axis=-1, keepdims=True))
    exponentials, shrink = jnp.exp(logits - higher), jnp.exp(peak - higher)
    total = total * shrink + jnp.sum(exponentials, axis=-1, keepdims=True)
    summed = summed * shrink + weighted(exponentials, take(v, rows_k))
    return higher, total, summed

  shape = (*q.shape[:2], 1)
  like = (out, q, plan)
  state = (
    zeros(shape, jnp.float32, *like) - jnp.inf,
    zeros(shape, jnp.float32, *like),
    zeros((*q.shape[:2], v.shape[2]), jnp.float32, *like),
  )
  # The first block has a key: a segment without any has no block.
  peak, total, summed = jax.lax.fori_loop(0, _num_key_blocks(plan, segment), add, state)
  log_total = jnp.swapaxes((peak + jnp.log(total))[..., 0], 0, 1)
  return (
    put(out, rows_q, summed / total),
    log_totals.at[rows_q].set(log_total, mode="drop", unique_indices=True),
  )


def row_gradient(q, k, v, plan, cotangent, out, log_totals, segment, rows_q, grads):
  """The gradients of q, k and v from one block of queries: written, and added."""
  scale = q.shape[-1] ** -0.5
  q, g = take(q, rows_q), take(cotangent, rows_q)
  log_total = take(log_totals[..., None], rows_q)
  mean = jnp.sum(
    g.astype(jnp.float32) * take(out, rows_q).astype(jnp.float32), -1, keepdims=True
  )
  real_q = real(rows_q)[None, :, None]

  def add(index, carry):
    of_q, all_k, all_v = carry
    rows_k = _block(plan.key_offsets, segment, index)
    mask = real_q & real(rows_k)[None, None, :]
    keys, values = take(k, rows_k), take(v, rows_k)
    logits = jnp.where(mask, products(q, keys) * scale - log_total, -jnp.inf)
    weights = jnp.exp(logits)
    of_logits = weights * (products(g, values) - mean) * scale
    of_k = weighted(jnp.swapaxes(of_logits, -1, -2), q)
    of_v = weighted(jnp.swapaxes(weights, -1, -2), g)
    all_k = put(all_k, rows_k, take(all_k, rows_k) + of_k)
    all_v = put(all_v, rows_k, take(all_v, rows_k) + of_v)
    return of_q + weighted(of_logits, keys), all_k, all_v

  of_q = zeros(q.shape, jnp.float32, *grads)
  of_q, *rest = jax.lax.fori_loop(
    0, _num_key_blocks(plan, segment), add, (of_q, *grads[1:])
  )
  return (put(grads[0], rows_q, of_q), *rest)
