"""The training loop: steps, evaluations, checkpoints, early stopping, interruption."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import signal
import time
from typing import Any

import jax
from jax.experimental import multihost_utils
from jaxtyping import Array, PyTree

from deepsets_jax.foundation.errors import UserError
from deepsets_jax.training import costs as summary
from deepsets_jax.training import run_folder, sharding
from deepsets_jax.training.checkpoints import Checkpoints, LoopState
from deepsets_jax.training.step import State, Step
from deepsets_jax.training.task import Task
from deepsets_jax.training.writers import MetricsWriter, Progress


class NonFiniteError(UserError):
  """The loss or the gradient is not finite; the last good checkpoint stays."""


def train(task: Task, workdir: pathlib.Path) -> dict[str, Any]:
  """Trains a task, or goes on training, and returns what `results.json` holds.

  In this order: the summary of costs and the compiled step, the folder, the latest
  checkpoint if there is one, training, then every split but the training one at the
  best checkpoint. Nothing is written before the step is compiled.

  Args:
    task: Its data loaded and its functions built.
    workdir: The run's folder; it is empty, or of the same config.

  Raises:
    NonFiniteError: The loss or the gradient is not finite.
  """
  step, costs = _prepare(task)
  if sharding.is_main_process():
    run_folder.create(task.config, workdir)
  task.keep(workdir)
  with Checkpoints(
    workdir / "checkpoints", higher_is_better=task.higher_is_better
  ) as checkpoints:
    position = _train(task, step, workdir, checkpoints)
    best, _ = checkpoints.restore(task.abstract_state, position.best_step)
  return task.report(workdir, best.eval_params, position, costs)


def _prepare(task: Task) -> tuple[Step, dict[str, Any]]:
  """The compiled step, and the run's summary, which is printed.

  What is compiled for its costs is what trains: it is compiled once.
  """
  costs = task.costs()
  _say(summary.describe(costs))
  step = task.compile_step()
  costs["step"] = summary.step_costs(step, costs)
  _say(summary.describe_step(costs["step"]))
  return step, costs


def _say(text: str) -> None:
  if sharding.is_main_process():
    print(text, flush=True)


def _train(
  task: Task, step_fn: Step, workdir: pathlib.Path, checkpoints: Checkpoints
) -> LoopState:
  """Trains from the latest checkpoint, or from the start, to the end."""
  config, batches = task.config, task.train_batches()
  if checkpoints.latest is None:
    state, position = task.init(), LoopState(data=batches.get_state())
  else:
    state, position = checkpoints.restore(task.abstract_state)
    batches.set_state(position.data)
  start, main = int(state.step), sharding.is_main_process()
  with (
    MetricsWriter(workdir, resume_step=start, enabled=main) as writer,
    Progress(config.total_steps, start, enabled=main) as progress,
    _Interruption() as interruption,
  ):
    if start:
      progress.note(f"resuming {workdir} at step {start}")
    loop = _Loop(task, checkpoints, writer, progress, position)
    for step in range(start, config.total_steps):
      if loop.out_of_patience:
        progress.note(f"no better {config.train.metric}; stopping early at step {step}")
        break
      # Evaluate and save before the next batch is taken, so that the data position
      # saved is that of the state saved.
      batch = next(batches)
      state, numbers = step_fn(state, sharding.put(batch, task.mesh))
      loop.took(step + 1, batch, numbers)
      if (step + 1) % config.train.eval_every == 0 or step + 1 == config.total_steps:
        loop.evaluate(state, batches.get_state())
      elif interruption.requested(step + 1):
        loop.save(state, batches.get_state())
        raise SystemExit(f"interrupted at step {step + 1}; the same command resumes")
  return loop.position


class _Loop:
  """What happens beside the steps: numbers, evaluations, checkpoints."""

  def __init__(
    self,
    task: Task,
    checkpoints: Checkpoints,
    writer: MetricsWriter,
    progress: Progress,
    position: LoopState,
  ):
    self.position = position
    self._task, self._checkpoints = task, checkpoints
    self._writer, self._progress = writer, progress
    self._pending: tuple[int, PyTree, dict[str, Array]] | None = None
    self._clock = self._saved = time.perf_counter()
    self._started = False

  @property
  def out_of_patience(self) -> bool:
    """Whether the metric has not improved for the evaluations allowed."""
    patience = self._task.config.train.patience
    return patience is not None and self.position.evaluations_since_best >= patience

  def took(self, step: int, batch: PyTree, numbers: dict[str, Array]) -> None:
    """Notes a step that was dispatched, and reads the one before, which is done.

    Reading the numbers of this step would make the device wait for the host.
    """
    previous, self._pending = self._pending, (step, batch, numbers)
    if previous is not None:
      self._record(*previous)

  def evaluate(self, state: State, data: dict[str, Any]) -> None:
    """Evaluates on validation, notes the best, saves."""
    self._flush()
    task, step = self._task, int(state.step)
    values = task.validate(state.eval_params)
    self._writer.write(step, "validation", values)
    name = task.config.train.metric
    shown = {key: values[key] for key in ("loss", name) if key in values}
    self._progress.evaluation(step, shown)
    self.position = self.position.evaluated(
      step, values[name], higher_is_better=task.higher_is_better
    )
    # Only a new best carries its value: of equal ones Orbax would keep the last.
    self._save(state, data, values[name] if self.position.best_step == step else None)

  def save(self, state: State, data: dict[str, Any]) -> None:
    """Saves between two evaluations."""
    self._flush()
    self._save(state, data, None)

  def _save(self, state: State, data: dict[str, Any], value: float | None) -> None:
    now = time.perf_counter()
    self.position = dataclasses.replace(
      self.position, data=data, seconds=self.position.seconds + now - self._saved
    )
    self._checkpoints.save(state, self.position, value)
    self._saved, self._clock = now, time.perf_counter()

  def _flush(self) -> None:
    if self._pending is not None:
      self._record(*self._pending)
      self._pending = None

  def _record(self, step: int, batch: PyTree, numbers: dict[str, Array]) -> None:
    """Checks, counts and writes the numbers of a step."""
    values = {name: float(value) for name, value in jax.device_get(numbers).items()}
    self._check_finite(step, values)
    now = time.perf_counter()
    if self._started:  # The first step waits for the first batches.
      self.position = self.position.trained(now - self._clock, values["examples"])
    self._clock, self._started = now, True
    self._progress.update(step, values["loss"], values["examples"])
    if step % self._task.config.train.log_every == 0:
      values |= {f"fill_{k}": v for k, v in self._task.fill(batch).items()}
      self._writer.write(step, "train", values)

  def _check_finite(self, step: int, values: dict[str, float]) -> None:
    for name in ("loss", "gradient_norm"):
      if not math.isfinite(values[name]):
        kept = self._checkpoints.latest
        raise NonFiniteError(
          f"{name} is {values[name]} at step {step}; "
          + (f"the checkpoint of step {kept} stays" if kept else "no checkpoint yet")
          + "; try a lower config.optim.learning_rate or config.optim.clip_norm"
        )


class _Interruption:
  """A context in which an interrupt or a preemption asks the loop to save and end.

  Several processes have to agree on the step; there JAX's own preemption service,
  which listens to the same signal, tells it.
  """

  def __init__(self):
    self._signalled = False
    self._handlers: dict[int, Any] = {}

  def __enter__(self) -> _Interruption:
    if jax.process_count() == 1:
      for number in (signal.SIGINT, signal.SIGTERM):
        self._handlers[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *exception) -> None:
    for number, handler in self._handlers.items():
      signal.signal(number, handler)

  def requested(self, step: int) -> bool:
    """Whether to save and end after this step."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._signalled

  def _note(self, number: int, frame: Any) -> None:
    del frame
    if self._signalled:  # The second time, at once.
      raise KeyboardInterrupt(signal.Signals(number).name)
    self._signalled = True
