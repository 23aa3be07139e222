"""Robustness of a trained model to data that is missing, wrong or repeated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from deepsets_jax.analysis.attribution.coalitions import subsets
from deepsets_jax.data.tables.ablation import keep_modalities
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.tasks.trained import Trained
from deepsets_jax.training import evaluation, metrics

RATES = tuple(np.linspace(0, 1, 11).tolist())
TIMES = (1, 2, 4, 8, 16)
# Most modalities for `every_subset`.
MOST_SUBSETS = 10

# (table, level, random generator) -> corrupted table.
Corruption = Callable[[Table, float, np.random.Generator], Table]


def missing(table: Table, rate: float, rng: np.random.Generator) -> Table:
  """Remove each modality of each example with probability `rate`, possibly all."""
  keep = rng.random((len(table), len(table.schema.modalities))) >= rate
  return keep_modalities(table, keep)


def noise(table: Table, rate: float, rng: np.random.Generator) -> Table:
  """Replace each element with probability `rate` by a random element of the table.

  Weights and times stay in place, except for values, which belong to their tokens. An
  element that is replaced at some rate has the same replacement at every higher rate.
  """
  modalities = {}
  for name, ragged in table.modalities.items():
    n = len(ragged.values)
    wrong = rng.random(n) < rate
    # Draw the same numbers at every rate.
    drawn = rng.integers(max(n, 1), size=n)
    other = np.where(wrong, drawn, np.arange(n))
    changed = ragged.replace(values=ragged.values[other])
    if table.schema.modalities[name].valued:
      changed = changed.replace(weights=ragged.weights[other])
    modalities[name] = changed
  return dataclasses.replace(table, modalities=modalities)


def repeated(table: Table, times: float, rng: np.random.Generator) -> Table:
  """Repeat every element `times` times.

  The sets are larger than in training, but contain nothing new.
  """
  del rng
  modalities = {
    name: ragged.replace(
      values=_repeat(ragged.values, int(times)),
      offsets=ragged.offsets * int(times),
      weights=_repeat(ragged.weights, int(times)),
      times=_repeat(ragged.times, int(times)),
    )
    for name, ragged in table.modalities.items()
  }
  return dataclasses.replace(table, modalities=modalities)


def _repeat(values: np.ndarray | None, times: int) -> np.ndarray | None:
  return None if values is None else np.repeat(values, times, axis=0)


class CorruptionSweep(NamedTuple):
  """A corruption and the levels at which to measure it.

  Attributes:
    change: (table, level, random generator) -> corrupted table.
    levels: From no corruption to the strongest.
    by_chance: Whether the corruption is random, so that draws differ.
  """

  change: Corruption
  levels: Sequence[float]
  by_chance: bool


CORRUPTIONS: Mapping[str, CorruptionSweep] = {
  "missing": CorruptionSweep(missing, RATES, by_chance=True),
  "noise": CorruptionSweep(noise, RATES, by_chance=True),
  "repeated": CorruptionSweep(repeated, TIMES, by_chance=False),
}


@dataclasses.dataclass(frozen=True)
class RobustnessCurve:
  """A metric against the level of a corruption.

  Attributes:
    metric: Name of the metric, from the run's config.
    levels: Levels of the corruption in ascending order, the first without any: `[q]`.
    values: The metric at each level, a mean over draws: `[q]`.

  Raises:
    ConfigError: There are fewer than two levels, or they are not ascending.
  """

  metric: str
  levels: np.ndarray
  values: np.ndarray

  def __post_init__(self):
    if len(self.levels) < 2 or not (np.diff(self.levels) > 0).all():
      raise ConfigError(
        f"levels are {np.asarray(self.levels).tolist()}; give two or more, ascending"
      )

  @property
  def area(self) -> float:
    """Area under the curve divided by the span of levels: a mean of the metric."""
    span = self.levels[-1] - self.levels[0]
    return float(np.trapezoid(self.values, self.levels) / span)

  def loss_at(self, level: float) -> float:
    """The loss of metric from the first level to this one, interpolated between levels.

    Positive means worse, also for metrics where smaller is better.

    Raises:
      ConfigError: The level is outside of the curve.
    """
    if not self.levels[0] <= level <= self.levels[-1]:
      raise ConfigError(
        f"level {level} is not on the curve, which spans {self.levels[0]} to"
        f" {self.levels[-1]}"
      )
    value = float(np.interp(level, self.levels, self.values))
    sign = 1 if metrics.higher_is_better(self.metric) else -1
    return sign * (float(self.values[0]) - value)


def curve(
  trained: Trained,
  table: Table,
  corrupt: Corruption,
  levels: Sequence[float],
  *,
  draws: int = 3,
  seed: int = 0,
) -> RobustnessCurve:
  """The run's metric of a table at each level of a corruption.

  Args:
    trained: The model.
    table: The examples as they are.
    corrupt: The corruption.
    levels: Its levels, ascending.
    draws: Number of random corruptions to average at each level.
    seed: Seed of the draws.

  Raises:
    ConfigError: `draws` is below 1, or the levels are invalid, see `RobustnessCurve`.
  """
  if draws < 1:
    raise ConfigError(f"draws is {draws}; give at least 1")
  values = [
    [
      measure(trained, corrupt(table, level, np.random.default_rng((seed, draw))))
      for draw in range(draws)
    ]
    for level in levels
  ]
  metric = trained.run.config.train.metric
  return RobustnessCurve(metric, np.asarray(levels, float), np.mean(values, axis=1))


def every_subset(trained: Trained, table: Table) -> dict[tuple[str, ...], float]:
  """The run's metric with only some modalities, for every subset of them.

  Raises:
    ConfigError: There are more than 10 modalities.
  """
  names = list(table.schema.modalities)
  if len(names) > MOST_SUBSETS:
    raise ConfigError(
      f"{len(names)} modalities have 2**{len(names)} subsets to evaluate; the limit is"
      f" {MOST_SUBSETS} modalities. Leave some out of the schema, or use `curve`."
    )
  found = {}
  for kept in subsets(len(names)):
    part = keep_modalities(table, np.broadcast_to(kept, (len(table), len(names))))
    key = tuple(name for name, there in zip(names, kept, strict=True) if there)
    found[key] = measure(trained, part)
  return found


def measure(trained: Trained, table: Table) -> float:
  """The run's metric of a table."""
  run = trained.run
  values = evaluation.evaluate(
    table, trained.logits(table), run.loss, trained.threshold
  )
  return values[run.config.train.metric]
