"""Ranking of films for a user of MovieLens 100K, by two towers and a scorer.

  python -m experiments.main --config=configs/movielens_ranking.py
  python -m experiments.main --config=configs/movielens_ranking.py:clicks,softmax,1

The argument has the source of the lists ("ratings" or "clicks"), a loss ("softmax",
"pairwise" or "pointwise"), and a seed. The data are downloaded once, with pip. A run
takes a minute or two on two cores.
"""

import ml_collections

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.tasks import defaults

# For each source of lists: the loss that was best on validation.
_LOSSES = {"ratings": "pairwise", "clicks": "softmax"}


def get_config(argument: str = "ratings") -> ml_collections.ConfigDict:
  """Return the config of the best model on validation, for a source of lists.

  Args:
    argument: `LISTS`, `LISTS,LOSS` or `LISTS,LOSS,SEED`.

  Raises:
    ConfigError: There is no such source of lists.
  """
  lists, loss, seed, *_ = (*argument.split(","), "", "")
  if lists not in _LOSSES:
    raise ConfigError(f"unknown lists {lists!r}; one of {sorted(_LOSSES)}")
  config = defaults.ranking()
  config.seed = int(seed or 0)
  config.data.histories.id_events = 1
  for model in (config.model, config.item_model):
    model.features = 128
    model.set_pool.pools = ("sum",)
    model.head.project = False
  config.model.head.input_dropout = 0.5
  config.retrieval.dimensions = 128
  config.ranking.update(lists=lists, loss=loss or _LOSSES[lists])
  config.optim.update(learning_rate=1e-3, weight_decay=0.1, warmup_steps=100)
  if lists == "ratings":
    config.total_steps = 1000
    config.data.batch_size = 64
    # Old ratings still predict the taste of a user, so the history is long.
    config.data.histories.update(
      max_history=200, item_fields=("title", "year", "genres")
    )
    config.model.set_pool.pools = ("mean",)
    config.model.head.project = True
  else:
    config.total_steps = 1000
    # The cost of the losses is quadratic in the slots of a shard.
    config.data.update(batch_size=256, shards=8)
    config.data.histories.update(max_history=50, user_fields=(), item_fields=())
    config.model.fading = ("history",)
    config.optim.learning_rate = 3e-3
  config.train.update(eval_every=100, log_every=50)
  return config
