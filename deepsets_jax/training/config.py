"""The settings of training that all tasks share, and their defaults."""

from __future__ import annotations

import ml_collections
from ml_collections import config_dict


def default_optim() -> ml_collections.ConfigDict:
  """The settings of the optimizer, `config.optim`."""
  return config_dict.create(
    # Peak learning rate of AdamW.
    learning_rate=1e-3,
    # Steps of linear warm-up from 0.
    warmup_steps=50,
    # Schedule after the warm-up: "cosine" to 0, or "constant".
    schedule="cosine",
    # Decoupled weight decay of matrices; biases and scales have none.
    weight_decay=0.0,
    # Learning-rate multiplier per top-level parameter group, such as encoders_word.
    factors=ml_collections.ConfigDict(),
    # Largest norm of the gradient; None for no clipping.
    clip_norm=1.0,
    # Decay of a moving average of the parameters, which is then evaluated and kept;
    # None for no average.
    ema_decay=config_dict.placeholder(float),
  )


def default_train() -> ml_collections.ConfigDict:
  """The settings of the training loop, `config.train`."""
  return config_dict.create(
    # Steps between two evaluations on validation; each saves a checkpoint.
    eval_every=100,
    # Steps between two records of training metrics.
    log_every=10,
    # Validation metric that chooses the best checkpoint; None for the usual one of the
    # task.
    metric=config_dict.placeholder(str),
    # Evaluations without an improvement after which training stops; None for never.
    patience=config_dict.placeholder(int),
  )
