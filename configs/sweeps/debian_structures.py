"""The settings tried to tune each structure of `configs/debian_structures.py`.

  python -m experiments.sweep --config=configs/debian_structures.py:two_stage \
    --sweep=configs.sweeps.debian_structures --seeds=0

They are the two that were best for the set pool and for the concatenation in
`configs/sweeps/debian_programs.py`, and the first of these with a LayerNorm on the
fused vector, because means and attention give short vectors.
"""

from collections.abc import Iterator
from typing import Any


def overrides() -> Iterator[dict[str, Any]]:
  """Yield triples of learning rate, dropout and norm of the fused vector."""
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
