"""How far sums of giant sets are from float64, and what that costs; as a page.

  python -m benchmarks.accuracy > docs/accuracy.md

Beside the pools: the same formulas over `jax.ops.segment_sum`, as in jraph, and, where
it is installed, torch's `index_add`. Errors are the largest over the kinds of values,
against numpy in float64. Times are medians of one process, in shuffled rounds; read the
ratios. Set GLIBC_TUNABLES=glibc.malloc.hugetlb=1 on a CPU: without it page faults
dominate outputs above 32 MB.
"""

from __future__ import annotations

import functools
import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.pooling import both_passes, medians, sets
from deepsets_jax.ragged import Ragged, pooling

SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)
VALUES = {
  "0.1": lambda rng, n: np.full(n, 0.1),
  "normal (1000, 1)": lambda rng, n: rng.normal(1000, 1, n),
  "uniform (0, 1)": lambda rng, n: rng.uniform(size=n),
  "log-normal": lambda rng, n: rng.lognormal(size=n),
}
POOLS = ("sum", "mean", "var", "logsumexp", "softmax")
# (examples, features, mean length, distribution): sets of at most 64 elements, sets of
# which some are longer, and giant ones.
CELLS = (
  (4096, 64, 4, "constant"),
  (1024, 64, 16, "constant"),
  (1024, 256, 16, "constant"),
  (1024, 256, 16, "geometric"),
  (16, 64, 10_000, "constant"),
  (1, 16, 1_000_000, "constant"),
)


def exact(name: str, x: np.ndarray) -> float:
  """The pool of one set, in float64."""
  x = x.astype(np.float64)
  weights = np.exp(x - x.max())
  return {
    "sum": lambda: x.sum(),
    "mean": lambda: x.mean(),
    "var": lambda: x.var(),
    "logsumexp": lambda: np.log(weights.sum()) + x.max(),
    "softmax": lambda: (weights * x).sum() / weights.sum(),
  }[name]()


def ours(name: str, elements: Ragged):
  """The package's pool."""
  scores = elements.values if name == "softmax" else None
  return pooling.pool(name, elements, scores=scores)


def by_segment_sum(name: str, elements: Ragged):
  """The same over `jax.ops.segment_sum`, one chain of additions per set."""
  x, ids, b = elements.values, elements.segment_ids, elements.num_examples
  add = functools.partial(
    jax.ops.segment_sum, segment_ids=ids, num_segments=b, indices_are_sorted=True
  )
  count = elements.lengths.reshape(b, *[1] * (x.ndim - 1)).astype(jnp.float32)
  mean = add(x) / count
  if name in ("sum", "mean"):
    return add(x) if name == "sum" else mean
  if name == "var":
    return add((x - mean[ids]) ** 2) / count
  peak = jax.ops.segment_max(x, ids, b, indices_are_sorted=True)
  weights = jnp.exp(x - peak[ids])
  if name == "logsumexp":
    return jnp.log(add(weights)) + peak
  return add(weights * x) / add(weights)


def by_torch(name: str, x: np.ndarray) -> float:
  """The same with torch's `index_add`, of one set."""
  torch = importlib.import_module("torch")
  x = torch.tensor(x)
  ids = torch.zeros(len(x), dtype=torch.long)

  def add(values):
    return torch.zeros(1).index_add(0, ids, values)

  mean = add(x) / len(x)
  weights = torch.exp(x - x.max())
  return {
    "sum": lambda: add(x),
    "mean": lambda: mean,
    "var": lambda: add((x - mean) ** 2) / len(x),
    "logsumexp": lambda: torch.log(add(weights)) + x.max(),
    "softmax": lambda: add(weights * x) / add(weights),
  }[name]().item()


def errors(name: str, size: int, peers: dict) -> dict[str, float]:
  """The largest relative error over the kinds of values, by peer.

  Equal values have no variance: its error is relative to their square.
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
  """Name and values `[n]` to a number."""

  def call(name, x):
    offsets = jnp.array([0, len(x)], jnp.int32)
    return float(np.asarray(_jitted(pool, name, jnp.asarray(x), offsets))[0])

  return call


def cost(name: str, cell: tuple, rounds: int) -> tuple[float, float]:
  """Time of the pool over that of the chain: forward, and with the gradient."""
  elements = sets(*cell)
  cotangent = jnp.ones((cell[0], cell[1]), jnp.float32)
  calls = {}
  for peer, pool in (("ours", ours), ("chain", by_segment_sum)):
    forward = jax.jit(functools.partial(pool, name))
    both = both_passes(functools.partial(pool, name))
    calls[peer] = functools.partial(forward, elements)
    calls[f"{peer} both"] = functools.partial(both, elements, cotangent)
  times = medians(calls, rounds)
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
  print("# Accuracy of pools on giant sets, and its cost\n")
  print(f"Made by `python -m benchmarks.accuracy` on {jax.devices()[0].device_kind},")
  print(f"{versions}. Errors of one set in float32 against numpy in float64, relative,")
  print(f"the largest over values of four kinds: {', '.join(VALUES)} (seed 0).\n")
  names = ["pool", "elements", *peers]
  print("| " + " | ".join(names) + " |\n|" + " --- |" * len(names))
  for name in POOLS:
    for size in SIZES:
      found = errors(name, size, peers)
      print(
        f"| {name} | {size:,} | " + " | ".join(f"{x:.0e}" for x in found.values()), "|"
      )
  print("\nTime over that of the formula with `jax.ops.segment_sum`, forward and with")
  print("the gradient. Sets of up to 64 elements are summed in one chain, others in")
  print("levels.\n\n| pool | examples | features | length | forward | both |")
  print("|" + " --- |" * 6)
  for name in POOLS:
    for cell in CELLS:
      ratios = cost(name, cell, rounds=11 if cell[0] == 1 else 31)
      b, d, mean, kind = cell
      shape = f"{b:,} | {d} | {mean:,}, {kind}"
      print(f"| {name} | {shape} | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)


if __name__ == "__main__":
  main()
