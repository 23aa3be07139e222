"""Fusions: a dictionary of encoded modalities to one vector per example."""

from collections.abc import Mapping

from deepsets_jax.fusion.base import Fusion
from deepsets_jax.fusion.concat import ConcatFusion
from deepsets_jax.fusion.set_pool import SetPoolFusion

# By the name in `config.model.fusion`, which is also that of its settings.
FUSIONS: Mapping[str, type[Fusion]] = {
  "concat": ConcatFusion,
  "set_pool": SetPoolFusion,
}
