"""The properties of pools."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from deepsets_jax.ragged import pooling
from deepsets_jax.testing import sets as drawn
from deepsets_jax.testing.sets import SLOTS, assert_close


def check_pool(
  pool: pooling.Pool, reference: Callable[[np.ndarray], np.ndarray] | None = None
) -> None:
  """Checks the properties that every pool has.

  Args:
    pool: The pool.
    reference: The pooled value of the elements `[n, d]` of one example, n > 0, in
      numpy; None leaves this property out.

  Raises:
    AssertionError: A property does not hold; the message says which.
  """
  pooled = jax.jit(lambda modalities: pooling.pool(pool, modalities))
  total = jax.jit(
    jax.grad(lambda v, one: jnp.sin(pooling.pool(pool, one.replace(values=v))).sum())
  )
  for seed in range(10):
    sets = drawn.draw_sets(seed)
    got = np.asarray(pooled(drawn.pack_all(sets)))
    together = [np.concatenate(lists) for lists in zip(*sets.values(), strict=True)]
    # The same elements in one modality: `merge` over modalities is that over elements.
    joined = np.asarray(pooled({"all": drawn.pack(together, 3 * SLOTS[0])}))
    assert_close(got, joined, "merging modalities differs from joining their elements")
    other = {k: drawn.shuffled(v, seed) for k, v in sets.items()}
    message = "the order of elements matters"
    assert_close(pooled(drawn.pack_all(other)), got, message)
    message = "the number of slots matters: padding takes part"
    assert_close(pooled(drawn.pack_all(sets, SLOTS[1])), got, message)
    empty = np.array([not len(elements) for elements in together])
    assert not got[empty].any(), "an example without elements does not pool to 0"
    if reference is not None and not empty.all():
      want = [reference(elements) for elements in together if len(elements)]
      message = "the result is not that of the reference"
      assert_close(got[~empty], want, message, atol=1e-4)
    one = drawn.pack(together, 3 * SLOTS[0])
    gradient = np.asarray(total(one.values, one))
    assert np.isfinite(gradient).all(), "a gradient is not finite"
    assert not gradient[~np.asarray(one.mask)].any(), "padding has a gradient"
