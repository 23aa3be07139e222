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
  """Mean and sample standard deviation; of one value, the value."""
  mean = statistics.mean(values)
  if len(values) == 1:
    return f"{mean:.{digits}f}"
  return f"{mean:.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """A table in Markdown."""
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)
