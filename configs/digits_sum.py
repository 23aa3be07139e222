"""The sum of the digits in a set of images, trained on at most 10, tested to 100.

  python -m experiments.main --config=configs/digits_sum.py
  python -m experiments.main --config=configs/digits_sum.py:max

After Zaheer et al., "Deep Sets" (2017). The argument is the pool.
"""

import ml_collections
from ml_collections import config_dict

from deepsets_jax.tasks import defaults


def get_config(pool: str = "sum") -> ml_collections.ConfigDict:
  """The digit sum with one of the pools."""
  config = defaults.supervised("digits")
  config.total_steps = 4000
  config.data.update(batch_size=128)
  config.data.budgets.image = config_dict.placeholder(int)
  config.data.digits.task = "sum"
  config.model.features = 30
  config.model.dense.update(hidden=(300, 100), activation="tanh")
  config.model.set_pool.pools = (pool,)
  config.train.update(metric="mae", eval_every=500, log_every=50)
  return config
