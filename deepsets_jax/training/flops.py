"""Floating-point operations of a function, counted from its shapes alone.

XLA's count of a program that it has not optimised takes a running sum of n numbers for
n²/2 of them and the body of a loop for once, and after optimisation the count depends
on the device: on a CPU, scatters are loops. This one depends on the function alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import partial_eval

# What moves or chooses numbers; and kernels, of which nothing is known.
_FREE = frozenset(
  "bitcast_convert_type broadcast_in_dim concatenate convert_element_type copy copy_p"
  " dynamic_slice dynamic_update_slice ffi_call gather optimization_barrier pad"
  " pallas_call pcast pvary reshape rev scatter select_n slice sort split squeeze"
  " stop_gradient transpose".split()
)


def count(function: Callable[..., Any], *arguments: Any) -> float:
  """FLOPs of a call, whatever the numbers in it.

  A product and a sum of a matrix product or convolution are two. Any other operation
  on floats, a root or an exponential too, is one per number that comes out, or that
  goes in where several become one or are added to one place. Nothing else counts:
  integers, random bits, what is moved or chosen. A scan counts every trip; of a while
  loop, whose trips depend on the data, one; of the branches of a condition the
  largest; of what is computed for nothing, nothing.

  Args:
    function: Of arrays to arrays.
    arguments: Trees of arrays or of shapes.
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
    # Of a scatter, the numbers that are added, not the array that they are added to.
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
