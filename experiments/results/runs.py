"""What all parts share: where runs are, and how numbers are written."""

from __future__ import annotations

import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from deepsets_jax.tasks import fit, trained
from deepsets_jax.tasks.trained import Trained

RUNS = pathlib.Path("runs/reproduce")
SEEDS = (0, 1, 2)


def once(config: ml_collections.ConfigDict, name: str) -> Mapping[str, Any]:
  """The results of a run, which is made where it is not finished."""
  return fit.train_once(config, RUNS / name)


def loaded(config: ml_collections.ConfigDict, name: str) -> Trained:
  """The run itself, to be asked."""
  once(config, name)
  return trained.load_trained(RUNS / name)


def facts(name: str) -> Mapping[str, Any]:
  """The results of a run that is finished, with its device and versions."""
  return json.loads((RUNS / name / "results.json").read_text())


def spread(values: Sequence[float], digits: int = 3) -> str:
  """Format the mean ± sample standard deviation of some values."""
  deviation = statistics.stdev(values) if len(values) > 1 else None
  numbers = {"mean": statistics.mean(values), "sd": deviation}
  return plus_minus(numbers, f".{digits}f")


def plus_minus(
  numbers: Mapping[str, Any], digits: str | None = None, sign: str = ""
) -> str:
  """Format a mean ± its sample standard deviation.

  Args:
    numbers: "mean" and "sd", as of `comparison.spread`. Without a deviation, the mean
      stands alone; without a mean, the result is empty.
    digits: Format of both numbers; by default 4 decimals, or 5 digits of means from 10.
    sign: "+" to show the sign of a positive mean.
  """
  mean, deviation = numbers["mean"], numbers.get("sd")
  if mean is None:
    return ""
  digits = digits or (".4f" if abs(mean) < 10 else ".5g")
  text = f"{mean:{sign}{digits}}"
  return text if deviation is None else f"{text} ± {deviation:{digits}}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """A table in Markdown."""
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)
