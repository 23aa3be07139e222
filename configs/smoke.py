"""Small multi-modal digit sets: data, training and report in under a minute on a CPU.

python -m experiments.main --config=configs/smoke.py
"""

import ml_collections
from ml_collections import config_dict

from deepsets_jax.models.config import set_fusion
from deepsets_jax.tasks import defaults


def get_config(fusion: str = "set_pool") -> ml_collections.ConfigDict:
  """Return the config: the largest digit of a set of four modalities.

  The modalities are images, profiles, characters and number words.

  Args:
    fusion: A key of `deepsets_jax.fusion.FUSIONS`.
  """
  config = defaults.supervised("digits")
  config.total_steps = 300
  config.data.update(batch_size=64, modality_dropout=0.1)
  for name in ("image", "profile", "ocr", "caption"):
    config.data.budgets[name] = config_dict.placeholder(int)
  config.data.digits.update(task="multimodal", train_examples=2000)
  config.model.features = 32
  set_fusion(config.model, fusion)
  config.model.dense.hidden = (64,)
  config.model.head.hidden = (64,)
  config.optim.learning_rate = 3e-3
  config.train.update(metric="accuracy", eval_every=100)
  return config
