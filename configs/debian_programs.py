"""What a Debian program is for: 74 labels from six modalities, most often missing.

  python -m experiments.main --config=configs/debian_programs.py
  python -m experiments.main --config=configs/debian_programs.py:concat,1

The argument is the fusion and the seed.
"""

import ml_collections
from ml_collections import config_dict

from configs import base


def get_config(argument: str = "set_pool,0") -> ml_collections.ConfigDict:
  """The set pool, or the concatenation it is compared with, at equal parameters."""
  fusion, _, seed = argument.partition(",")
  config = base.get_config()
  config.seed = int(seed or 0)
  config.total_steps = 280
  for name in ("description", "depends", "recommends", "suggests", "name", "size"):
    config.data.budgets[name] = config_dict.placeholder(int)
  config.data.element_dropout = 0.2
  config.model.update(fusion=fusion, features=256)
  config.model.set_pool.pools = ("sum", "max")
  config.model.concat.pools = ("sum", "max")
  config.model.head.update(input_activation="relu", input_dropout=0.6)
  config.optim.update(
    learning_rate=1e-2,
    warmup_steps=14,
    weight_decay=0.4,
    clip_norm=None,
    ema_decay=0.99,
  )
  config.train.update(eval_every=70)
  return config
