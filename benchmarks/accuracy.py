"""Prints a page with the errors of pools on large sets, and their cost.

  python -m benchmarks.accuracy > docs/accuracy.md

Alternatives are the same formulas with `jax.ops.segment_sum`, as in jraph, and with
torch's `index_add` if torch is installed. The reference is numpy in float64. Compare
ratios of times, see the README of this folder.
"""

from __future__ import annotations

import functools
import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.pooling import both_passes, sets
from benchmarks.timing import median_seconds
from deepsets_jax.ragged import Ragged, pooling

SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)
VALUES = {
  "0.1": lambda rng, n: np.full(n, 0.1),
  "normal (1000, 1)": lambda rng, n: rng.normal(1000, 1, n),
  "uniform (0, 1)": lambda rng, n: rng.uniform(size=n),
  "log-normal": lambda rng, n: rng.lognormal(size=n),
}
POOLS = ("sum", "mean", "var", "logsumexp", "softmax")
# (examples, features, mean length, distribution of lengths): sets of at most 64
# elements, sets of which some are longer, and very large ones.
CELLS = (
  (4096, 64, 4, "constant"),
  (1024, 64, 16, "constant"),
  (1024, 256, 16, "constant"),
  (1024, 256, 16, "geometric"),
  (16, 64, 10_000, "constant"),
  (1, 16, 1_000_000, "constant"),
)


def ours(name: str, elements: Ragged):
  """Pool with this package."""
  scores = elements.values if name == "softmax" else None
  return pooling.pool(name, elements, scores=scores)


def formula(name: str, x, add, count, largest, expand=lambda result: result, xp=np):
  """Pool by the plain formula.

  Args:
    name: The pool.
    x: Elements.
    add: Function that sums elements of a set.
    count: Number of elements of a set.
    largest: Largest element of a set.
    expand: Function that repeats results of a set for its elements.
    xp: Module with `exp` and `log`.
  """
  if name == "sum":
    return add(x)
  mean = add(x) / count
  if name == "mean":
    return mean
  if name == "var":
    return add((x - expand(mean)) ** 2) / count
  weights = xp.exp(x - expand(largest))
  if name == "logsumexp":
    return xp.log(add(weights)) + largest
  return add(weights * x) / add(weights)


def exact(name: str, x: np.ndarray) -> float:
  """Pool one set `[n]` in float64."""
  return formula(name, x.astype(np.float64), np.sum, len(x), np.float64(x.max()))


def by_segment_sum(name: str, elements: Ragged):
  """Pool with `jax.ops.segment_sum`, which adds the elements of a set one by one."""
  x, ids, b = elements.values, elements.segment_ids, elements.num_examples
  add = functools.partial(
    jax.ops.segment_sum, segment_ids=ids, num_segments=b, indices_are_sorted=True
  )
  count = elements.lengths.reshape(b, *[1] * (x.ndim - 1)).astype(jnp.float32)
  largest = jax.ops.segment_max(x, ids, b, indices_are_sorted=True)
  return formula(name, x, add, count, largest, lambda result: result[ids], jnp)


def by_torch(name: str, x: np.ndarray) -> float:
  """Pool one set `[n]` with torch's `index_add`."""
  torch = importlib.import_module("torch")
  x = torch.tensor(x)
  ids = torch.zeros(len(x), dtype=torch.long)

  def add(values):
    return torch.zeros(1).index_add(0, ids, values)

  return formula(name, x, add, len(x), x.max(), xp=torch).item()


def errors(name: str, size: int, peers: dict) -> dict[str, float]:
  """Return the largest relative error over `VALUES`: name of a peer -> error.

  Equal values have no variance; the error of their variance is relative to their
  square.

  Args:
    name: The pool.
    size: Number of elements.
    peers: Name -> function (pool, values `[n]`) -> result.
  """
  worst = dict.fromkeys(peers, 0.0)
  for kind, draw in VALUES.items():
    x = draw(np.random.default_rng(0), size).astype(np.float32)
    want = exact(name, x)
    scale = 0.01 if name == "var" and kind == "0.1" else abs(want)
    for peer, call in peers.items():
      worst[peer] = max(worst[peer], abs(call(name, x) - want) / scale)
  return worst


@functools.partial(jax.jit, static_argnums=(0, 1))
def _jitted(pool, name, values, offsets):
  return pool(name, Ragged(values, offsets))


def _of_one_set(pool):
  """Return the pool as a function (pool, values `[n]`) -> number."""

  def call(name, x):
    offsets = jnp.array([0, len(x)], jnp.int32)
    return float(np.asarray(_jitted(pool, name, jnp.asarray(x), offsets))[0])

  return call


def cost(name: str, cell: tuple, rounds: int) -> tuple[float, float]:
  """Return time ratios of the pool to `segment_sum`: forward, and with the gradient."""
  elements = sets(*cell)
  cotangent = jnp.ones((cell[0], cell[1]), jnp.float32)
  calls = {}
  for peer, pool in (("ours", ours), ("chain", by_segment_sum)):
    forward = jax.jit(functools.partial(pool, name))
    both = both_passes(functools.partial(pool, name))
    calls[peer] = functools.partial(forward, elements)
    calls[f"{peer} both"] = functools.partial(both, elements, cotangent)
  times = median_seconds(calls, rounds)
  return times["ours"] / times["chain"], times["ours both"] / times["chain both"]


def main() -> None:
  """Prints the page."""
  peers = {
    "ours": _of_one_set(ours),
    "`jax.ops.segment_sum`": _of_one_set(by_segment_sum),
  }
  versions = f"jaxlib {jax.lib.__version__}, numpy {np.__version__}"
  try:
    versions += f", torch {importlib.import_module('torch').__version__}"
    peers["torch `index_add`"] = by_torch
  except ImportError:
    print("torch is not installed: its column is left out", file=sys.stderr)
  print("# Accuracy and cost of pools on large sets\n")
  print(
    f"Written by `python -m benchmarks.accuracy` on {jax.devices()[0].device_kind},"
  )
  print(f"{versions}. A cell is the relative error of one set in")
  print("float32 against numpy in float64, the largest over four kinds of values:")
  print(f"{', '.join(VALUES)} (seed 0).\n")
  names = ["pool", "elements", *peers]
  print("| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|")
  for name in POOLS:
    for size in SIZES:
      found = errors(name, size, peers)
      print(
        f"| {name} | {size:,} | " + " | ".join(f"{x:.0e}" for x in found.values()), "|"
      )
  print(
    "\nRatio of the time to that of the formula with `jax.ops.segment_sum`, for the"
  )
  print("forward pass and for both passes. Sets of up to 64 elements are summed one by")
  print("one, larger ones in levels.\n")
  print("| pool | examples | features | length | forward | both |\n" + "|---" * 6 + "|")
  for name in POOLS:
    for cell in CELLS:
      ratios = cost(name, cell, rounds=11 if cell[0] == 1 else 31)
      b, d, mean, kind = cell
      shape = f"{b:,} | {d} | {mean:,}, {kind}"
      print(f"| {name} | {shape} | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)


if __name__ == "__main__":
  main()
