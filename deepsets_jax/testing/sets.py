"""Random sets of elements, and the same sets as ragged arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from deepsets_jax.ragged import Ragged, from_lists

MODALITIES = ("image", "text", "words")
NUM_EXAMPLES = 4
# Width of an element: odd, and small, so that plain loops are quick.
FEATURES = 3
# Four examples of at most six elements fit in both.
SLOTS = (24, 31)

# The elements of each example, `[n, FEATURES]`, by modality.
Sets = Mapping[str, Sequence[np.ndarray]]


def draw_sets(seed: int) -> dict[str, list[np.ndarray]]:
  """Sets of zero to six elements per modality.

  The last example has no element in any modality, and with seed 1 no example has one.
  """
  rng = np.random.default_rng(seed)
  sets = {}
  for name in MODALITIES:
    sizes = rng.integers(0, 7, NUM_EXAMPLES) * (seed != 1)
    sizes[-1] = 0
    sets[name] = [rng.normal(size=(n, FEATURES)).astype(np.float32) for n in sizes]
  return sets


def pack(lists: Sequence[np.ndarray], slots: int = SLOTS[0]) -> Ragged:
  """The elements end to end in a number of slots; padding is zeros."""
  host = from_lists(lists, dtype=np.float32, feature_shape=np.shape(lists[0])[1:])
  padding = np.zeros((slots - host.num_slots, *host.values.shape[1:]), np.float32)
  values = np.concatenate([host.values, padding])
  return Ragged(jnp.asarray(values), jnp.asarray(host.offsets, jnp.int32))


def pack_all(sets: Sets, slots: int = SLOTS[0]) -> dict[str, Ragged]:
  """Every modality of some sets, packed."""
  return {name: pack(lists, slots) for name, lists in sets.items()}


def shuffled(lists: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
  """The same sets with their elements in another order."""
  rng = np.random.default_rng(seed)
  return [rng.permutation(elements, axis=0) for elements in lists]


def without_elements(lists: Sequence[np.ndarray]) -> list[np.ndarray]:
  """As many examples, none with an element."""
  return [elements[:0] for elements in lists]


def assert_close(got, want, property: str, rtol: float = 1e-4, atol: float = 1e-5):
  """Raises an `AssertionError` that begins with the name of a property."""
  np.testing.assert_allclose(
    np.asarray(got), np.asarray(want), rtol, atol, err_msg=property
  )
