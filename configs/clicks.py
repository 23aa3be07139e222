"""Two-tower retrieval of the next item of a user, from click logs of your own.

  python -m experiments.main --config=configs/clicks.py --config.data.path=FOLDER

FOLDER has `events.csv` (or .parquet, .arrow, .jsonl) with the columns user, item and
time, and optionally rating; `--config.data.clicks.user=user_id` names another column.
It may have `items.csv` and `users.csv`, with one row per item or user: the id, in a
column named as in the events, and any other columns, which become fields. The command
prints how it reads these columns. To choose it yourself, write a proposed spec, edit
it, and train again:

  python -m experiments.describe FOLDER/items.csv --label=item
"""

import ml_collections

from deepsets_jax.tasks import defaults


def get_config(seed: str = "0") -> ml_collections.ConfigDict:
  """Two towers with all fields, and id vectors of items with at least 5 events.

  The elements of a history fade with the number of later elements.

  Args:
    seed: Seed of the run.
  """
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
