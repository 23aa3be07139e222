"""The properties of encoders."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from deepsets_jax.testing import sets as drawn
from deepsets_jax.testing.sets import FEATURES, NUM_EXAMPLES, SLOTS, assert_close


def check_encoder(encoder: type[nn.Module], **settings: Any) -> None:
  """Checks the properties that every encoder of vectors has.

  Args:
    encoder: The class; it is made for elements `[n, FEATURES]` and, where it has a
      field `features`, of that width.
    **settings: Fields of the class that differ from the defaults.

  Raises:
    AssertionError: A property does not hold; the message says which.
  """
  if "features" in encoder.__dataclass_fields__:
    settings = {"features": FEATURES} | settings
  module = encoder(**settings)
  first = drawn.pack(drawn.draw_sets(0)["image"])
  params = module.init(jax.random.key(0), first, train=False)
  apply = jax.jit(functools.partial(module.apply, train=False))
  gradient_of = jax.jit(
    jax.grad(lambda v, one: jnp.sin(apply(params, one.replace(values=v)).values).sum())
  )
  for seed in range(10):
    lists = drawn.draw_sets(seed)["image"]
    packed = drawn.pack(lists)
    out = apply(params, packed)
    assert out.values.dtype == jnp.float32, f"values are {out.values.dtype}"
    message = "an encoder changes the number of elements of an example"
    np.testing.assert_array_equal(out.offsets, packed.offsets, message)
    got = out.to_lists()
    larger = apply(params, drawn.pack(lists, SLOTS[1])).to_lists()
    others = drawn.draw_sets(seed + 1)["image"]
    mixed = apply(params, drawn.pack([lists[0], *others[1:]])).to_lists()
    for i in range(NUM_EXAMPLES):
      message = "the number of slots matters: padding takes part"
      assert_close(larger[i], got[i], message)
    assert_close(mixed[0], got[0], "the other examples of the batch matter")
    gradient = np.asarray(gradient_of(packed.values, packed))
    assert np.isfinite(gradient).all(), "a gradient is not finite"
