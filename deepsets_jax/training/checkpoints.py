"""Checkpoints of a run: its state, its data position and its best value so far."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.training.step import State


@dataclasses.dataclass(frozen=True)
class LoopState:
  """Where a run is, besides its state; plain values.

  Attributes:
    data: The state of the data iterator.
    best_value: Of the validation metric, or None before the first evaluation.
    best_step: Where it was reached.
    evaluations_since_best: For early stopping.
    seconds: Spent in training, all in all.
    step_seconds: Of these, in steps; without compiling, evaluating and saving.
    examples: Trained on in `step_seconds`.
  """

  data: dict[str, Any]
  best_value: float | None = None
  best_step: int = 0
  evaluations_since_best: int = 0
  seconds: float = 0.0
  step_seconds: float = 0.0
  examples: float = 0.0

  def trained(self, seconds: float, examples: float) -> LoopState:
    """The position after a step that took so long."""
    return dataclasses.replace(
      self,
      step_seconds=self.step_seconds + seconds,
      examples=self.examples + examples,
    )

  def evaluated(self, step: int, value: float, *, higher_is_better: bool) -> LoopState:
    """The position after an evaluation; a tie is not better, and NaN never."""
    best = self.best_value
    if (
      best is None
      or (math.isnan(best) and not math.isnan(value))
      or (value > best if higher_is_better else value < best)
    ):
      return dataclasses.replace(
        self, best_value=value, best_step=step, evaluations_since_best=0
      )
    since = self.evaluations_since_best + 1
    return dataclasses.replace(self, evaluations_since_best=since)


class Checkpoints:
  """The checkpoints in a folder: the two latest, and the best by a metric.

  A context manager. Orbax writes to a temporary name and renames; a killed process
  leaves no half-written checkpoint.
  """

  def __init__(self, path: str | pathlib.Path, *, higher_is_better: bool):
    policies = ocp.training.preservation_policies
    self._orbax = ocp.training.Checkpointer(
      pathlib.Path(path).resolve(),
      save_decision_policy=_Always(),
      preservation_policy=policies.AnyPreservationPolicy(
        [
          policies.LatestN(2),
          policies.BestN(
            n=1,
            get_metric_fn=lambda metrics: metrics["value"],
            reverse=not higher_is_better,
            keep_checkpoints_without_metrics=False,
          ),
        ]
      ),
      cleanup_tmp_directories=True,
    )

  def __enter__(self) -> Checkpoints:
    return self

  def __exit__(self, *exception) -> None:
    self._orbax.close()

  @property
  def latest(self) -> int | None:
    """Step of the latest checkpoint, or None."""
    return None if self._orbax.latest is None else self._orbax.latest.step

  def save(self, state: State, position: LoopState, value: float | None = None) -> None:
    """Saves at the state's step; `value` of the validation metric if just measured."""
    step = int(state.step)
    if step == self.latest:
      return
    self._orbax.save_checkpointables(
      step,
      {"state": state, "position": dataclasses.asdict(position)},
      metrics=None if value is None else {"value": value},
    )

  def restore(self, state: State, step: int | None = None) -> tuple[State, LoopState]:
    """The state and position at a step, by default the latest.

    Args:
      state: Of the shapes, types and shardings wanted (`Run.abstract_state`).
      step: Of a checkpoint.

    Raises:
      ConfigError: The checkpoint is of another model; names the parameters. Or it is
        damaged.
    """
    step = self.latest if step is None else step
    wanted = {"state": state, "position": None}
    with self._readable(step):
      stored = self._stored(step)
    self._check(state, step, stored)
    with self._readable(step):
      loaded = self._orbax.load_checkpointables(step, wanted)
    return loaded["state"], LoopState(**loaded["position"])

  @contextlib.contextmanager
  def _readable(self, step: int | None) -> Iterator[None]:
    """Says which checkpoint it is that cannot be read."""
    try:
      yield
    except Exception as error:  # A damaged file fails in any layer of Orbax.
      raise ConfigError(
        f"checkpoint {step} in {self._orbax.directory} is truncated or damaged"
        f" ({type(error).__name__}); delete the folder {step} there, and the run goes"
        " on from the checkpoint before it, or from the start"
      ) from error

  def _stored(self, step: int | None) -> dict[str, tuple[int, ...]]:
    """The shapes of a checkpoint's parameters, by name."""
    metadata = self._orbax.checkpointables_metadata(step).metadata["state"]
    if metadata is None:
      raise ConfigError("no metadata")
    return _shapes(metadata["params"] if isinstance(metadata, dict) else metadata)

  def _check(
    self, state: State, step: int | None, stored: dict[str, tuple[int, ...]]
  ) -> None:
    """Raises if the parameters' names or shapes are not those of the checkpoint."""
    wanted = _shapes(state.params)
    for name in sorted(stored.keys() | wanted.keys()):
      if stored.get(name) != wanted.get(name):
        raise ConfigError(
          f"checkpoint {step} in {self._orbax.directory} is of another model:"
          f" parameter {name} is {stored.get(name, 'absent')} there and"
          f" {wanted.get(name, 'absent')} here; use the run's own config, or another"
          " folder"
        )


class _Always(ocp.training.save_decision_policies.SaveDecisionPolicy):
  """The training loop decides when to save."""

  def should_save(self, step, previous_steps, *, context) -> bool:
    del step, previous_steps, context
    return True


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}
