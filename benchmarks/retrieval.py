"""Users per second of full ranking and of the top 10, from 1,682 to 1 million items.

  python -m benchmarks.retrieval

Random vectors, 50 seen items and one target a user. Variants are timed in shuffled
rounds, a minute in all on two cores; each call begins with the check of all vectors.
The approximate search is made for a TPU: on a CPU its HLO is the custom call "TopK" of
all scores, which is exact, and slower than the exact search here, which looks at the
maxima of chunks first. Set GLIBC_TUNABLES=glibc.malloc.hugetlb=1 on a CPU.
"""

from __future__ import annotations

import resource

import jax
import numpy as np

from benchmarks.pooling import medians
from deepsets_jax.ragged import from_lengths
from deepsets_jax.tasks.retrieval import ranks
from deepsets_jax.tasks.retrieval.nearest import nearest

# (items, width, users): memory is that of the largest so far, so these grow.
CELLS = (
  (1_682, 64, 4096),
  (10_000, 64, 4096),
  (100_000, 64, 1024),
  (1_000_000, 64, 512),
  (1_000_000, 256, 256),
)
K, SEEN, ROUNDS = 10, 50, 5


def measure(items: int, width: int, users: int, rounds: int = ROUNDS) -> dict:
  """Users per second of each variant, recall of the approximate one, memory.

  Returns:
    "items", "width"; "ranking", "exact" and "approximate" in users/s; "recall", the
    share of the exact lists that is in the approximate ones; "peak_gb", the most memory
    that the process has held so far.
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
  rates = {name: users / time for name, time in medians(calls, rounds).items()}
  (_, exact), (_, found) = calls["exact"](), calls["approximate"]()
  hits = sum(len(np.intersect1d(*pair)) for pair in zip(exact, found, strict=True))
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
  sizes = {"items": items, "width": width}
  return sizes | rates | {"recall": hits / exact.size, "peak_gb": peak}


def rows(rounds: int = ROUNDS) -> list[dict]:
  """What `measure` gives for each of `CELLS`."""
  return [measure(*cell, rounds) for cell in CELLS]


def main() -> None:
  """Prints a Markdown table."""
  print(
    f"| items x width | full ranking, users/s | exact top {K}, users/s | approximate,"
    f" users/s | recall@{K} of approximate | peak memory, GB |\n" + "|---" * 6 + "|"
  )
  for row in rows():
    print(
      f"| {row['items']:,} x {row['width']} | {row['ranking']:,.0f} |"
      f" {row['exact']:,.0f} | {row['approximate']:,.0f} | {row['recall']:.3f} |"
      f" {row['peak_gb']:.2f} |"
    )


if __name__ == "__main__":
  main()
