"""Fusions: from a dictionary of encoded modalities to one vector per example."""

from collections.abc import Mapping

from deepsets_jax.fusion.base import Fusion
from deepsets_jax.fusion.bottleneck import BottleneckFusion
from deepsets_jax.fusion.concat import ConcatFusion
from deepsets_jax.fusion.gated import GatedFusion
from deepsets_jax.fusion.hierarchical import HierarchicalFusion
from deepsets_jax.fusion.low_rank import LowRankFusion
from deepsets_jax.fusion.mil import MILFusion
from deepsets_jax.fusion.set_pool import SetPoolFusion
from deepsets_jax.fusion.set_transformer import SetTransformerFusion
from deepsets_jax.fusion.single_stream import SingleStreamFusion
from deepsets_jax.fusion.torchmultimodal import TorchMultimodalFusion
from deepsets_jax.fusion.two_stage import TwoStageFusion

# Keys are the names in `config.model.fusion`; `config.model.<name>` has the settings.
FUSIONS: Mapping[str, type[Fusion]] = {
  "bottleneck": BottleneckFusion,
  "concat": ConcatFusion,
  "gated": GatedFusion,
  "hierarchical": HierarchicalFusion,
  "low_rank": LowRankFusion,
  "mil": MILFusion,
  "set_pool": SetPoolFusion,
  "set_transformer": SetTransformerFusion,
  "single_stream": SingleStreamFusion,
  "two_stage": TwoStageFusion,
  "torchmultimodal": TorchMultimodalFusion,
}
