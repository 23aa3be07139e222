"""A file of your own: Parquet, Arrow, JSON lines or CSV, or a data set of TFDS.

  python -m experiments.describe films.parquet
  python -m experiments.main --config=configs/table.py --config.data.path=films.parquet
  python -m experiments.main --config=configs/table.py:other.spec.json \
    --config.data.path=films.parquet

The spec describes the columns: films.spec.json, which the first command writes, or the
file after the colon.
"""

import json
import pathlib

import ml_collections

from deepsets_jax.tasks import defaults


def get_config(spec: str = "") -> ml_collections.ConfigDict:
  """Return the config of a table; the budgets and the metric follow from the data.

  Args:
    spec: Path of the spec; by default the file beside the table.
  """
  config = defaults.supervised("table")
  config.total_steps = 1000
  if spec:
    columns = json.loads(pathlib.Path(spec).read_text("utf-8"))
    config.data.columns = ml_collections.ConfigDict(columns)
  config.data.element_dropout = 0.1
  config.model.set_pool.update(pools=("sum", "max"))
  config.model.dense.update(hidden=(128,), dropout=0.2)
  config.model.token.dropout = 0.2
  config.model.head.update(input_norm=True, hidden=(256,), dropout=0.3)
  config.optim.update(learning_rate=2e-3, weight_decay=0.05, ema_decay=0.99)
  config.train.update(eval_every=50, patience=6)
  return config
