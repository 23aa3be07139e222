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
  """The chain of `config.optim`.

  Weight decay is decoupled (AdamW) and spares vectors: biases and norms.
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
    _scale_by_part(dict(config.factors)),
  )


def schedule(config: ml_collections.ConfigDict, total_steps: int) -> optax.Schedule:
  """Linear warm-up to `learning_rate`, then "cosine" to zero, or "constant".

  Raises:
    ConfigError: An unknown schedule, or a warm-up longer than the run.
  """
  if config.warmup_steps >= total_steps:
    raise ConfigError(
      f"config.optim.warmup_steps {config.warmup_steps} is not below"
      f" config.total_steps {total_steps}"
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
        " one of ['constant', 'cosine']"
      )
  return optax.join_schedules([warmup, rest], [config.warmup_steps])


def _scale_by_part(factors: dict[str, float]) -> optax.GradientTransformation:
  """Multiplies the updates of the parameters that are in a part of the model.

  Weight decay shrinks with them, as it would with the learning rate.

  Raises:
    ConfigError: When it is initialised: no parameter is in a part of this name.
  """

  def init(params):
    paths, _ = zip(*jax.tree.leaves_with_path(params), strict=True)
    parts = {key.key for path in paths for key in path}
    unknown = sorted(set(factors) - parts)
    if unknown:
      raise ConfigError(
        f"config.optim.factors.{unknown[0]}: no parameter is in a part of this name;"
        f" one of {sorted(parts)}"
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
