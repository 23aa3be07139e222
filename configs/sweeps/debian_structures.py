"""The settings that each structure of `configs/debian_structures.py` was tuned over.

  python -m experiments.sweep --config=configs/debian_structures.py:two_stage \
    --sweep=configs.sweeps.debian_structures --seeds=0

The two that were best for the set pool and for the concatenation in
`configs/sweeps/debian_programs.py`.
"""

from collections.abc import Iterator
from typing import Any


def overrides() -> Iterator[dict[str, Any]]:
  """Learning rate and dropout on the fused vector, together."""
  for rate, dropout in ((2e-2, 0.5), (1e-2, 0.6)):
    yield {
      "optim.learning_rate": rate,
      "model.head.input_dropout": dropout,
    }
