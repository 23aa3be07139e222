"""The properties that fusions, pools and encoders promise, to check one of your own.

The package's own components pass the same checks. Each raises an `AssertionError` that
names the property and shows the numbers.
"""

from deepsets_jax.testing.encoders import check_encoder
from deepsets_jax.testing.fusions import FUSION_PROPERTIES, check_fusion
from deepsets_jax.testing.pools import check_pool
from deepsets_jax.testing.sets import FEATURES, MODALITIES

__all__ = [
  "FEATURES",
  "FUSION_PROPERTIES",
  "MODALITIES",
  "check_encoder",
  "check_fusion",
  "check_pool",
]
