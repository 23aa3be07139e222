"""Attention inside the segments of a flat array, without padding to the longest.

`attend` is the public op (`op.py`); `plan` groups the segments of a batch, once for all
layers. A query sees the keys of its own segment. Segments of similar length are
computed together, one group at a time, as small dense tiles. A segment longer than a
tile is cut into blocks, whose softmax is combined block by block (Rabe and Staats,
2021; Dao et al., 2022). The loops run as often as the batch needs. Therefore the cost
is that of the pairs inside segments, one compiled shape serves all batches, and nothing
larger than a few tiles is ever held; the backward pass computes the tiles again.

A NaN changes only what depends on it: nothing in other segments, and nothing of a query
that cannot see it because of a mask. A softmax over logits that are all -inf is NaN, as
in `jax.nn.softmax`. The contents of padding slots do not matter.

  plan = attention.plan(offsets, offsets, longest, longest)
  out = attention.attend(q, k, v, plan)
"""

from deepsets_jax.ragged.attention.op import attend, received_mass
from deepsets_jax.ragged.attention.plans import Plan, plan, uncounted_flops

__all__ = ["Plan", "attend", "plan", "received_mass", "uncounted_flops"]
