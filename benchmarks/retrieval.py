"""Measures users per second of full ranking and top 10, up to a million items.

  python -m benchmarks.retrieval

Vectors are random; each user has 50 seen items and one target. Every call includes the
check that all vectors are finite. It takes about a minute on two cores.

The approximate search is meant for a TPU. On a CPU its HLO is the custom call "TopK" of
all scores, which is exact, and slower than the exact search of this package, which
looks at the maxima of chunks first.
"""

from __future__ import annotations

import jax
import numpy as np

from benchmarks.timing import median_seconds, peak_memory_gb
from deepsets_jax.ragged import from_lengths
from deepsets_jax.tasks.retrieval import ranks
from deepsets_jax.tasks.retrieval.nearest import nearest

# (items, width, users), in order of size, because peak memory never decreases.
CELLS = (
  (1_682, 64, 4096),
  (10_000, 64, 4096),
  (100_000, 64, 1024),
  (1_000_000, 64, 512),
  (1_000_000, 256, 256),
)
K, SEEN, ROUNDS = 10, 50, 5


def measure(items: int, width: int, users: int, rounds: int = ROUNDS) -> dict:
  """Measure users per second of each variant, recall of the approximate one, memory.

  Returns:
    "items", "width"; "ranking", "exact" and "approximate" in users/s; "recall", the
    share of the exact lists that is in the approximate ones; "peak_gb", the peak memory
    of the process so far.
  """
  rng = np.random.default_rng(0)
  vectors = jax.device_put(rng.standard_normal((items, width), np.float32))
  queries = rng.standard_normal((users, width), np.float32)
  targets = from_lengths(rng.integers(0, items, users), np.ones(users, np.int64))
  seen = rng.integers(0, items, users * SEEN)
  seen = from_lengths(seen, np.full(users, SEEN))
  calls = {
    "ranking": lambda: ranks.of_vectors(queries, vectors, targets, seen),
    "exact": lambda: nearest(queries, vectors, K, seen),
    "approximate": lambda: nearest(queries, vectors, K, seen, approximate=True),
  }
  rates = {name: users / time for name, time in median_seconds(calls, rounds).items()}
  (_, exact), (_, found) = calls["exact"](), calls["approximate"]()
  hits = sum(len(np.intersect1d(*pair)) for pair in zip(exact, found, strict=True))
  sizes = {"items": items, "width": width}
  return sizes | rates | {"recall": hits / exact.size, "peak_gb": peak_memory_gb()}


def main() -> None:
  """Prints a Markdown table."""
  print(
    f"| items x width | full ranking, users/s | exact top {K}, users/s | approximate,"
    f" users/s | recall@{K} of approximate | peak memory, GB |\n" + "|---" * 6 + "|"
  )
  for cell in CELLS:
    row = measure(*cell)
    print(
      f"| {row['items']:,} x {row['width']} | {row['ranking']:,.0f} |"
      f" {row['exact']:,.0f} | {row['approximate']:,.0f} | {row['recall']:.3f} |"
      f" {row['peak_gb']:.2f} |"
    )


if __name__ == "__main__":
  main()
