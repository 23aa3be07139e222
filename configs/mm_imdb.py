"""MM-IMDb: 23 genres of 25,959 films, from vectors of the plot and the poster.

  python -m tools.build_dataset mm_imdb/features --manual_dir=FOLDER
  python -m experiments.main --config=configs/mm_imdb.py:concat

FOLDER has multimodal_imdb.hdf5, which may not be redistributed: see
deepsets_jax/data/datasets/builders/mm_imdb/README.md. Its vectors are the public ones,
from word2vec and VGG. A concatenation of them is published at 58.8 micro and 49.2 macro
F1 on the test split; it was not run here. The argument has a model (one of `MODELS`)
and a seed.
"""

import ml_collections
from ml_collections import config_dict

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.models.config import set_fusion
from deepsets_jax.tasks import defaults

# For each model: the width of the common space, at equal parameters.
MODELS = {"set_pool": 512, "concat": 512, "gated": 308}
COLUMNS = {
  "modalities": {
    "plot": {"kind": "vector", "column": "features", "scale": "standard"},
    "poster": {"kind": "vector", "column": "vgg_features", "scale": "standard"},
  },
  "label": {
    "column": "genres",
    "kind": "multilabel",
    "missing": "error",
    "min_count": 1,
    "separator": None,
  },
  "id": "imdb_id",
  "split": "split",
  "group": None,
  "shares": (0.8, 0.1, 0.1),
}


def get_config(argument: str = "set_pool,0") -> ml_collections.ConfigDict:
  """Return the config of a set pool, a concatenation or gates, at equal parameters.

  The batch size of 128, the dropout of 0.5 and the width of 512 are those of Arevalo et
  al. (2017). The learning rate and the other settings are not tuned, because the data
  were not available.

  Args:
    argument: `MODEL` or `MODEL,SEED`.

  Raises:
    ConfigError: There is no such model.
  """
  model, _, seed = argument.partition(",")
  if model not in MODELS:
    raise ConfigError(f"unknown model {model!r}; one of {sorted(MODELS)}")
  config = defaults.supervised("table")
  config.seed = int(seed or 0)
  config.total_steps = 2000
  config.data.update(path="tfds:mm_imdb/features", batch_size=128)
  config.data.columns = ml_collections.ConfigDict(COLUMNS)
  for name in COLUMNS["modalities"]:
    config.data.budgets[name] = config_dict.placeholder(int)
  config.model.features = MODELS[model]
  set_fusion(config.model, model)
  config.model.dense.update(hidden=(512,), norm=True, dropout=0.5)
  if model == "set_pool":
    config.model.set_pool.pools = ("sum", "max")
  config.model.head.update(hidden=(512,), norm=True, dropout=0.5, input_dropout=0.5)
  config.optim.update(learning_rate=1e-3, weight_decay=0.05, ema_decay=0.99)
  config.train.update(eval_every=100, patience=8)
  return config
