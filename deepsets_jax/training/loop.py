"""The training loop: steps, evaluation, checkpoints, early stopping, interruption."""

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
from deepsets_jax.training import costs as run_costs
from deepsets_jax.training import run_folder, sharding
from deepsets_jax.training.checkpoints import Checkpoints, LoopState
from deepsets_jax.training.step import State, Step
from deepsets_jax.training.task import Task
from deepsets_jax.training.writers import MetricsWriter, Progress


class NonFiniteError(UserError):
  """The loss or the gradient is not finite. Earlier checkpoints are kept."""


def train(task: Task, workdir: pathlib.Path) -> dict[str, Any]:
  """Train a task, or resume its training, and evaluate its best checkpoint.

  Args:
    task: The task, with its data loaded and its functions built.
    workdir: The run's folder. It is empty, or holds a run of the same config, which is
      resumed from its latest checkpoint.

  Returns:
    The contents of `results.json`.

  Raises:
    NonFiniteError: The loss or the gradient is not finite.
  """
  # Compiled ahead of time, so that the program whose costs are printed is the one that
  # trains. Nothing is written before: a config that fails leaves no folder behind.
  costs = task.costs()
  _print(run_costs.describe(costs))
  step_fn = task.compile_step()
  costs["step"] = run_costs.step_costs(step_fn, costs)
  _print(run_costs.describe_step(costs["step"]))

  if sharding.is_main_process():
    run_folder.create(task.config, workdir)
  task.keep(workdir)
  with Checkpoints(
    workdir / "checkpoints", higher_is_better=task.higher_is_better
  ) as checkpoints:
    loop_state = _train(task, step_fn, workdir, checkpoints)
    best, _ = checkpoints.restore(task.abstract_state, loop_state.best_step)
  return task.report(workdir, best.eval_params, loop_state, costs)


def _print(text: str) -> None:
  if sharding.is_main_process():
    print(text, flush=True)


def _train(
  task: Task, step_fn: Step, workdir: pathlib.Path, checkpoints: Checkpoints
) -> LoopState:
  """Run all steps from the latest checkpoint, or from the start."""
  config, total_steps = task.config.train, task.config.total_steps
  batches = task.train_batches()
  if checkpoints.latest is None:
    state, loop_state = task.init(), LoopState(data=batches.get_state())
  else:
    state, loop_state = checkpoints.restore(task.abstract_state)
    batches.set_state(loop_state.data)
  start, main = int(state.step), sharding.is_main_process()
  with (
    MetricsWriter(workdir, resume_step=start, enabled=main) as writer,
    Progress(total_steps, start, enabled=main) as progress,
    _Interruption() as interruption,
  ):
    if start:
      progress.note(f"resuming {workdir} at step {start}")
    log = _StepLog(task, checkpoints, writer, progress, loop_state)
    for step in range(start + 1, total_steps + 1):
      if loop_state.is_out_of_patience(config.patience):
        progress.note(f"stopping early at step {step - 1}: no better {config.metric}")
        break
      batch = next(batches)
      state, metrics = step_fn(state, sharding.put(batch, task.mesh))
      log.add(step, batch, metrics)
      evaluate = step % config.eval_every == 0 or step == total_steps
      interrupted = not evaluate and interruption.requested(step)
      if not evaluate and not interrupted:
        continue
      log.flush()
      new_best = None
      if evaluate:
        loop_state = _evaluate(task, state, loop_state, writer, progress)
        # Only a new best is saved with its value. Of equal values Orbax would keep the
        # last checkpoint, and the best is the first.
        new_best = loop_state.best_value if loop_state.best_step == step else None
      # Saved before the next batch is taken, so that the position in the data is that
      # of the state.
      loop_state = dataclasses.replace(
        loop_state, data=batches.get_state(), **log.totals()
      )
      checkpoints.save(state, loop_state, new_best)
      log.restart_clock()
      if interrupted:
        raise SystemExit(f"interrupted at step {step}; the same command resumes")
  return loop_state


