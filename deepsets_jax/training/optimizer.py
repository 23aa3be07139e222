"""The optimizer: an optax chain of clipping, AdamW and a schedule."""

from __future__ import annotations

import math

import jax
import ml_collections
import optax
from jaxtyping import PyTree

from deepsets_jax.foundation.errors import ConfigError


def build_optimizer(
  config: ml_collections.ConfigDict, total_steps: int
) -> optax.GradientTransformation:
  """Build the optimizer of `config.optim`.

  Weight decay is decoupled (AdamW) and leaves out vectors, which are biases and the
  scales of norms.

  Args:
    config: `config.optim` of the run.
    total_steps: Number of training steps.

  Raises:
    ConfigError: See `schedule`.
  """
  return optax.chain(
    optax.clip_by_global_norm(config.clip_norm)
    if config.clip_norm is not None
    else optax.identity(),
    optax.adamw(
      schedule(config, total_steps),
      weight_decay=config.weight_decay,
      mask=_matrices,
    ),
    _scale_by_group(dict(config.factors)),
  )


def schedule(config: ml_collections.ConfigDict, total_steps: int) -> optax.Schedule:
  """Build the schedule: linear warm-up, then cosine decay to zero or a constant.

  Raises:
    ConfigError: The schedule is unknown, or the warm-up is not shorter than the run.
  """
  if config.warmup_steps >= total_steps:
    raise ConfigError(
      f"config.optim.warmup_steps {config.warmup_steps} is not below"
      f" config.total_steps {total_steps}; lower it"
    )
  warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
  match config.schedule:
    case "cosine":
      rest = optax.cosine_decay_schedule(
        config.learning_rate, total_steps - config.warmup_steps
      )
    case "constant":
      rest = optax.constant_schedule(config.learning_rate)
    case _:
      raise ConfigError(
        f"unknown config.optim.schedule {config.schedule!r};"
        " choose one of ['constant', 'cosine']"
      )
  return optax.join_schedules([warmup, rest], [config.warmup_steps])


def _scale_by_group(factors: dict[str, float]) -> optax.GradientTransformation:
  """Scale the learning rate of parameter groups, weight decay included.

  Args:
    factors: Learning-rate multiplier by name of a group, which is any key on the path
      of a parameter. Multipliers of nested groups multiply.

  Raises:
    ConfigError: At initialisation, if a name is on the path of no parameter.
  """

  def init(params):
    paths, _ = zip(*jax.tree.leaves_with_path(params), strict=True)
    groups = {key.key for path in paths for key in path}
    unknown = sorted(set(factors) - groups)
    if unknown:
      raise ConfigError(
        f"config.optim.factors.{unknown[0]}: no parameter group has this name;"
        f" choose one of {sorted(groups)}"
      )
    return optax.EmptyState()

  def scale(path, update):
    factor = math.prod(factors.get(key.key, 1.0) for key in path)
    return update * factor

  def update(updates, state, params=None):
    del params
    return jax.tree.map_with_path(scale, updates), state

  return optax.GradientTransformation(init, update)


def _matrices(params: PyTree) -> PyTree:
  return jax.tree.map(lambda p: p.ndim > 1, params)
