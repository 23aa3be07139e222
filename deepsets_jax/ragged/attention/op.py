"""The public attention op, `attend`, and `received_mass`, its pass to the keys.

The forward and the backward pass run over the tiles and blocks of a plan. A kernel for
GPUs or TPUs would replace `_forward` and `_backward`, which see a plan and flat arrays
only.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from deepsets_jax.ragged.attention import blocks, tiles
from deepsets_jax.ragged.attention.options import Options, make_options
from deepsets_jax.ragged.attention.plans import Plan, is_empty
from deepsets_jax.ragged.attention.rows import MOST_ROWS, accumulator, zeros


def attend(
  q: Float[Array, "n h k"],
  k: Float[Array, "m g k"],
  v: Float[Array, "m g w"],
  plan: Plan,
  *,
  causal: bool = False,
  window: int | None = None,
  bias: Float[Array, "h r"] | None = None,
  dropout_rate: float = 0.0,
  key: PRNGKeyArray | None = None,
  mode: Literal["reverse", "forward"] = "reverse",
) -> Float[Array, "n h w"]:
  """Compute softmax attention of each query over the keys of its own segment.

  The result is softmax(q k' / sqrt(k) + bias) v for each head (Vaswani et al., 2017).
  The softmax is computed in float32, or in float64 for float64 values. Queries that see
  no key, and padding, have result 0 and gradient 0. Memory is linear in `n` and `m`.

  Args:
    q, k, v: Queries, keys and values. Query head i sees key head i // (h / g) (Ainslie
      et al., 2023).
    plan: The plan of the batch.
    causal: Hide keys of later positions from a query; positions are counted within
      each segment.
    window: A query sees keys at distances less than this; with `causal`, the last
      `window` keys. Blocks of a long segment that are hidden cost nothing.
    bias: Added to the logits, `[h, 2 R + 1]`: column clip(d, -R, R) + R, where d is the
      key's position minus the query's (Shaw et al., 2018).
    dropout_rate: Probability that a weight is 0; others are divided by 1 - rate.
    key: Random key of the dropout, which depends on the key and on the plan.
    mode: "forward" for `jax.jvp`, `jax.jacfwd` and `jax.linearize`. JAX differentiates
      loops whose number of rounds depends on the data in forward mode only; reverse
      mode has a rule of its own, which rules out forward mode. Outputs are the same.

  Raises:
    ValueError: An argument is not as above, the key heads do not divide the query
      heads, or there are more than 2^30 queries or keys.
  """
  _check(q, k, v, mode)
  if bias is not None:
    # Inside `jax.shard_map` gradients vary over the axes of their arguments: here the
    # bias must vary over those of the queries.
    dtype = accumulator(v.dtype)
    bias = bias.astype(dtype) + zeros((), dtype, q, k, v, plan)
  options = make_options(q.shape[1], causal, window, bias, dropout_rate, key)
  if any(is_empty(x) for x in (q, k, plan.order)):
    return zeros((*q.shape[:2], v.shape[2]), v.dtype, q, k, v, plan)
  if mode == "forward":
    return _forward(q, k, v, plan, options)[0]
  return _attend(q, k, v, plan, options)


def _check(q, k, v, mode):
  heads, few, of_values = (x.shape[1] for x in (q, k, v))
  if few != of_values or few == 0 or heads % few:
    raise ValueError(
      f"attention of {heads} query heads over {few} key heads and {of_values} value"
      " heads: keys and values need the same number of heads, and it must divide the"
      " number of query heads"
    )
  slots = q.shape[0], k.shape[0]
  if any(isinstance(count, int) and count > MOST_ROWS for count in slots):
    raise ValueError(
      f"attention over {slots[0]} queries and {slots[1]} keys: at most {MOST_ROWS}"
      " slots; take more shards, config.data.shards"
    )
  if mode not in ("reverse", "forward"):
    raise ValueError(f'attention with mode={mode!r}: give "reverse" or "forward"')


@jax.custom_vjp
def _attend(q, k, v, plan: Plan, options: Options):
  return _forward(q, k, v, plan, options)[0]


def _forward(q, k, v, plan, options):
  q, k, v = (x.astype(v.dtype) for x in (q, k, v))
  inputs = (q, k, v, plan, options)
  out = zeros((*q.shape[:2], v.shape[2]), v.dtype, *inputs)
  for index in range(len(plan.tiles)):
    body = functools.partial(tiles.tile, q, k, v, options)
    out = tiles.for_groups(plan, index, body, out)
  log_totals = None
  if plan.has_blocks:
    log_totals = zeros(q.shape[:2], accumulator(v.dtype), *inputs)
    body = functools.partial(blocks.row, *inputs)
    out, log_totals = blocks.for_blocks(plan, body, (out, log_totals))
  return out, (*inputs, out, log_totals)


def _backward(residuals, cotangent):
  q, k, v, plan, options, out, log_totals = residuals
  like, dtype = (q, k, v, cotangent, plan, options), accumulator(v.dtype)
  inputs = (q, k, v, options.bias)
  grads = tuple(None if x is None else zeros(x.shape, dtype, *like) for x in inputs)
  for index in range(len(plan.tiles)):
    body = functools.partial(tiles.tile_gradient, q, k, v, options, cotangent)
    grads = tiles.for_groups(plan, index, body, grads)
  if plan.has_blocks:
    body = functools.partial(
      blocks.row_gradient, q, k, v, plan, options, cotangent, out, log_totals
    )
    grads = blocks.for_blocks(plan, body, grads)
  *of_qkv, of_bias = grads
  of_qkv = (g.astype(x.dtype) for g, x in zip(of_qkv, (q, k, v), strict=True))
  return (*of_qkv, None, dataclasses.replace(options, bias=of_bias, key=None))


_attend.defvjp(_forward, _backward)


def received_mass(
  q: Float[Array, "n h k"],
  k: Float[Array, "m g k"],
  plan: Plan,
  mass: Float[Array, "n"],
  *,
  causal: bool = False,
  window: int | None = None,
  bias: Float[Array, "h r"] | None = None,
) -> Float[Array, "m"]:
  """Pass a mass on each query to the keys, by the softmax weights of attention.

  The mass of a key is the sum, over the queries that see it, of weight times mass, and
  the mean over query heads. It is 0 for keys that no query sees, and on padding. No
  gradient passes. The cost is that of a backward pass of `attend`, with memory linear
  in `n` and `m`: the result is the vector-Jacobian product with respect to values of
  width one.

  Args:
    q, k, plan, causal, window, bias: As for `attend`.
    mass: The mass of each query.

  Returns:
    The mass of each key, in float32, or in float64 for float64 queries.

  Raises:
    ValueError: As for `attend`.
  """
  q, k, mass, bias = jax.lax.stop_gradient((q, k, mass, bias))
  heads, dtype = q.shape[1], accumulator(q.dtype)
  values = jnp.zeros((*k.shape[:2], 1), dtype)
  spread = jnp.broadcast_to(mass[:, None, None] / heads, (*q.shape[:2], 1))
  # Inside `jax.shard_map` gradients vary over the axes of their arguments: here all
  # arguments must vary over the same.
  nothing = zeros((), dtype, q, k, mass, plan)
  q, k, values, spread = (x.astype(dtype) + nothing for x in (q, k, values, spread))
  _, pull_back = jax.vjp(
    lambda v: attend(q, k, v, plan, causal=causal, window=window, bias=bias), values
  )
  (of_values,) = pull_back(spread)
  return of_values.sum(axis=(1, 2))
