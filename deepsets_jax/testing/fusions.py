"""The properties of fusions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from deepsets_jax.fusion import Fusion
from deepsets_jax.ragged import Ragged
from deepsets_jax.testing import sets as drawn
from deepsets_jax.testing.sets import FEATURES, MODALITIES, SLOTS, Sets, assert_close

# (parameters, the elements `[n, FEATURES]` of one example by modality) -> `[f]`.
Reference = Callable[[PyTree, Mapping[str, np.ndarray]], np.ndarray]


class Fused:
  """A fusion with its initial parameters and one compiled function.

  Args:
    fusion: The module, of `MODALITIES` and `FEATURES`.
    reference: The same as a plain loop, or None.
    exact: Whether the compiled fusion is exact about absence, see
      `takes_absence_as_absence`.
  """

  def __init__(
    self,
    fusion: nn.Module,
    reference: Reference | None = None,
    *,
    exact: bool = False,
  ):
    self.fusion, self.reference, self.exact = fusion, reference, exact
    packed = drawn.pack_all(drawn.draw_sets(0))
    variables = fusion.init(jax.random.key(0), packed, train=False)
    self.params = _with_noise(variables.get("params", {}))
    self.apply = jax.jit(functools.partial(_apply, fusion))
    self.gradients = jax.jit(jax.grad(functools.partial(_total, fusion), argnums=1))

  def __call__(self, sets: Sets, slots: int = SLOTS[0]) -> np.ndarray:
    """The fused vectors of some sets, `[b, f]`."""
    return np.asarray(self.apply(self.params, drawn.pack_all(sets, slots)))


def _with_noise(params: PyTree) -> PyTree:
  """Parameters as after training: biases and gates that begin at 0 hide defects."""
  rng = np.random.default_rng(0)

  def add(x: Array) -> Array:
    return x + jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype)

  return jax.tree.map(add, params)


def _apply(
  fusion: nn.Module, params: PyTree, modalities: Mapping[str, Ragged]
) -> Array:
  return fusion.apply({"params": params}, modalities, train=False)


def _total(fusion: nn.Module, params: PyTree, values: PyTree, packed: PyTree) -> Array:
  replaced = {k: v.replace(values=values[k]) for k, v in packed.items()}
  return jnp.sin(_apply(fusion, params, replaced)).sum()


def agrees_with_the_reference(fused: Fused, sets: Sets, seed: int) -> None:
  """The result is that of a plain loop over examples."""
  if fused.reference is None:
    return
  params = jax.device_get(fused.params)
  want = [
    fused.reference(params, {k: v[i] for k, v in sets.items()})
    for i in range(drawn.NUM_EXAMPLES)
  ]
  assert_close(fused(sets), want, "the result is not that of the reference", atol=1e-4)


def has_one_vector_per_example(fused: Fused, sets: Sets, seed: int) -> None:
  """The result is `[b, f]`."""
  shape = fused(sets).shape
  message = f"the result has the shape {shape}, expected ({drawn.NUM_EXAMPLES}, f)"
  assert len(shape) == 2 and shape[0] == drawn.NUM_EXAMPLES, message


def is_float32(fused: Fused, sets: Sets, seed: int) -> None:
  """Parameters and results are float32."""
  leaves = jax.tree.leaves((fused.params, fused(sets)))
  found = {str(leaf.dtype) for leaf in leaves}
  assert found == {"float32"}, f"parameters or results are {found}, not float32"


def ignores_the_order_of_elements(fused: Fused, sets: Sets, seed: int) -> None:
  """The order of the elements of an example does not matter."""
  other = {k: drawn.shuffled(v, seed) for k, v in sets.items()}
  assert_close(fused(other), fused(sets), "the order of elements matters")


def ignores_the_order_of_modalities(fused: Fused, sets: Sets, seed: int) -> None:
  """The order of the modalities in the dictionary does not matter."""
  with jax.disable_jit():  # A compiled function gets its dictionaries sorted.
    got, want = fused(dict(reversed(sets.items()))), fused(sets)
  np.testing.assert_array_equal(got, want, "the order of modalities matters")


def ignores_the_number_of_slots(fused: Fused, sets: Sets, seed: int) -> None:
  """The number of element slots of a batch does not matter."""
  a, b = (fused(sets, slots) for slots in SLOTS)
  assert_close(a, b, "the number of slots matters: padding takes part", 1e-5, 1e-6)


def ignores_batch_mates(fused: Fused, sets: Sets, seed: int) -> None:
  """The other examples of a batch do not matter."""
  others = drawn.draw_sets(seed + 1)
  mixed = {k: [sets[k][0], *others[k][1:]] for k in sets}
  message = "the other examples of the batch matter"
  assert_close(fused(mixed)[0], fused(sets)[0], message, 1e-5, 1e-6)


def takes_absence_as_absence(fused: Fused, sets: Sets, seed: int) -> None:
  """A modality without elements equals one that is not in the dictionary.

  Compiled, the two are different programs, and XLA may round a fused exponential or a
  matrix product differently in them; without such operations they agree to the bit.
  """
  gone = MODALITIES[seed % len(MODALITIES)]
  absent = {**sets, gone: drawn.without_elements(sets[gone])}
  undeclared = {k: v for k, v in sets.items() if k != gone}
  message = "a modality without elements differs from one that is not there"
  got, want = fused(absent), fused(undeclared)
  if fused.exact:
    np.testing.assert_array_equal(got, want, message)
  else:
    # Four units in the last place of the largest feature.
    largest = float(np.abs(want).max(initial=1e-3))
    assert_close(got, want, message, 1e-6, 4 * np.finfo(np.float32).eps * largest)


def is_exact_about_absence(fused: Fused, sets: Sets, seed: int) -> None:
  """Operation by operation, an absent modality changes no bit."""
  gone = MODALITIES[seed % len(MODALITIES)]
  absent = {**sets, gone: drawn.without_elements(sets[gone])}
  undeclared = {k: v for k, v in sets.items() if k != gone}
  with jax.disable_jit():
    got, want = fused(absent), fused(undeclared)
  message = "a modality without elements changes the last bits"
  np.testing.assert_array_equal(got, want, message)


def has_finite_gradients(fused: Fused, sets: Sets, seed: int) -> None:
  """Gradients are finite, and zero on padding."""
  packed = drawn.pack_all(sets)
  values = {k: v.values for k, v in packed.items()}
  for key, gradient in fused.gradients(fused.params, values, packed).items():
    assert np.isfinite(gradient).all(), f"a gradient of {key!r} is not finite"
    padding = np.asarray(gradient)[~np.asarray(packed[key].mask)]
    assert not padding.any(), f"padding of {key!r} has a gradient"


# How many draws of sets each property is checked on: what compiles again for each
# draw, or has no use for other sets, gets one.
FUSION_PROPERTIES: Mapping[Callable[[Fused, Sets, int], None], int] = {
  has_one_vector_per_example: 1,
  agrees_with_the_reference: 20,
  is_float32: 1,
  ignores_the_order_of_elements: 20,
  ignores_the_order_of_modalities: 3,
  ignores_the_number_of_slots: 20,
  ignores_batch_mates: 20,
  takes_absence_as_absence: 20,
  is_exact_about_absence: 5,
  has_finite_gradients: 20,
}


def check_fusion(
  fusion: type[nn.Module], reference: Reference | None = None, **settings: Any
) -> None:
  """Checks the properties that every fusion has.

  Args:
    fusion: The class; it is made for the modalities `MODALITIES` of width `FEATURES`.
    reference: A plain loop with the same result: (parameters, the elements
      `[n, FEATURES]` of one example by modality) -> `[f]`, in numpy. None leaves this
      property out.
    **settings: Fields of the class that differ from the defaults.

  Raises:
    AssertionError: A property does not hold; the message says which.
  """
  assert issubclass(fusion, Fusion), f"{fusion.__name__} is not a subclass of Fusion"
  fused = Fused(fusion(modalities=MODALITIES, features=FEATURES, **settings), reference)
  for check in FUSION_PROPERTIES:
    check_property(check, fused)


def check_property(check: Callable[[Fused, Sets, int], None], fused: Fused) -> None:
  """Checks one of `FUSION_PROPERTIES` on all of its draws."""
  for seed in range(FUSION_PROPERTIES[check]):
    check(fused, drawn.draw_sets(seed), seed)
