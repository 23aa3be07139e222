"""The settings tried to tune each model of `configs/debian_programs.py`.

  for model in set_pool concat concat_learned; do
    python -m experiments.sweep --config=configs/debian_programs.py:$model \
      --sweep=configs.sweeps.debian_programs --seeds=0,1,2
  done
"""

import itertools
from collections.abc import Iterator
from typing import Any


def overrides() -> Iterator[dict[str, Any]]:
  """Yield all pairs of learning rate and dropout probability of the fused vector."""
  for rate, dropout in itertools.product((1e-2, 2e-2), (0.5, 0.6)):
    yield {
      "optim.learning_rate": rate,
      "model.head.input_dropout": dropout,
    }
