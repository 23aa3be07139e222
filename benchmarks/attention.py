"""Times attention inside segments against padded dense attention, in one process.

It also times one long segment with a window against the same without.

  python -m benchmarks.attention

Times include the forward and the backward pass. The padding of the inputs of the dense
variants is not timed. Compare ratios, not milliseconds; see the README of this folder.
"""

from __future__ import annotations

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import median_seconds
from deepsets_jax.ragged import attention

EXAMPLES, MEAN, HEADS, WIDTH = 96, 24, 4, 32
CASES = ("constant 24", "constant 60", "constant 100", "geometric", "power law")
# Number of elements of the long segment, and its windows.
LONG, WINDOWS = 8192, {"all keys": {}, "window 64": dict(window=64)}
ROUNDS = 15


def lengths(case: str, seed: int = 0) -> np.ndarray:
  """Draw the lengths of 96 segments; the longest of a power law is 16 times MEAN."""
  kind, _, constant = case.partition(" ")
  rng = np.random.default_rng(seed)
  match kind:
    case "constant":
      return np.full(EXAMPLES, int(constant))
    case "geometric":
      return rng.geometric(1 / MEAN, EXAMPLES)
  found = 1 + (rng.pareto(1.5, EXAMPLES) * MEAN / 2).astype(int)
  found = np.minimum(found, 16 * MEAN)
  found[0] = 16 * MEAN
  return found


def padded(q, k, v, mask):
  """Dense attention over `[b, l, h, d]` with a mask `[b, l]` of the keys."""
  logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
  weights = jax.nn.softmax(jnp.where(mask[:, None, None], logits, -1e30))
  return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def library(q, k, v, mask):
  """JAX's own dense attention, which makes a mask of the lengths."""
  counts = mask.sum(axis=1).astype(jnp.int32)
  return jax.nn.dot_product_attention(
    q, k, v, query_seq_lengths=counts, key_value_seq_lengths=counts
  )


def segments(q, k, v, offsets, **options):
  """Attention of this package, including its plan."""
  plan = attention.plan(offsets, offsets, len(q), len(q))
  return attention.attend(q, k, v, plan, **options)


def both_passes(function):
  """Return the jitted forward and backward pass.

  It is a function (q, k, v, mask or offsets, cotangent) -> (value, gradients).
  """

  @jax.jit
  def run(q, k, v, where, cotangent):
    def loss(*inputs):
      return jnp.vdot(function(*inputs, where), cotangent)

    return jax.value_and_grad(loss, (0, 1, 2))(q, k, v)

  return run


def measure(case: str, rounds: int = ROUNDS) -> dict[str, float]:
  """Measure milliseconds, temporary megabytes and ratios of all variants in a case."""
  found = lengths(case)
  mask = np.arange(found.max())[None] < found[:, None]
  offsets = jnp.asarray(np.cumsum([0, *found]), jnp.int32)
  rng = np.random.default_rng(1)
  flat = [
    jnp.asarray(rng.normal(size=(found.sum(), HEADS, WIDTH)), jnp.float32)
    for _ in range(4)
  ]
  dense = [
    jnp.zeros((*mask.shape, HEADS, WIDTH)).at[np.nonzero(mask)].set(x) for x in flat
  ]
  variants = {
    "segments": (segments, flat, offsets),
    "padded": (padded, dense, jnp.asarray(mask)),
    "library": (library, dense, jnp.asarray(mask)),
  }
  calls, result = {}, {"fill": round(float(mask.mean()), 3)}
  for name, (function, (*inputs, cotangent), where) in variants.items():
    compiled = both_passes(function).lower(*inputs, where, cotangent).compile()
    calls[name] = functools.partial(compiled, *inputs, where, cotangent)
    memory = compiled.memory_analysis().temp_size_in_bytes / 1e6
    result[f"{name}_mb"] = round(memory, 1)
  (ours, *_), (theirs, *_) = calls["segments"](), calls["padded"]()
  np.testing.assert_allclose(ours, theirs, 1e-3)
  times = median_seconds(calls, rounds)
  result |= {f"{name}_ms": round(1e3 * t, 2) for name, t in times.items()}
  return result | {
    "padded_over_segments": round(times["padded"] / times["segments"], 2),
    "library_over_segments": round(times["library"] / times["segments"], 2),
  }


def measure_windows(rounds: int = 5) -> dict[str, float]:
  """Measure milliseconds of one long segment with and without a window."""
  offsets = jnp.asarray([0, LONG], jnp.int32)
  rng = np.random.default_rng(1)
  arrays = [
    jnp.asarray(rng.normal(size=(LONG, HEADS, WIDTH)), jnp.float32) for _ in range(4)
  ]
  *inputs, cotangent = arrays
  calls = {
    name: functools.partial(
      both_passes(functools.partial(segments, **options)), *inputs, offsets, cotangent
    )
    for name, options in WINDOWS.items()
  }
  times = median_seconds(calls, rounds)
  result = {f"{name}_ms": round(1e3 * t, 2) for name, t in times.items()}
  everything, windowed = times.values()
  return result | {"all_over_window": round(everything / windowed, 2)}


def main() -> None:
  """Prints one JSON line per case."""
  print(jax.devices()[0].device_kind, "jax", jax.__version__)
  for case in CASES:
    print(json.dumps({"case": case} | measure(case)), flush=True)
  print(json.dumps({"case": f"one of {LONG}"} | measure_windows()), flush=True)


if __name__ == "__main__":
  main()
