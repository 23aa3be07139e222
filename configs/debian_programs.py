"""Labels of Debian programs: 74 labels, seven modalities, most of them often missing.

  python -m experiments.main --config=configs/debian_programs.py
  python -m experiments.main --config=configs/debian_programs.py:concat,1
  python -m experiments.main --config=configs/debian_programs.py:concat,1,dropout

The argument has a model (one of `MODELS`), a seed, and optionally "dropout" for
modality dropout in training. A run takes under a minute on two cores.
"""

import ml_collections
from ml_collections import config_dict

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.models.config import set_fusion
from deepsets_jax.tasks import defaults

MODALITIES = (
  "summary",
  "description",
  "depends",
  "recommends",
  "suggests",
  "name",
  "size",
)
# For each model: the width of the common space, and the best learning rate and dropout
# probability on validation in the sweep of configs/sweeps/debian_programs.py. The head
# of a concatenation is wider, so its space is narrower at equal parameters.
MODELS = {
  "set_pool": (256, 2e-2, 0.5),
  "concat": (250, 1e-2, 0.6),
  "concat_learned": (250, 1e-2, 0.6),
}

# Probability of dropping a modality; chosen in advance, not tuned.
MODALITY_DROPOUT = 0.3


def get_config(argument: str = "set_pool,0") -> ml_collections.ConfigDict:
  """Return the config of a set pool or a concatenation, at equal parameters.

  Args:
    argument: `MODEL,SEED` or `MODEL,SEED,dropout`; the seed may be left out.

  Raises:
    ConfigError: There is no such model, or the third part is not "dropout".
  """
  model, seed, dropout = (*argument.split(","), "", "")[:3]
  if model not in MODELS:
    raise ConfigError(f"unknown model {model!r}; one of {sorted(MODELS)}")
  if dropout not in ("", "dropout"):
    raise ConfigError(f"unknown training {dropout!r}; 'dropout' or nothing")
  features, learning_rate, head_dropout = MODELS[model]
  config = defaults.supervised()
  config.seed = int(seed or 0)
  config.total_steps = 280
  for name in MODALITIES:
    config.data.budgets[name] = config_dict.placeholder(int)
  config.data.element_dropout = 0.2
  config.data.modality_dropout = MODALITY_DROPOUT if dropout else 0.0
  config.model.features = features
  pools = ("sum", "max")
  if model == "set_pool":
    set_fusion(config.model, "set_pool", pools=pools)
  else:
    placeholder = "learned" if model == "concat_learned" else "zeros"
    set_fusion(config.model, "concat", pools=pools, placeholder=placeholder)
  config.model.head.update(input_activation="relu", input_dropout=head_dropout)
  config.loss.balance = 0.7
  config.optim.update(
    learning_rate=learning_rate,
    warmup_steps=14,
    weight_decay=0.4,
    clip_norm=None,
    ema_decay=0.99,
  )
  config.train.update(eval_every=70)
  return config
