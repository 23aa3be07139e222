"""Which film a user of MovieLens 100K comes to next, by two towers.

python -m experiments.main --config=configs/movielens_recall.py
"""

import ml_collections

from configs import base


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  """The best model by validation."""
  config = base.get_config()
  config.task = "recall"
  config.seed = int(argument or 0)
  config.total_steps = 2500
  config.data.update(name="movielens", batch_size=512)
  config.data.histories.update(window=50, user_fields=(), item_fields=(), id_events=1)
  config.model.update(features=128, fusion="set_pool", fading=("history",))
  config.model.set_pool.pools = ("sum",)
  config.model.head.update(input_dropout=0.5, project=False)
  config.item_model.update(features=128)
  config.item_model.set_pool.pools = ("sum",)
  config.item_model.head.project = False
  config.recall.update(dimensions=128, uniform=1024)
  config.optim.update(learning_rate=3e-3, weight_decay=0.01, warmup_steps=100)
  config.train.update(eval_every=250, log_every=50)
  return config
