"""Attention, forward and backward, over the tiles and blocks of a plan."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax.ragged.attention import blocks, tiles
from deepsets_jax.ragged.attention.plans import Plan
from deepsets_jax.ragged.attention.rows import MOST_ROWS, zeros


@jax.custom_vjp
def attend(
  q: Float[Array, "n h k"],
  k: Float[Array, "m h k"],
  v: Float[Array, "m h w"],
  plan: Plan,
) -> Float[Array, "n h w"]:
  """Softmax attention of each query over the keys of its own segment.

  softmax(q k' / sqrt(k)) v for each head (Vaswani et al., 2017); the softmax is in
  float32. Zero, with gradient zero, for queries whose segment has no key, and on
  padding. Memory is linear in `n` and `m`.

  Raises:
    ValueError: More rows than can be told from those past the end.
  """
  out, _ = _forward(q, k, v, plan)
  return out


def _forward(q, k, v, plan):
  if max(len(q), len(k)) > MOST_ROWS:
    raise ValueError(
      f"attention over {len(q)} queries and {len(k)} keys: at most {MOST_ROWS} slots;"
      " take more shards, config.data.shards"
    )
  q, k, v = (x.astype(v.dtype) for x in (q, k, v))
  out = zeros((*q.shape[:2], v.shape[2]), v.dtype, q, k, v, plan)
  for index in range(len(plan.tiles)):
    out = tiles.for_groups(plan, index, functools.partial(tiles.tile, q, k, v), out)
  log_totals = None
  if plan.has_blocks:
    log_totals = zeros(q.shape[:2], jnp.float32, q, k, v, plan)
    out, log_totals = blocks.for_blocks(
      plan, functools.partial(blocks.row, q, k, v, plan), (out, log_totals)
    )
  return out, (q, k, v, plan, out, log_totals)


def _backward(residuals, cotangent):
  q, k, v, plan, out, log_totals = residuals
  like = (q, k, v, cotangent, plan)
  grads = tuple(zeros(x.shape, jnp.float32, *like) for x in (q, k, v))
  for index in range(len(plan.tiles)):
    body = functools.partial(tiles.tile_gradient, q, k, v, cotangent)
    grads = tiles.for_groups(plan, index, body, grads)
  if plan.has_blocks:
    body = functools.partial(
      blocks.row_gradient, q, k, v, plan, cotangent, out, log_totals
    )
    grads = blocks.for_blocks(plan, body, grads)
  return (*(g.astype(x.dtype) for g, x in zip(grads, (q, k, v), strict=True)), None)


attend.defvjp(_forward, _backward)


def received(
  q: Float[Array, "n h k"],
  k: Float[Array, "m h k"],
  plan: Plan,
  mass: Float[Array, "n"],
) -> Float[Array, "m"]:
  """What the keys receive of a mass that each query spreads by its softmax weights.

  For each key the sum over the queries of its segment of weight times mass, the mean
  over heads. In float32; 0 for keys whose segment has no query, and on padding. No
  gradient passes. Costs a backward pass of `attend`, with memory linear in `n` and `m`:
  it is the vector-Jacobian product with respect to values of width one.
  """
  q, k, mass = jax.lax.stop_gradient((q, k, mass))
  heads = q.shape[1]
  values = jnp.zeros((len(k), heads, 1))
  spread = jnp.broadcast_to(mass[:, None, None] / heads, (len(q), heads, 1))
  # Inside `jax.shard_map` gradients vary as their arguments do: here all alike.
  nothing = zeros((), jnp.float32, q, k, mass, plan)
  q, k, values, spread = (
    x.astype(jnp.float32) + nothing for x in (q, k, values, spread)
  )
  _, pull_back = jax.vjp(lambda v: attend(q, k, v, plan), values)
  (of_values,) = pull_back(spread)
  return of_values.sum(axis=(1, 2))
