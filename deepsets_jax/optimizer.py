"""The optimizer: an optax chain of clipping, AdamW and a schedule."""

from __future__ import annotations

import jax
import ml_collections
import optax
from jaxtyping import PyTree


def build(
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
      b1=config.beta1,
      b2=config.beta2,
      weight_decay=config.weight_decay,
      mask=_matrices,
    ),
  )


def schedule(config: ml_collections.ConfigDict, total_steps: int) -> optax.Schedule:
  """Linear warm-up to `learning_rate`, then "cosine" to zero, or "constant".

  Raises:
    ValueError: An unknown schedule, or a warm-up longer than the run.
  """
  if config.warmup_steps >= total_steps:
    raise ValueError(
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
      raise ValueError(
        f"unknown config.optim.schedule {config.schedule!r};"
        " one of ['constant', 'cosine']"
      )
  return optax.join_schedules([warmup, rest], [config.warmup_steps])


def _matrices(params: PyTree) -> PyTree:
  return jax.tree.map(lambda p: p.ndim > 1, params)
