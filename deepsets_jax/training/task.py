"""What training needs to know of a task; all else is the task's own."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import grain
import jax
import ml_collections
from jaxtyping import PyTree

from deepsets_jax.ragged import Ragged
from deepsets_jax.training.checkpoints import LoopState
from deepsets_jax.training.step import State


class Task(Protocol):
  """A run's data, model and compiled functions, for one kind of question.

  Attributes:
    config: Resolved: every setting that was left open is filled in.
    mesh: Of all devices.
    init: The state before the first step, on the devices.
    higher_is_better: Whether more of `config.train.metric` is.
  """

  config: ml_collections.ConfigDict
  mesh: jax.sharding.Mesh
  init: Callable[..., State]

  @property
  def higher_is_better(self) -> bool: ...

  @property
  def abstract_state(self) -> State:
    """Shapes, types and shardings of a state, to restore one."""

  def costs(self) -> dict[str, Any]:
    """What the parts of the model cost; see `costs.model_costs`."""

  def compile_step(self) -> jax.stages.Compiled:
    """The training step for this run's shapes."""

  def train_batches(self) -> grain.DatasetIterator:
    """The batches of all steps, this process's shards; its state is the position."""

  def validate(self, params: PyTree) -> dict[str, float]:
    """The metrics of the validation part, `config.train.metric` among them."""

  def fill(self, batch: PyTree) -> dict[str, float]:
    """The share of the slots of a batch that hold an element, by modality."""

  def keep(self, workdir: pathlib.Path) -> None:
    """Writes into a new run's folder what it takes besides the config to ask it."""

  def report(
    self,
    workdir: pathlib.Path,
    params: PyTree,
    position: LoopState,
    summary: dict[str, Any],
  ) -> dict[str, Any]:
    """Evaluates every split but the training one and writes the run's results."""


def fill(modalities: Mapping[str, Ragged]) -> dict[str, float]:
  """The share of the slots `[s, n]` that hold an element, by modality."""
  shares = {}
  for name, ragged in modalities.items():
    shards, slots = ragged.values.shape[:2]
    shares[name] = int(ragged.offsets[:, -1].sum()) / (shards * slots)
  return shares
