"""Formatting of numbers and Markdown tables, the same on every page of results."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Format cells as a Markdown table."""
  lines = [f"| {' | '.join(line)} |" for line in (head, *rows)]
  return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def mean_and_sd(values: Sequence[float], digits: int = 3) -> str:
  """Format values as "mean ± sample standard deviation", a single value without it."""
  deviation = statistics.stdev(values) if len(values) > 1 else None
  return _plus_minus(statistics.mean(values), deviation, f".{digits}f")


def metric_over_seeds(
  results: Sequence[Mapping[str, Any]], split: str, metric: str, digits: int = 3
) -> str:
  """Format `mean_and_sd` of one metric over the results of several runs."""
  return mean_and_sd([one[split][metric] for one in results], digits)


def score_rows(
  results: Mapping[str, Mapping[str, float]], metrics: Sequence[str]
) -> list[list[str]]:
  """Format a row per model: its name and these metrics, with three decimals."""
  return [
    [name, *(f"{values[metric]:.3f}" for metric in metrics)]
    for name, values in results.items()
  ]


def seed_statistics(values: Mapping[int, float]) -> dict[str, Any]:
  """Summarise values by seed.

  Args:
    values: Seed -> value; may be empty.

  Returns:
    "mean", "sd" (sample standard deviation) and "values". The mean of no value and the
    deviation of fewer than two are None.
  """
  numbers = list(values.values())
  return {
    "mean": statistics.mean(numbers) if numbers else None,
    "sd": statistics.stdev(numbers) if len(numbers) > 1 else None,
    "values": dict(values),
  }


def format_statistics(numbers: Mapping[str, Any], sign: str = "") -> str:
  """Format the result of `seed_statistics`; empty text without a mean.

  Args:
    numbers: "mean" and, optionally, "sd"; either may be None.
    sign: "+" to write the sign of positive means, too.
  """
  if numbers["mean"] is None:
    return ""
  form = ".4f" if abs(numbers["mean"]) < 10 else ".5g"
  return _plus_minus(numbers["mean"], numbers.get("sd"), form, sign)


def _plus_minus(mean: float, deviation: float | None, form: str, sign: str = "") -> str:
  text = f"{mean:{sign}{form}}"
  return text if deviation is None else f"{text} ± {deviation:{form}}"
