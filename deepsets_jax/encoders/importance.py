"""What modules tell of importance, in the collection of Flax of that name.

Nothing is told, and nothing computed for it, unless the collection is mutable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from deepsets_jax.ragged import attention

# The name under which queries, keys and plan are sown.
_ATTENDED = "attended"


def wants_importance(module: nn.Module) -> bool:
  """Whether a bound module is to tell importance: the collection is mutable.

  Not when parameters are made, where every collection is.
  """
  return module.is_mutable_collection("importance") and not module.is_initializing()


def sow_importance(module: nn.Module, name: str, value: Any) -> None:
  """Sows a value in "importance" where that is wanted.

  The last one stays, not a tuple of all: a module is called once.
  """
  if wants_importance(module):
    module.sow("importance", name, value, init_fn=dict, reduce_fn=lambda _, last: last)


def keep_attended(module: nn.Module, q: Array, k: Array, plan: attention.Plan) -> None:
  """Sows the queries, keys and plan of a module's attention, for `pull_back`."""
  sow_importance(module, _ATTENDED, (q, k, plan))


def pull_back(
  sown: Mapping[str, Any], mass: Float[Array, "n"]
) -> tuple[Float[Array, "n"], Float[Array, "m"]]:
  """Where a mass on an attention block's results comes from: its queries, its keys.

  A step of attention rollout (Abnar and Zuidema, "Quantifying Attention Flow in
  Transformers", 2020): half comes by the residual, half by the attention, with the mean
  weights of the heads. As a product with a vector it is exact, in linear memory.

  Args:
    sown: What has been sown in "importance" in the module that attends.
    mass: Of the results; those of a query without keys lose the second half.
  """
  return mass / 2, attention.received_mass(*sown[_ATTENDED], mass) / 2


def forget_attended(module: nn.Module) -> None:
  """Puts None for the queries and keys that attention in a bound module has sown.

  They are many times as large as the importance that is made of them, and would be
  returned with it.
  """
  for name, sown in module.variables.get("importance", {}).items():
    module.put_variable("importance", name, _without_attended(name, sown))


def _without_attended(name: str, sown: Any) -> Any:
  if name == _ATTENDED:
    return None
  if isinstance(sown, Mapping):
    return {key: _without_attended(key, value) for key, value in sown.items()}
  return sown
