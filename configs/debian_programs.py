"""What a Debian program is for: 74 labels from seven modalities, most often missing.

  python -m experiments.main --config=configs/debian_programs.py
  python -m experiments.main --config=configs/debian_programs.py:concat,1

The argument is the model, "set_pool", "concat" (zeros for what is absent) or
"concat_learned" (learned placeholders), and the seed. Under a minute on two cores.
"""

import ml_collections
from ml_collections import config_dict

from configs import base

# Width of the common space: the concatenation's head is wider, so that its space is
# narrower at equal parameters.
_FEATURES = {"set_pool": 256, "concat": 250, "concat_learned": 250}


def get_config(argument: str = "set_pool,0") -> ml_collections.ConfigDict:
  """The set pool, or a concatenation it is compared with at equal parameters."""
  model, _, seed = argument.partition(",")
  if model not in _FEATURES:
    raise ValueError(f"unknown model {model!r}; one of {sorted(_FEATURES)}")
  config = base.get_config()
  config.seed = int(seed or 0)
  config.total_steps = 280
  for name in ("summary", "description", "depends", "recommends", "suggests"):
    config.data.budgets[name] = config_dict.placeholder(int)
  for name in ("name", "size"):
    config.data.budgets[name] = config_dict.placeholder(int)
  config.data.element_dropout = 0.2
  config.model.update(fusion=model.split("_learned")[0], features=_FEATURES[model])
  config.model.set_pool.pools = ("sum", "max")
  config.model.concat.update(
    pools=("sum", "max"),
    placeholder="learned" if model == "concat_learned" else "zeros",
  )
  config.model.head.update(input_activation="relu", input_dropout=0.6)
  config.loss.balance = 0.7
  config.optim.update(
    learning_rate=1e-2,
    warmup_steps=14,
    weight_decay=0.4,
    clip_norm=None,
    ema_decay=0.99,
  )
  config.train.update(eval_every=70)
  return config
