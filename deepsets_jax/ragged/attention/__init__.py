"""Attention inside the segments of a flat array, without padding to a longest one.

A segment's queries see the keys of the same segment. Segments of similar length are
taken together, a group at a time, as small dense tiles; a segment longer than a tile
is cut into blocks, whose softmax is put together as it goes (Rabe and Staats, 2021;
Dao et al., 2022). Loops run as often as the batch at hand needs, so that the cost is
that of the pairs inside segments, one compiled shape serves all batches, and nothing
larger than a few tiles is ever held; the backward pass computes them again.

A NaN makes NaN of what depends on it: of nothing in other segments, and of nothing of
a query that a mask hides it from. A softmax over logits that are all -inf is NaN, as in
`jax.nn.softmax`. What padding slots hold does not matter.

The plan of a batch, which group holds which segments, is built once and shared by all
layers. A kernel for a GPU or a TPU would take the place of the two functions of
`passes.py` that see a plan and flat arrays only.
"""

from deepsets_jax.ragged.attention.op import attend, received
from deepsets_jax.ragged.attention.plans import Plan, plan, uncounted_flops

__all__ = ["Plan", "attend", "plan", "received", "uncounted_flops"]
