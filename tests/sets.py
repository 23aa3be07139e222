"""Sets for tests: random lists of elements, and the same sets packed."""

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np

from deepsets_jax import ragged
from deepsets_jax.testing.sets import FEATURES, NUM_EXAMPLES, shuffled
from deepsets_jax.testing.sets import MODALITIES as NAMES
from deepsets_jax.testing.sets import SLOTS as BUDGETS

__all__ = [
  "BUDGETS",
  "FEATURES",
  "NAMES",
  "NUM_EXAMPLES",
  "pack",
  "set_lists",
  "shuffled",
]


@st.composite
def set_lists(draw, ties: bool = False):
  """Four lists of zero to six elements of three features, each `[n, 3]`.

  With `ties`, features are small integers, so that many elements are equal.
  """
  sizes = draw(
    st.lists(st.integers(0, 6), min_size=NUM_EXAMPLES, max_size=NUM_EXAMPLES)
  )
  rng = np.random.default_rng(draw(st.integers(0, 2**16)))
  lists = [rng.normal(size=(n, FEATURES)) for n in sizes]
  if ties:
    lists = [np.round(elements) for elements in lists]
  return [elements.astype(np.float32) for elements in lists]


def pack(lists, budget: int = BUDGETS[0], dtype=jnp.float32) -> ragged.Ragged:
  """The lists end to end in `budget` slots, on the device; padding is zeros."""
  host = ragged.from_lists(
    lists, dtype=np.float32, feature_shape=np.shape(lists[0])[1:]
  )
  padding = np.zeros((budget - host.num_slots, *host.values.shape[1:]), np.float32)
  return ragged.Ragged(
    values=jnp.asarray(np.concatenate([host.values, padding]), dtype),
    offsets=jnp.asarray(host.offsets, jnp.int32),
  )
