"""Output of a run: metrics to files, progress to the terminal."""

from __future__ import annotations

import json
import math
import pathlib
import sys
import time
from typing import IO, Any

import tensorboardX
import tqdm

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.foundation.files import to_json, write_text

# Seconds between two lines of progress, if the output is not a terminal.
_LINE_EVERY = 10.0


def read_metrics(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
  """Read the records of `metrics.jsonl`, without a half-written last line.

  Raises:
    ConfigError: A line before the last is not a record; the message names the line.
  """
  path = pathlib.Path(workdir) / "metrics.jsonl"
  # After a crash the end of the file need not be text.
  lines = path.read_text(errors="replace").splitlines() if path.exists() else []
  records = []
  for number, line in enumerate(lines, 1):
    try:
      records.append(json.loads(line))
    except json.JSONDecodeError as error:
      if number < len(lines):
        raise ConfigError(
          f"{path}, line {number} is not a JSON record ({error}); delete the line"
        ) from error
  return records


class MetricsWriter:
  """Appends metrics to `metrics.jsonl` and to TensorBoard events.

  A context manager.

  Args:
    workdir: The run's folder, which is created.
    resume_step: Step at which training resumes. Records of later steps are dropped,
      because they will be written again.
    enabled: Whether to write at all; false in all processes but one.
  """

  def __init__(
    self, workdir: str | pathlib.Path, resume_step: int = 0, *, enabled: bool = True
  ):
    self._enabled = enabled
    if not enabled:
      return
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "metrics.jsonl"
    kept = [r for r in read_metrics(workdir) if r["step"] <= resume_step]
    write_text(path, "".join(json.dumps(r) + "\n" for r in kept))
    self._file = path.open("a")
    self._events = tensorboardX.SummaryWriter(
      str(workdir / "tensorboard"), purge_step=resume_step + 1 if resume_step else None
    )

  def __enter__(self) -> MetricsWriter:
    return self

  def __exit__(self, *exception) -> None:
    if self._enabled:
      self._file.close()
      self._events.close()

  def write(self, step: int, split: str, values: dict[str, float]) -> None:
    """Write the metrics of a split at a step."""
    if not self._enabled:
      return
    record = {"step": step, "split": split} | values
    self._file.write(json.dumps(to_json(record)) + "\n")
    self._file.flush()
    for name, value in values.items():
      if math.isfinite(value):  # TensorBoard warns of every other value.
        self._events.add_scalar(f"{split}/{name}", value, step)


class Progress:
  """Progress of training: loss, metric, examples per second and remaining time.

  A context manager. It draws a bar on a terminal and prints lines elsewhere.

  Args:
    total_steps: Number of steps of the run.
    start_step: Step at which training starts or resumes.
    stream: Output, by default `sys.stderr`.
    enabled: Whether to show anything; false in all processes but one.
  """

  def __init__(
    self,
    total_steps: int,
    start_step: int = 0,
    stream: IO | None = None,
    *,
    enabled: bool = True,
  ):
    self._enabled = enabled
    self._total, self._step, self._start = total_steps, start_step, start_step
    self._stream = sys.stderr if stream is None else stream
    self._loss, self._metrics, self._examples = math.nan, "", 0.0
    self._begin, self._said = None, time.perf_counter()
    self._bar = None
    if enabled and self._stream.isatty():
      self._bar = tqdm.tqdm(
        total=total_steps,
        initial=start_step,
        file=self._stream,
        unit="step",
        dynamic_ncols=True,
      )

  def __enter__(self) -> Progress:
    return self

  def __exit__(self, *exception) -> None:
    if self._bar is not None:
      self._bar.close()

  def note(self, text: str) -> None:
    """Print a line, above the bar if there is one."""
    if self._bar is not None:
      self._bar.write(text, file=self._stream)
    elif self._enabled:
      print(text, file=self._stream, flush=True)

  def update(self, step: int, loss: float, examples: float) -> None:
    """Show a step that is done, with its loss and number of examples."""
    self._loss = loss
    if self._begin is None:  # The first step also waits for the first data.
      self._begin = self._said = time.perf_counter()
      self._start = step
    else:
      self._examples += examples
    if self._bar is not None:
      self._bar.set_postfix_str(self._numbers(), refresh=False)
      self._bar.update(step - self._step)
    self._step = step
    if self._bar is None and time.perf_counter() - self._said > _LINE_EVERY:
      self._say()

  def evaluation(self, step: int, values: dict[str, float]) -> None:
    """Show metrics of the validation split."""
    self._step = step
    self._metrics = ", ".join(f"validation {k} {v:.4f}" for k, v in values.items())
    if self._bar is not None:
      self._bar.set_postfix_str(self._numbers())
    else:
      self._say()

  def _numbers(self) -> str:
    rate = self._examples / max(self._seconds(), 1e-9)
    parts = [f"loss {self._loss:.4f}", self._metrics, f"{rate:,.0f} examples/s"]
    return ", ".join(part for part in parts if part)

  def _seconds(self) -> float:
    return 0.0 if self._begin is None else time.perf_counter() - self._begin

  def _say(self) -> None:
    self._said = time.perf_counter()
    done = self._step - self._start
    left = self._seconds() / max(done, 1) * (self._total - self._step)
    eta = tqdm.tqdm.format_interval(left)
    self.note(f"step {self._step}/{self._total}, {self._numbers()}, {eta} left")
