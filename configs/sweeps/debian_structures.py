"""The settings that each structure of `configs/debian_structures.py` was tuned over.

  python -m experiments.sweep --config=configs/debian_structures.py:two_stage \
    --sweep=configs.sweeps.debian_structures --seeds=0

The two that were best for the set pool and for the concatenation in
`configs/sweeps/debian_programs.py`, and the first with a LayerNorm on the fused vector:
means and attention give short vectors.
"""

from collections.abc import Iterator
from typing import Any


def overrides() -> Iterator[dict[str, Any]]:
  """Learning rate, dropout and norm of the fused vector, together."""
  for rate, dropout, norm in (
    (2e-2, 0.5, True),
    (2e-2, 0.5, False),
    (1e-2, 0.6, False),
  ):
    yield {
      "optim.learning_rate": rate,
      "model.head.input_dropout": dropout,
      "model.head.input_norm": norm,
    }
