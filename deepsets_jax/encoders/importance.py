"""What modules report of their attention, in the Flax collection "importance".

Modules only report what they computed: queries and keys, or weights.
`analysis.attribution.rollout` makes scores of elements from these. A module reports,
and computes what it reports, only while the collection is mutable.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
from jaxtyping import Array

from deepsets_jax.ragged import attention


def wants_importance(module: nn.Module) -> bool:
  """Whether a bound module has to report: the collection "importance" is mutable.

  False while parameters are initialised, when every collection is mutable.
  """
  return module.is_mutable_collection("importance") and not module.is_initializing()


def sow_importance(module: nn.Module, name: str, value: Any) -> None:
  """Sows a value in "importance" if the collection is wanted.

  A later value replaces an earlier one, because a module is called once.
  """
  if wants_importance(module):
    module.sow("importance", name, value, init_fn=dict, reduce_fn=lambda _, last: last)


def sow_attended(module: nn.Module, q: Array, k: Array, plan: attention.Plan) -> None:
  """Sows the queries, keys and plan of a module's attention as "attended"."""
  sow_importance(module, "attended", (q, k, plan))
