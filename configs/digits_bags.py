"""Bags of digits: predict the largest digit, or the presence of a nine.

  python -m experiments.main --config=configs/digits_bags.py:max,mean
  python -m experiments.main --config=configs/digits_bags.py:contains_nine,mil_gated,1

The argument has a task ("max" or "contains_nine"), a pool (one of `POOLS`) or a fusion
with attention (one of `ATTENTION`), and a seed. Encoder, head and training are the same
for all models of a task.

Bags have 1 to 10 images. The largest digit (Lee et al., "Set Transformer", 2019) is
also tested on bags of up to 100. The presence of a nine (Ilse et al., "Attention-based
Deep Multiple Instance Learning", 2018) is learned from 200 bags: with 20,000 bags even
the mean pool solves it. A run takes half a minute on one core, or a minute with the Set
Transformer, mostly for compilation.
"""

import ml_collections
from ml_collections import config_dict

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.models.config import set_fusion
from deepsets_jax.tasks import defaults

# For each task: training bags, steps, steps between evaluations, metric.
_TASKS = {
  "max": (20_000, 1500, 250, "mae"),
  "contains_nine": (200, 300, 50, "roc_auc"),
}
POOLS = ("sum", "mean", "max", "min", "logsumexp", "softmax", "std", "var")
# For each name: a fusion and its settings.
ATTENTION = {
  "mil": ("mil", {"gated": False}),
  "mil_gated": ("mil", {"gated": True}),
  "set_transformer": ("set_transformer", {"layers": 2, "heads": 3}),
  "set_transformer_isab": ("set_transformer", {"layers": 2, "heads": 3, "inducing": 8}),
}


def get_config(argument: str = "max,max,0") -> ml_collections.ConfigDict:
  """Return the config of a task with a pool or a fusion with attention.

  Args:
    argument: `TASK,POOL` or `TASK,POOL,SEED`.

  Raises:
    ConfigError: There is no such task or pool.
  """
  task, _, rest = argument.partition(",")
  pool, _, seed = rest.partition(",")
  if task not in _TASKS:
    raise ConfigError(f"unknown task {task!r}; one of {sorted(_TASKS)}")
  if pool not in (*POOLS, *ATTENTION):
    raise ConfigError(f"unknown pool {pool!r}; one of {[*POOLS, *ATTENTION]}")
  bags, steps, eval_every, metric = _TASKS[task]
  config = defaults.supervised("digits")
  config.seed = int(seed or 0)
  config.total_steps = steps
  config.data.update(batch_size=128)
  config.data.budgets.image = config_dict.placeholder(int)
  config.data.digits.update(task=task, train_examples=bags)
  config.model.features = 30
  config.model.dense.update(hidden=(300, 100), activation="tanh")
  if pool in ATTENTION:
    fusion, settings = ATTENTION[pool]
    set_fusion(config.model, fusion, **settings)
  else:
    config.model.set_pool.pools = (pool,)
  config.model.head.hidden = (64,)
  # A long warmup: with 50 steps, the Set Transformer did not learn at this rate.
  config.optim.update(learning_rate=3e-3, warmup_steps=steps // 5)
  config.train.update(metric=metric, eval_every=eval_every, log_every=50)
  return config
