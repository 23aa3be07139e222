"""What a trained model loses when data is missing, wrong, or more than it has seen."""

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
# Modalities whose subsets are all tried.
MOST_SUBSETS = 10

# Of a table, a level and a source of chance: the table as it may arrive.
Corruption = Callable[[Table, float, np.random.Generator], Table]


def missing(table: Table, rate: float, rng: np.random.Generator) -> Table:
  """Each modality of each example taken away with chance `rate`; all may be."""
  keep = rng.random((len(table), len(table.schema.modalities))) >= rate
  return keep_modalities(table, keep)


def noise(table: Table, rate: float, rng: np.random.Generator) -> Table:
  """Each element in place of another's, drawn from the table, with chance `rate`.

  Weights and times stay where they were: it says as much, and something else. A value
  goes with its token. What is wrong at a rate is as wrong at every higher one.
  """
  modalities = {}
  for name, ragged in table.modalities.items():
    n = len(ragged.values)
    wrong = rng.random(n) < rate
    # As many are drawn at every rate, so that all rates draw the same.
    drawn = rng.integers(max(n, 1), size=n)
    other = np.where(wrong, drawn, np.arange(n))
    changed = ragged.replace(values=ragged.values[other])
    if table.schema.modalities[name].valued:
      changed = changed.replace(weights=ragged.weights[other])
    modalities[name] = changed
  return dataclasses.replace(table, modalities=modalities)


def repeated(table: Table, times: float, rng: np.random.Generator) -> Table:
  """Every element `times` times: sets larger than any in training, saying no more."""
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


class ColumnType(NamedTuple):
  """A corruption and how it is measured.

  Attributes:
    change: Of a table.
    levels: From none of it to the most.
    by_chance: Whether draws differ.
  """

  change: Corruption
  levels: Sequence[float]
  by_chance: bool


CORRUPTIONS: Mapping[str, ColumnType] = {
  "missing": ColumnType(missing, RATES, by_chance=True),
  "noise": ColumnType(noise, RATES, by_chance=True),
  "repeated": ColumnType(repeated, TIMES, by_chance=False),
}


@dataclasses.dataclass(frozen=True)
class Curve:
  """A metric against the level of a corruption.

  Attributes:
    metric: Its name, that of the run's config.
    levels: Of the corruption, ascending, the first none of it: `[q]`.
    values: Of the metric, means over draws, `[q]`.

  Raises:
    ConfigError: Fewer than two levels, or not ascending.
  """

  metric: str
  levels: np.ndarray
  values: np.ndarray

  def __post_init__(self):
    if len(self.levels) < 2 or not (np.diff(self.levels) > 0).all():
      raise ConfigError(
        f"levels {np.asarray(self.levels).tolist()}: expected two or more, ascending"
      )

  @property
  def area(self) -> float:
    """Under the curve, over the span of levels: a mean of the metric."""
    span = self.levels[-1] - self.levels[0]
    return float(np.trapezoid(self.values, self.levels) / span)

  def loss_at(self, level: float) -> float:
    """What the metric loses from the first level to this one, between two if need be.

    Positive is worse, also of a metric of which less is better.

    Raises:
      ConfigError: The curve does not reach so far.
    """
    if not self.levels[0] <= level <= self.levels[-1]:
      raise ConfigError(
        f"level {level} is not on the curve, which goes from {self.levels[0]} to"
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
) -> Curve:
  """The run's metric of a table at each level, the mean of some draws.

  Raises:
    ConfigError: No draws, or levels that make no curve, see `Curve`.
  """
  if draws < 1:
    raise ConfigError(f"draws {draws}: expected at least 1")
  values = [
    [
      measure(trained, corrupt(table, level, np.random.default_rng((seed, draw))))
      for draw in range(draws)
    ]
    for level in levels
  ]
  metric = trained.run.config.train.metric
  return Curve(metric, np.asarray(levels, float), np.mean(values, axis=1))


def every_subset(trained: Trained, table: Table) -> dict[tuple[str, ...], float]:
  """The run's metric with only these modalities, for every subset of them.

  Raises:
    ConfigError: More than 10 modalities.
  """
  names = list(table.schema.modalities)
  if len(names) > MOST_SUBSETS:
    raise ConfigError(
      f"{len(names)} modalities have 2**{len(names)} subsets, each an evaluation; at"
      f" most {MOST_SUBSETS}: leave some out of the schema, or take `curve`"
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
