import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax import fusion
from deepsets_jax.ragged import pooling
from deepsets_jax.ragged.max_shares import max_shares
from tests.sets import FEATURES, NUM_EXAMPLES, pack, set_lists

NAMES = ("a", "b")


def shares_loop(sets, pool):
  """Return the shares of one example's elements, by a loop over features."""
  won = {name: np.zeros(len(values)) for name, values in sets.items()}
  rows = [(name, i) for name, values in sets.items() for i in range(len(values))]
  for feature in range(FEATURES if rows else 0):
    of_rows = [sets[name][i, feature] for name, i in rows]
    best = {"max": max, "min": min}[pool](of_rows)
    winning = [row for row, x in zip(rows, of_rows, strict=True) if x == best]
    for name, i in winning:
      won[name][i] += 1 / len(winning) / FEATURES
  return won


def joined(sets, loop, budget=24):
  """Apply a loop to each example, and pack the results; padding is 0."""
  rows = [loop({k: v[i] for k, v in sets.items()}) for i in range(NUM_EXAMPLES)]
  parts = {k: np.concatenate([row[k] for row in rows]) for k in sets}
  return {k: np.pad(x, (0, budget - len(x))) for k, x in parts.items()}


@functools.partial(jax.jit, static_argnums=0)
def shares(pool, elements):
  return max_shares(elements, pooling.pool(pool, elements))


@pytest.mark.parametrize("pool", ["max", "min"])
@hypothesis.given(first=set_lists(ties=True), second=set_lists(ties=True))
def test_shares_equal_a_loop_and_ties_share_equally(pool, first, second):
  sets = {"a": first, "b": second}
  elements = {name: pack(lists) for name, lists in sets.items()}
  got = shares(pool, elements)
  want = joined(sets, functools.partial(shares_loop, pool=pool))
  for name in NAMES:
    assert got[name].dtype == jnp.float32
    np.testing.assert_allclose(got[name], want[name], 1e-6)


def test_ties_are_found_in_float32_for_bfloat16():
  elements = {"a": pack([[[1, 2, 3], [1, 2, 0]]] + [np.zeros((0, 3))] * 3)}
  elements["a"] = elements["a"].replace(
    values=elements["a"].values.astype(jnp.bfloat16)
  )
  got = shares("max", elements)["a"]
  np.testing.assert_allclose(got[:3], [2 / 3, 1 / 3, 0], 1e-6)


@functools.partial(jax.jit, static_argnames=("pools", "normalize"))
def sown(elements, pools, normalize=False):
  module = fusion.SetPoolFusion(NAMES, FEATURES, pools=pools, normalize=normalize)
  variables = module.init(jax.random.key(0), elements, train=False)
  _, updated = module.apply(variables, elements, train=False, mutable=["importance"])
  return updated.get("importance", {})


@hypothesis.given(first=set_lists(ties=True), second=set_lists(ties=True))
def test_a_set_pool_sows_the_mean_share_of_its_max_and_min(first, second):
  sets = {"a": first, "b": second}
  elements = {name: pack(lists) for name, lists in sets.items()}
  got = sown(elements, pools=("max", "sum", "min"))["argmax"]
  of_max, of_min = (
    joined(sets, functools.partial(shares_loop, pool=pool)) for pool in ("max", "min")
  )
  for name in NAMES:
    np.testing.assert_allclose(got[name], (of_max[name] + of_min[name]) / 2, 1e-6)


def test_shares_are_of_normalized_elements():
  # Without normalization the first vector is larger in every feature.
  elements = {"a": pack([[[8, 8, 9], [0, 0, 7]]] + [np.zeros((0, 3))] * 3)}
  got = sown(elements, pools=("max",), normalize=True)["argmax"]["a"]
  np.testing.assert_allclose(got[:3], [2 / 3, 1 / 3, 0], 1e-6)


def test_shares_are_sown_only_for_max_and_min():
  elements = {"a": pack([np.ones((1, FEATURES))] * NUM_EXAMPLES)}
  assert "argmax" not in sown(elements, pools=("sum", "softmax"))
  assert set(sown(elements, pools=("max", "softmax"))) == {"argmax", "attention"}
