"""Sum of the digits in a set of images: training on up to 10 images, test on up to 100.

  python -m experiments.main --config=configs/digits_sum.py
  python -m experiments.main --config=configs/digits_sum.py:max

The task is that of Zaheer et al., "Deep Sets" (2017). The argument is the pool.
"""

import ml_collections
from ml_collections import config_dict

from deepsets_jax.tasks import defaults


def get_config(pool: str = "sum") -> ml_collections.ConfigDict:
  """Return the config of the digit sum with a pool, a key of `ragged.pooling.POOLS`."""
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
