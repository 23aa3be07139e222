"""Multi-modal digit sets with known relevant elements, to test feature attribution.

  python -m experiments.main --config=configs/digits_planted.py
  python -m experiments.main --config=configs/digits_planted.py:mil,1

The label is the largest digit, and each digit is an element of one of four modalities
(`digits.planted`). The argument has a model (one of `MODELS`) and a seed.
"""

import ml_collections

from configs import smoke
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.models.config import set_fusion

# For each model: a fusion and its settings. "max_redundant" is trained with dropout of
# nine in ten pooled features, so that each feature must predict the digit by itself.
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
  """Return the config of a model; all other settings are the same for all models.

  Args:
    argument: `MODEL` or `MODEL,SEED`.

  Raises:
    ConfigError: There is no such model.
  """
  model, _, seed = argument.partition(",")
  if model not in MODELS:
    raise ConfigError(f"unknown model {model!r}; one of {sorted(MODELS)}")
  fusion, settings = MODELS[model]
  config = smoke.get_config(fusion)
  config.seed = int(seed or 0)
  config.total_steps = 2000
  config.data.update(batch_size=128, modality_dropout=0.0)
  # Relevant elements are marked by their true digits, so no digit is misread.
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