def _evaluate(
  task: Task,
  state: State,
  loop_state: LoopState,
  writer: MetricsWriter,
  progress: Progress,
) -> LoopState:
  """Evaluate the validation split, write its metrics and update the best step."""
  step, name = int(state.step), task.config.train.metric
  metrics = task.validate(state.eval_params)
  writer.write(step, "validation", metrics)
  progress.evaluation(step, {k: metrics[k] for k in ("loss", name) if k in metrics})
  return loop_state.evaluated(
    step, metrics[name], higher_is_better=task.higher_is_better
  )


class _StepLog:
  """Checks, times and writes the metrics of steps, each one step late.

  Reading the metrics of the step that was just dispatched would make the device wait
  for the host. Those of the step before are ready.
  """

  def __init__(
    self,
    task: Task,
    checkpoints: Checkpoints,
    writer: MetricsWriter,
    progress: Progress,
    loop_state: LoopState,
  ):
    self._task, self._checkpoints = task, checkpoints
    self._writer, self._progress = writer, progress
    self._seconds, self._step_seconds = loop_state.seconds, loop_state.step_seconds
    self._examples = loop_state.examples
    self._pending: tuple[int, PyTree, dict[str, Array]] | None = None
    self._begin = self._clock = time.perf_counter()
    self._is_first = True

  def add(self, step: int, batch: PyTree, metrics: dict[str, Array]) -> None:
    """Record a step that was dispatched."""
    self.flush()
    self._pending = (step, batch, metrics)

  def flush(self) -> None:
    """Wait for the step that was added last, and record it.

    Raises:
      NonFiniteError: Its loss or its gradient is not finite.
    """
    if self._pending is None:
      return
    step, batch, metrics = self._pending
    self._pending = None
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    for name in ("loss", "gradient_norm"):
      if not math.isfinite(values[name]):
        kept = self._checkpoints.latest
        raise NonFiniteError(
          f"{name} is {values[name]} at step {step};"
          + (
            f" the checkpoint of step {kept} is kept" if kept else " no checkpoint yet"
          )
          + ". Try a lower config.optim.learning_rate or config.optim.clip_norm"
        )
    now = time.perf_counter()
    if not self._is_first:  # The first step also waits for the first batches.
      self._step_seconds += now - self._clock
      self._examples += values["examples"]
    self._clock, self._is_first = now, False
    self._progress.update(step, values["loss"], values["examples"])
    if step % self._task.config.train.log_every == 0:
      values |= {f"fill_{k}": v for k, v in self._task.fill(batch).items()}
      self._writer.write(step, "train", values)

  def totals(self) -> dict[str, float]:
    """The fields of `LoopState` that measure the speed of the run."""
    return {
      "seconds": self._seconds + time.perf_counter() - self._begin,
      "step_seconds": self._step_seconds,
      "examples": self._examples,
    }

  def restart_clock(self) -> None:
    """Exclude the time since the last step, which evaluated or saved."""
    self._clock = time.perf_counter()


class _Interruption:
  """A context in which an interrupt or a preemption lets the loop save before it ends.

  A single process handles SIGINT and SIGTERM. Several processes must stop at the same
  step: there JAX's preemption service, which handles the same signals, chooses it.
  """

  def __init__(self):
    self._signalled = False
    self._handlers: dict[int, Any] = {}

  def __enter__(self) -> _Interruption:
    if jax.process_count() == 1:
      for number in (signal.SIGINT, signal.SIGTERM):
        self._handlers[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *exception) -> None:
    for number, handler in self._handlers.items():
      signal.signal(number, handler)

  def requested(self, step: int) -> bool:
    """Whether to save and end after this step."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._signalled

  def _handle(self, number: int, frame: Any) -> None:
    del frame
    if self._signalled:  # A second signal ends the process at once.
      raise KeyboardInterrupt(signal.Signals(number).name)
    self._signalled = True
