"""Multi-modal digit sets of which it is known what decides: is importance true?

  python -m experiments.main --config=configs/digits_planted.py
  python -m experiments.main --config=configs/digits_planted.py:mil,1

The label is the largest digit, and each digit is an element of one of four modalities
(`digits.planted`). The arguments are the model, one of `MODELS`, and the seed.
"""

import ml_collections

from configs import smoke
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.models.config import set_fusion

# By name a fusion and its settings. Of "max_redundant" nine in ten pooled features are
# dropped in training, so that each has to tell the largest digit by itself.
MODELS = {
  "max": ("set_pool", {"pools": ("max",)}),
  "max_redundant": ("set_pool", {"pools": ("max",)}),
  "max_min": ("set_pool", {"pools": ("max", "min")}),
  "sum_max": ("set_pool", {"pools": ("sum", "max")}),
  "sum": ("set_pool", {"pools": ("sum",)}),
  "mean": ("set_pool", {"pools": ("mean",)}),
  "concat": ("concat", {"pools": ("max",)}),
  "mil": ("mil", {}),
  "hierarchical": ("hierarchical", {}),
  "set_transformer": ("set_transformer", {"layers": 1}),
  "single_stream": (
    "single_stream",
    {"fused": None, "readout": "all", "pools": ("max",)},
  ),
}


def get_config(argument: str = "max,0") -> ml_collections.ConfigDict:
  """One of the models, all else equal."""
  model, _, seed = argument.partition(",")
  if model not in MODELS:
    raise ConfigError(f"unknown model {model!r}; one of {sorted(MODELS)}")
  fusion, settings = MODELS[model]
  config = smoke.get_config(fusion)
  config.seed = int(seed or 0)
  config.total_steps = 2000
  config.data.update(batch_size=128, modality_dropout=0.0)
  # What is misread decides, too, and would not be what was planted.
  config.data.digits.update(train_examples=20_000, misread_rate=0.0)
  config.model.features = 64
  config.model.dense.hidden = (128,)
  set_fusion(config.model, fusion, **settings)
  config.optim.update(learning_rate=3e-3, warmup_steps=200)
  if model == "max_redundant":
    config.model.head.input_dropout = 0.9
    config.total_steps = 6000
  config.train.update(eval_every=250, log_every=50)
  return config
