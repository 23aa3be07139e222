"""Shared measurements: medians of wall-clock times, and peak memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np


def median_seconds(
  calls: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, float]:
  """Return the median time of each call, by name.

  All calls are timed in random order in each round, so that load of the machine affects
  all of them alike. Each is called once before, to compile it.
  """
  rng = np.random.default_rng(0)
  times = {name: [] for name in calls}
  for call in calls.values():
    jax.block_until_ready(call())
  for _ in range(rounds):
    for name in rng.permutation(list(calls)):
      start = time.perf_counter()
      jax.block_until_ready(calls[name]())
      times[name].append(time.perf_counter() - start)
  return {name: float(np.median(found)) for name, found in times.items()}


def peak_memory_gb() -> float:
  """Return the largest memory of this process so far, in GB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
