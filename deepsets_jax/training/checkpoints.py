"""Checkpoints of a run: the state, the position in the data, the best value so far."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jax
from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.training.step import State

# TensorStore reports its status at the beginning of a message. With these, a file is
# missing, too short or cannot be decoded.
_DAMAGE = re.compile("DATA_LOSS: |OUT_OF_RANGE: |NOT_FOUND: ")
_STATUS = re.compile("[A-Z_]+: ")


@dataclasses.dataclass(frozen=True)
class LoopState:
  """Progress of a run besides its `State`; plain values, saved with it.

  Attributes:
    data: State of the data iterator.
    best_value: Best value of the validation metric, or None before the first
      evaluation.
    best_step: Step at which it was reached.
    evaluations_since_best: Number of evaluations since then.
    seconds: Total time spent in the training loop.
    step_seconds: Part of `seconds` that steps took, without compilation, evaluation and
      saving.
    examples: Number of examples trained on in `step_seconds`.
  """

  data: dict[str, Any]
  best_value: float | None = None
  best_step: int = 0
  evaluations_since_best: int = 0
  seconds: float = 0.0
  step_seconds: float = 0.0
  examples: float = 0.0

  def evaluated(self, step: int, value: float, *, higher_is_better: bool) -> LoopState:
    """The loop state after an evaluation. A tie is no improvement, and NaN never is."""
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

  def is_out_of_patience(self, patience: int | None) -> bool:
    """Whether this many evaluations brought no improvement; never with None."""
    return patience is not None and self.evaluations_since_best >= patience


class Checkpoints:
  """The checkpoints in a folder: the two latest, and the best by a metric.

  A context manager. Orbax writes to a temporary name and then renames, so that a killed
  process leaves no half-written checkpoint.

  Args:
    path: The folder.
    higher_is_better: Whether a larger value of the metric is better.
  """

  def __init__(self, path: str | pathlib.Path, *, higher_is_better: bool):
    policies = ocp.training.preservation_policies
    try:
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
    except json.JSONDecodeError as error:
      raise ConfigError(
        f"{path}: the file metrics/metrics of a checkpoint is damaged ({error});"
        " delete the folder of this checkpoint"
      ) from error

  def __enter__(self) -> Checkpoints:
    return self

  def __exit__(self, *exception) -> None:
    self._orbax.close()

  @property
  def latest(self) -> int | None:
    """Step of the latest checkpoint, or None."""
    return None if self._orbax.latest is None else self._orbax.latest.step

  def save(
    self, state: State, loop_state: LoopState, value: float | None = None
  ) -> None:
    """Save a checkpoint under the step of the state, unless there is one already.

    Args:
      state: State to save.
      loop_state: Saved with it.
      value: Value of the validation metric at this step, if it was measured. Only
        checkpoints with a value can be the best.
    """
    step = int(state.step)
    if step == self.latest:
      return
    self._orbax.save_checkpointables(
      step,
      {"state": state, "position": dataclasses.asdict(loop_state)},
      metrics=None if value is None else {"value": value},
    )

  def restore(self, state: State, step: int | None = None) -> tuple[State, LoopState]:
    """Load the checkpoint of a step.

    Args:
      state: Shapes, types and shardings to restore (`Task.abstract_state`).
      step: Step of the checkpoint; by default the latest.

    Raises:
      ConfigError: There is no such checkpoint, its parameters have other names or
        shapes than those of `state`, or its files are damaged or cannot be read.
    """
    step = self.latest if step is None else step
    folder = pathlib.Path(self._orbax.directory)
    if not (folder / str(step)).is_dir():
      raise ConfigError(
        f"{folder} has no checkpoint of step {step}; put it back, or train the run"
        " again in another folder"
      )
    try:
      stored = self._orbax.checkpointables_metadata(step).metadata["state"]
      if stored is not None:  # Otherwise loading fails, and reports the reason.
        _check_params(stored, state.params, f"checkpoint {step} in {folder}")
      loaded = self._orbax.load_checkpointables(
        step, {"state": state, "position": None}
      )
    except ConfigError:
      raise
    except Exception as error:
      raise _read_error(error, f"checkpoint {step} in {folder}", step) from error
    return loaded["state"], LoopState(**loaded["position"])


def _check_params(stored: Any, params: PyTree, name: str) -> None:
  """Raise if names or shapes of the stored parameters differ from the model's."""
  found = _shapes(stored["params"] if isinstance(stored, dict) else stored)
  wanted = _shapes(params)
  for key in sorted(found.keys() | wanted.keys()):
    if found.get(key) != wanted.get(key):
      raise ConfigError(
        f"{name} belongs to another model: its parameter {key} is"
        f" {found.get(key, 'absent')}, and that of this model is"
        f" {wanted.get(key, 'absent')}. Use the run's own config, or another folder"
      )


def _read_error(error: Exception, name: str, step: int) -> Exception:
  """The error to raise where Orbax fails to read a checkpoint.

  Only missing, truncated or undecodable files are called damaged. Errors of the file
  system are reported as such. Everything else may be a defect of the code: the original
  error is raised, with a note.
  """
  for cause in _chain(error):
    reason = f"{type(cause).__name__}: {str(cause)[:200]}"
    is_status = isinstance(cause, ValueError) and _STATUS.match(str(cause))
    damaged = (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError)
    if isinstance(cause, damaged) or (is_status and _DAMAGE.match(str(cause))):
      return ConfigError(
        f"{name} is damaged ({reason}). Delete the folder {step} there; the run then"
        " resumes from the checkpoint before it, or from the start"
      )
    if isinstance(cause, OSError) or is_status:
      return ConfigError(f"{name} cannot be read ({reason})")
  error.add_note(f"while reading {name}")
  return error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
  """An error and its causes."""
  while error is not None:
    yield error
    error = error.__cause__ or error.__context__


class _Always(ocp.training.save_decision_policies.SaveDecisionPolicy):
  """Saves whenever it is called: the training loop decides when."""

  def should_save(self, step, previous_steps, *, context) -> bool:
    del step, previous_steps, context
    return True


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}
