"""Bags of digits: the largest one, or whether there is a nine, by pool.

  python -m experiments.main --config=configs/digits_bags.py:max,mean
  python -m experiments.main --config=configs/digits_bags.py:contains_nine,mil,1

The arguments are the task, "max" or "contains_nine", the pool, and the seed. Bags have
at most 10 images in training; those of "max" are tested to 100. After Lee et al., "Set
Transformer" (2019), and Ilse et al., "Attention-based Deep Multiple Instance Learning"
(2018). All pools have the same encoder and head. A run takes under half a minute on a
core.
"""

import ml_collections
from ml_collections import config_dict

from configs import base

# The tasks, with what is best of validation.
_METRICS = {"max": "mae", "contains_nine": "roc_auc"}
# What reads the bag with attention: a fusion and its settings. All others are pools of
# the set pool.
_ATTENTION = {
  "mil": ("mil", {"gated": False}),
  "mil_gated": ("mil", {"gated": True}),
  "set_transformer": ("set_transformer", {"layers": 2, "heads": 3}),
  "set_transformer_isab": ("set_transformer", {"layers": 2, "heads": 3, "inducing": 8}),
}
_POOLS = ("sum", "mean", "max", "min", "logsumexp", "softmax", "std", "var")


def get_config(argument: str = "max,max,0") -> ml_collections.ConfigDict:
  """One of the tasks with one of the pools."""
  task, _, rest = argument.partition(",")
  pool, _, seed = rest.partition(",")
  if task not in _METRICS:
    raise ValueError(f"unknown task {task!r}; one of {sorted(_METRICS)}")
  if pool not in (*_POOLS, *_ATTENTION):
    raise ValueError(f"unknown pool {pool!r}; one of {[*_POOLS, *_ATTENTION]}")
  config = base.get_config()
  config.seed = int(seed or 0)
  config.total_steps = 1500
  config.data.update(name="digits", batch_size=128)
  config.data.budgets.image = config_dict.placeholder(int)
  config.data.digits.task = task
  config.model.features = 30
  config.model.dense.update(hidden=(300, 100), activation="tanh")
  if pool in _ATTENTION:
    fusion, settings = _ATTENTION[pool]
    config.model.fusion = fusion
    config.model[fusion].update(settings)
  else:
    config.model.set_pool.pools = (pool,)
  config.model.head.hidden = (64,)
  config.train.update(metric=_METRICS[task], eval_every=250, log_every=50)
  return config
