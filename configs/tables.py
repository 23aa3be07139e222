"""Tables of your own: a folder with train/, validation/ and test/.

  python -m experiments.main --config=configs/tables.py \
    --config.data.path=FOLDER

`Table.write` writes each of them. The budgets are proposed from a scan of the data.
"""

import ml_collections

from deepsets_jax.tasks import defaults


def get_config() -> ml_collections.ConfigDict:
  """Return the config of a set pool on tables."""
  config = defaults.supervised("tables")
  config.data.name = "tables"
  config.model.set_pool.pools = ("mean", "max")
  config.model.dense.hidden = (256,)
  config.model.head.hidden = (256,)
  config.optim.ema_decay = 0.99
  config.train.patience = 5
  return config
