"""What a page of results was made with: commit, devices and versions."""

from __future__ import annotations

import functools
import pathlib
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any


@functools.cache
def commit() -> str:
  """The commit of this checkout, "unknown" outside a git repository.

  Cached at the first call: pages that are written later do not make it "dirty".
  """
  described = subprocess.run(
    ["git", "describe", "--always", "--dirty"],
    cwd=pathlib.Path(__file__).parent,
    capture_output=True,
    text=True,
    check=False,
  )
  return described.stdout.strip() or "unknown"


def environment(results: Mapping[str, Any]) -> str:
  """The devices and versions that a run's `results.json` names, as text."""
  device, versions = results["device"], results["versions"]
  return (
    f"{device['count']} {device['kind']} device, jax {versions['jax']},"
    f" jaxlib {versions['jaxlib']}, Python {versions['python']}"
  )


def caption(results: Mapping[str, Any], seeds: Sequence[int]) -> str:
  """The sentence below a table: how values were averaged, and where they come from."""
  numbers = ", ".join(map(str, seeds))
  spread = "Seed" if len(seeds) == 1 else "Mean ± sample standard deviation of seeds"
  return f"{spread} {numbers}; written at commit {commit()}, {environment(results)}."
