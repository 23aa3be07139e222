"""Which item a user comes to next, from files of your own, by two towers.

  python -m experiments.main --config=configs/clicks.py --config.data.path=FOLDER

FOLDER holds `events.csv` (or .parquet, .arrow, .jsonl) with the columns user, item and
time, and perhaps rating; `--config.data.clicks.user=user_id` names another column. It
may hold `items.csv` and `users.csv`: a row for each, the id under the same name as in
the events, and any other columns, which become fields. What they are taken for is
printed; to say it yourself, have a proposal written, edit it, and train again:

  python -m experiments.describe FOLDER/items.csv --label=item
"""

import ml_collections

from deepsets_jax.tasks import defaults


def get_config(seed: str = "0") -> ml_collections.ConfigDict:
  """All fields, and ids of items that have some events; recent events count more."""
  config = defaults.retrieval("clicks")
  config.seed = int(seed)
  config.total_steps = 2000
  config.data.update(batch_size=512)
  config.data.histories.update(max_history=50, id_events=5)
  config.model.update(features=128, fading=("history",))
  config.model.set_pool.pools = ("sum",)
  config.model.head.update(input_dropout=0.5, project=False)
  config.item_model.update(features=128)
  config.item_model.set_pool.pools = ("sum",)
  config.item_model.head.project = False
  config.retrieval.update(dimensions=128, num_uniform_negatives=1024)
  config.optim.update(learning_rate=3e-3, weight_decay=0.01, warmup_steps=100)
  config.train.update(eval_every=250, log_every=50)
  return config
