"""The part on reading data: what benchmarks print, of a process of their own each."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from deepsets_jax.tasks import report

_BENCHMARKS = ("table", "records", "mm_imdb")


def reading_part() -> tuple[str, dict[str, Any]]:
  """What the three benchmarks print, and where they ran."""
  blocks = [printed(name) for name in _BENCHMARKS]
  return "\n\n".join(blocks), report.environment() | {"seeds": "0"}


def printed(name: str) -> str:
  """What a benchmark prints, under its command; a table stands as it is."""
  module = f"benchmarks.{name}"
  done = subprocess.run(
    [sys.executable, "-m", module], capture_output=True, text=True, check=True
  )
  text = done.stdout.strip()
  text = text if text.startswith("|") else f"```\n{text}\n```"
  return f"`python -m {module}`:\n\n{text}"
