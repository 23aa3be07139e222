"""The section on reading data: what three benchmarks print."""

from __future__ import annotations

import subprocess
import sys

from deepsets_jax.tasks import report
from experiments.results.runs import Section


def reading_section() -> Section:
  """Run the benchmarks of reading data."""
  blocks = [benchmark_output(name) for name in ("table", "records", "mm_imdb")]
  return Section("\n\n".join(blocks), report.environment(), seeds=(0,))


def benchmark_output(name: str) -> str:
  """Run a benchmark in its own process and return its command and what it prints.

  Output that is not a Markdown table becomes a code block.
  """
  module = f"benchmarks.{name}"
  done = subprocess.run(
    [sys.executable, "-m", module], capture_output=True, text=True, check=True
  )
  text = done.stdout.strip()
  text = text if text.startswith("|") else f"```\n{text}\n```"
  return f"`python -m {module}`:\n\n{text}"
