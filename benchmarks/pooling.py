"""Times the max pool's own gradient against XLA's default, in one process.

  python -m benchmarks.pooling

Compare ratios, not milliseconds; see the README of this folder.
"""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import median_seconds
from deepsets_jax.ragged import Ragged, from_lengths, pooling

# (examples, features, mean length, distribution of lengths)
CELLS = (
  (1024, 64, 16, "geometric"),
  (256, 256, 16, "geometric"),
  (1024, 256, 16, "constant"),
  (1024, 256, 16, "geometric"),
  (1024, 256, 64, "geometric"),
)
ROUNDS = 41


def sets(b: int, d: int, mean: int, distribution: str, seed: int = 0) -> Ragged:
  """Draw `b` sets of normal elements `[n, d]`, with 64 padding slots at the end.

  Lengths are geometric with this mean, or all equal to it.
  """
  rng = np.random.default_rng(seed)
  lengths = rng.geometric(1 / mean, b) if distribution == "geometric" else [mean] * b
  lengths = np.asarray(lengths)
  values = rng.normal(size=(lengths.sum(), d)).astype(np.float32)
  packed = from_lengths(values, lengths)
  values = np.concatenate([values, np.zeros((64, d), np.float32)])
  offsets = packed.offsets.astype(np.int32)
  return Ragged(values=jnp.asarray(values), offsets=jnp.asarray(offsets))


def default_max(elements: Ragged):
  """Pool with `jax.ops.segment_max` and the gradient that JAX derives."""
  pooled = jax.ops.segment_max(
    elements.values,
    elements.segment_ids,
    elements.num_examples,
    indices_are_sorted=True,
  )
  return jnp.where(elements.lengths[:, None] > 0, pooled, 0)


def both_passes(pool):
  """Return the jitted forward and backward pass: elements, cotangent -> gradient."""

  def run(elements, cotangent):
    def loss(values):
      return jnp.vdot(pool(elements.replace(values=values)), cotangent)

    return jax.value_and_grad(loss)(elements.values)

  return jax.jit(run)


def measure(cell: tuple, rounds: int = ROUNDS) -> dict[str, float]:
  """Measure milliseconds of forward and backward, and the ratio of default to own."""
  elements = sets(*cell)
  cotangent = jnp.ones((cell[0], cell[1]), jnp.float32)
  runs = {
    "default_max": both_passes(default_max),
    "max": both_passes(lambda e: pooling.pool("max", e)),
    "sum": both_passes(lambda e: pooling.pool("sum", e)),
  }
  calls = {k: lambda f=f: f(elements, cotangent) for k, f in runs.items()}
  times = median_seconds(calls, rounds)
  result = {f"{k}_ms": round(1e3 * t, 3) for k, t in times.items()}
  return result | {"default_over_own": times["default_max"] / times["max"]}


def main() -> None:
  """Prints a JSON line per cell, and the geometric mean of the ratios."""
  print(jax.devices()[0].device_kind, "jax", jax.__version__)
  ratios = []
  for cell in CELLS:
    result = measure(cell)
    ratios.append(result["default_over_own"])
    print(json.dumps({"cell": cell} | result))
  mean = float(np.exp(np.mean(np.log(ratios))))
  print(f"max, forward+backward, default over own: {mean:.2f}x (geometric mean)")


if __name__ == "__main__":
  main()
