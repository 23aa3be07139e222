"""Importance of elements, which modules sow in the Flax collection "importance".

Modules sow, and compute importance, only if the collection is mutable.
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
  """Whether a bound module should sow importance: the collection is mutable.

  False during initialization, where every collection is mutable.
  """
  return module.is_mutable_collection("importance") and not module.is_initializing()


def sow_importance(module: nn.Module, name: str, value: Any) -> None:
  """Sow a value in "importance" if `wants_importance`.

  Only the last value is kept, not a tuple of all, because a module is called once.
  """
  if wants_importance(module):
    module.sow("importance", name, value, init_fn=dict, reduce_fn=lambda _, last: last)


def keep_attended(module: nn.Module, q: Array, k: Array, plan: attention.Plan) -> None:
  """Sow the queries, keys and plan of a module's attention, for `pull_back`."""
  sow_importance(module, _ATTENDED, (q, k, plan))


def pull_back(
  sown: Mapping[str, Any], mass: Float[Array, "n"]
) -> tuple[Float[Array, "n"], Float[Array, "m"]]:
  """Pass a mass on the results of an attention block back to its queries and keys.

  This is a step of attention rollout (Abnar and Zuidema, "Quantifying Attention Flow in
  Transformers", 2020). Half of the mass follows the residual, and half the attention,
  with the mean weights of the heads. As a product with a vector it is exact, in linear
  memory.

  Args:
    sown: The collection "importance" of the module that attends.
    mass: Mass of each result. The second half is lost for a query without keys.

  Returns:
    The masses of the queries and of the keys.
  """
  return mass / 2, attention.received_mass(*sown[_ATTENDED], mass) / 2


def forget_attended(module: nn.Module) -> None:
  """Replace the queries and keys sown by attention in a bound module by None.

  They are many times as large as the importance computed from them, and would be
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
