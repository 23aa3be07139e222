"""The protocol that the training loop expects of a task."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import grain
import jax
import ml_collections
from jaxtyping import PyTree

from deepsets_jax.ragged import Ragged
from deepsets_jax.training import sharding
from deepsets_jax.training.checkpoints import LoopState
from deepsets_jax.training.step import State, Step


class Task(Protocol):
  """Data, model and compiled functions of a run.

  Attributes:
    name: The value of `config.task`; a task of a user's own has that of the task that
      it extends.
    config: Config of the run with every open setting filled in.
    mesh: Mesh of all devices.
    init: Builds the state before the first step, on the devices.
    higher_is_better: Whether a larger `config.train.metric` is better.
  """

  name: ClassVar[str]
  config: ml_collections.ConfigDict
  mesh: jax.sharding.Mesh
  init: Callable[..., State]

  @property
  def higher_is_better(self) -> bool: ...

  @property
  def abstract_state(self) -> State:
    """Shapes, types and shardings of a state, to restore a checkpoint."""

  def costs(self) -> dict[str, Any]:
    """Parameters and FLOPs of each part of the model, see `costs.combine_parts`."""

  def compile_step(self) -> jax.stages.Compiled:
    """Compile the training step for the shapes of this run."""

  def train_batches(self) -> grain.DatasetIterator:
    """This process's shards of the batches of all steps."""

  def validate(self, params: PyTree) -> dict[str, float]:
    """Compute the validation metrics, `config.train.metric` among them."""

  def fill(self, batch: PyTree) -> dict[str, float]:
    """Share of the slots of a batch that hold an element, by modality."""

  def keep(self, workdir: pathlib.Path) -> None:
    """Write the files that the run needs besides its config to be loaded again."""

  def report(
    self,
    workdir: pathlib.Path,
    params: PyTree,
    loop_state: LoopState,
    costs: dict[str, Any],
  ) -> dict[str, Any]:
    """Evaluate every split but the training split and write the results of the run.

    Args:
      workdir: The run's folder.
      params: Parameters of the best checkpoint.
      loop_state: Loop state at the end of training.
      costs: Result of `costs`, with the costs of the compiled step.

    Returns:
      The contents of `results.json`.
    """


class CompiledTask:
  """Shapes and compiled step of a task, derived from its attributes."""

  mesh: jax.sharding.Mesh
  init: Callable[..., State]
  step: Step
  abstract_batch: Any

  @property
  def abstract_state(self) -> State:
    """Shapes, types and shardings of a state, to restore a checkpoint."""
    return sharding.abstract(jax.eval_shape(self.init), sharding.replicated(self.mesh))

  def compile_step(self) -> jax.stages.Compiled:
    """Compile the training step for the shapes of this run."""
    return self.step.lower(self.abstract_state, self.abstract_batch).compile()


def fill(modalities: Mapping[str, Ragged]) -> dict[str, float]:
  """Share of the slots `[s, n]` that hold an element, by modality."""
  shares = {}
  for name, ragged in modalities.items():
    shards, slots = ragged.values.shape[:2]
    shares[name] = int(ragged.offsets[:, -1].sum()) / (shards * slots)
  return shares
