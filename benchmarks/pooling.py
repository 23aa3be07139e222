"""Times the max pool's own gradient against XLA's default, in one process.

  python -m benchmarks.pooling

Variants are timed in shuffled rounds; read the ratios, not the milliseconds. Set
GLIBC_TUNABLES=glibc.malloc.hugetlb=1 on a CPU: without it page faults dominate
outputs above 32 MB.
"""

from __future__ import annotations

import json
import time

import jax
import jax.numpy as jnp
import numpy as np

from deepsets_jax.ragged import Ragged, from_lengths, pooling

# (examples, features, mean length, distribution)
CELLS = (
  (1024, 64, 16, "geometric"),
  (256, 256, 16, "geometric"),
  (1024, 256, 16, "constant"),
  (1024, 256, 16, "geometric"),
  (1024, 256, 64, "geometric"),
)
ROUNDS = 41


def sets(b: int, d: int, mean: int, distribution: str, seed: int = 0) -> Ragged:
  """Normal elements `[n, d]`, 64 padding slots, lengths of the given kind."""
  rng = np.random.default_rng(seed)
  lengths = rng.geometric(1 / mean, b) if distribution == "geometric" else [mean] * b
  lengths = np.asarray(lengths)
  values = rng.normal(size=(lengths.sum(), d)).astype(np.float32)
  packed = from_lengths(values, lengths)
  values = np.concatenate([values, np.zeros((64, d), np.float32)])
  offsets = packed.offsets.astype(np.int32)
  return Ragged(values=jnp.asarray(values), offsets=jnp.asarray(offsets))


def default_max(elements: Ragged):
  """`jax.ops.segment_max` with the gradient that JAX derives."""
  pooled = jax.ops.segment_max(
    elements.values,
    elements.segment_ids,
    elements.num_examples,
    indices_are_sorted=True,
  )
  return jnp.where(elements.lengths[:, None] > 0, pooled, 0)


def both_passes(pool):
  """Forward and backward of a pool, jitted: elements, cotangent -> gradient."""

  def run(elements, cotangent):
    def loss(values):
      return jnp.vdot(pool(elements.replace(values=values)), cotangent)

    return jax.value_and_grad(loss)(elements.values)

  return jax.jit(run)


def medians(calls: dict, rounds: int = ROUNDS) -> dict[str, float]:
  """Median seconds of each call, all timed in each of many shuffled rounds."""
  rng = np.random.default_rng(0)
  times = {name: [] for name in calls}
  for call in calls.values():
    jax.block_until_ready(call())
  for _ in range(rounds):
    for name in rng.permutation(list(calls)):
      start = time.perf_counter()
      jax.block_until_ready(calls[name]())
      times[name].append(time.perf_counter() - start)
  return {name: float(np.median(t)) for name, t in times.items()}


def measure(cell: tuple, rounds: int = ROUNDS) -> dict[str, float]:
  """Milliseconds of forward+backward per variant, and default over own."""
  elements = sets(*cell)
  cotangent = jnp.ones((cell[0], cell[1]), jnp.float32)
  runs = {
    "default_max": both_passes(default_max),
    "max": both_passes(lambda e: pooling.pool("max", e)),
    "sum": both_passes(lambda e: pooling.pool("sum", e)),
  }
  calls = {k: lambda f=f: f(elements, cotangent) for k, f in runs.items()}
  times = medians(calls, rounds)
  result = {f"{k}_ms": round(1e3 * t, 3) for k, t in times.items()}
  return result | {"default_over_own": times["default_max"] / times["max"]}


def main() -> None:
  """Prints one JSON line per cell, then the geometric mean of the ratios."""
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
