"""Floating-point operations of a function, counted from its jaxpr.

The count depends on the function and its shapes only. XLA's count of an unoptimised
program takes n²/2 operations for a running sum of n numbers, and counts the body of a
loop once. Its count of an optimised program depends on the device: on a CPU, scatters
are loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import partial_eval

# Primitives that move or choose numbers, and kernels, whose operations are unknown.
_FREE = frozenset(
  "bitcast_convert_type broadcast_in_dim concatenate convert_element_type copy copy_p"
  " dynamic_slice dynamic_update_slice ffi_call gather optimization_barrier pad"
  " pallas_call pcast pvary reshape rev scatter select_n slice sort split squeeze"
  " stop_gradient transpose".split()
)


def count(function: Callable[..., Any], *arguments: Any) -> float:
  """Count the floating-point operations of a call.

  A multiply-add of a matrix product or a convolution counts as two. Any other operation
  on floats, such as a root or an exponential, counts as one per output number; a
  reduction or a scatter counts as one per input number. Operations on integers, random
  bits, copies and selections count nothing, and neither do unused results. A scan
  counts all of its trips, a while loop one (their number depends on the data), and a
  condition its most expensive branch.

  Args:
    function: Function from arrays to arrays.
    arguments: Its arguments: trees of arrays or of shapes.
  """
  jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
  jaxpr, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
  return _of_jaxpr(jaxpr)


def _of_jaxpr(jaxpr: core.Jaxpr) -> float:
  return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: core.JaxprEqn) -> float:
  name, params = equation.primitive.name, equation.params
  shapes = [x.aval for x in equation.invars]
  result = equation.outvars[0].aval if equation.outvars else None
  if name in _FREE:
    return 0.0
  if name == "scan":
    return params["length"] * _of_jaxpr(params["jaxpr"].jaxpr)
  if name == "cond":
    return max(_of_jaxpr(branch.jaxpr) for branch in params["branches"])
  if name == "dot_general":
    (contracted, _), _ = params["dimension_numbers"]
    return 2.0 * result.size * math.prod(shapes[0].shape[axis] for axis in contracted)
  if name == "conv_general_dilated":
    channels = shapes[1].shape[params["dimension_numbers"].rhs_spec[0]]
    return 2.0 * result.size * shapes[1].size / channels
  if name.startswith(("scatter", "reduce_", "cum", "arg")):
    # A scatter counts the numbers that are added, not the array they are added to.
    taken = shapes[2 if name.startswith("scatter") else 0]
    return float(taken.size) if _is_float(taken) else 0.0
  inner = list(core.jaxprs_in_params(params))
  if inner:  # A call, or a while loop.
    return sum(_of_jaxpr(jaxpr) for jaxpr in inner)
  if not any(_is_float(shape) for shape in [*shapes, result]):
    return 0.0
  return float(result.size)


def _is_float(shape: Any) -> bool:
  return jnp.issubdtype(getattr(shape, "dtype", jnp.int32), jnp.floating)
