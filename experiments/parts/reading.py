"""The part on reading data: what benchmarks print, of a process of their own each."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from deepsets_jax import report

_BENCHMARKS = ("table", "records", "mm_imdb")


def reading_part() -> tuple[str, dict[str, Any]]:
  """What the three benchmarks print, and where they ran."""
  blocks = []
  for name in _BENCHMARKS:
    module = f"benchmarks.{name}"
    done = subprocess.run(
      [sys.executable, "-m", module], capture_output=True, text=True, check=True
    )
    printed = done.stdout.strip()
    # A table stands as it is.
    blocks += [f"`python -m {module}`:"]
    blocks += [printed if printed.startswith("|") else f"```\n{printed}\n```"]
  return "\n\n".join(blocks), report.environment() | {"seeds": "0"}
