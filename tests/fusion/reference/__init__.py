"""Every fusion with a loop over examples in numpy, for `fusion_test`.

A module of this folder gives `FUSIONS`: by a name the fusion and the same in numpy, a
function of (params, sets) to `[f]`, where `sets` is one example's `[n, FEATURES]` by
modality. Where the fusion attends, `ATTENTION` gives the weights of that example's
elements, `[n]` by modality, from the same arguments.
"""

from tests.fusion.reference import (
  bottleneck,
  concat,
  gated,
  hierarchical,
  low_rank,
  mil,
  set_pool,
  set_transformer,
  torchmultimodal,
  transformer,
)

FUSIONS = (
  transformer.FUSIONS | set_pool.FUSIONS | concat.FUSIONS | torchmultimodal.FUSIONS
)
FUSIONS |= gated.FUSIONS | low_rank.FUSIONS | mil.FUSIONS
FUSIONS |= bottleneck.FUSIONS | hierarchical.FUSIONS | set_transformer.FUSIONS

ATTENTION = (
  transformer.ATTENTION
  | set_pool.ATTENTION
  | torchmultimodal.ATTENTION
  | mil.ATTENTION
  | bottleneck.ATTENTION
  | hierarchical.ATTENTION
  | set_transformer.ATTENTION
)

# These take long to compile, and the quick tests have another variant of the same class
# or of its parts.
SLOW = {"single stream, all", "set transformer, SAB", "bottleneck"}

# Fusions with exponentials or matrix products over elements of several modalities. In
# compiled code an absent modality may change their last bits, because XLA's rounding
# depends on the program.
ROUNDED = {"softmax", *mil.FUSIONS, *transformer.FUSIONS, *hierarchical.FUSIONS}
