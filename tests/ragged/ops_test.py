"""Properties of every op on ragged arrays, and the table in the docs."""

import doctest

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.ragged import ops
from tests.ragged.ops import (
  FEATURES,
  LENGTHS,
  NUM_EXAMPLES,
  NUM_SLOTS,
  OFFSETS,
  OPS,
  SLOT_EXAMPLES,
  elements_of,
  gradient,
  rows,
  run,
  values_of,
)

EVERY_OP = pytest.mark.parametrize("name", OPS)
SMOOTH = pytest.mark.parametrize("name", [k for k, op in OPS.items() if op.smooth])
# Trailing shapes: none, of as many as there are examples or slots, several, empty.
SHAPES = [(), (NUM_EXAMPLES,), (2, NUM_EXAMPLES), (NUM_SLOTS, 1), (2, 3, 2), (0,)]
REAL = sum(LENGTHS)


def assert_is_the_loop(name, values):
  got = run(name, values)
  for example, length in enumerate(LENGTHS):
    if length:
      want = ops.wanted(name, values, example)
      np.testing.assert_allclose(rows(got, example), want, 1e-4, 1e-5)
    elif OPS[name].per == "example":
      none = rows(run(name, values_of()), example).ravel()[0]
      np.testing.assert_array_equal(rows(got, example), none)


@EVERY_OP
@hypothesis.given(seed=st.integers(0, 2**16), ties=st.booleans())
def test_equals_a_loop_over_examples(name, seed, ties):
  values = values_of(seed)
  assert_is_the_loop(name, np.round(values) if ties else values)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [k for k, op in OPS.items() if not op.flat])
def test_any_trailing_shape(name, shape):
  values = values_of(1, shape)
  got = run(name, values)
  leading = {"example": NUM_EXAMPLES, "element": NUM_SLOTS}[OPS[name].per]
  extra = (2,) if name == "segment_top_k" else ()
  assert got.shape == (leading, *extra, *shape)
  if 0 not in shape:
    assert_is_the_loop(name, values)


@EVERY_OP
@pytest.mark.parametrize("held", [np.nan, np.inf, -np.inf, 1e30])
def test_contents_of_padding_do_not_matter(name, held):
  clean = values_of()
  dirty = clean.copy()
  dirty[REAL:] = held
  got, want = run(name, dirty), run(name, clean)
  np.testing.assert_array_equal(got, want)
  if OPS[name].smooth:
    cotangent = np.ones(got.shape, got.dtype)
    cotangent[~np.isfinite(np.asarray(got))] = 0
    _, of_dirty = gradient(name, dirty, cotangent)
    _, of_clean = gradient(name, clean, cotangent)
    np.testing.assert_array_equal(of_dirty, of_clean)
    np.testing.assert_array_equal(of_dirty[REAL:], 0)


@SMOOTH
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_element_touches_no_other_example(name, bad):
  clean = values_of()
  dirty = clean.copy()
  dirty[5, 1] = bad  # Of the last example.
  cotangent = np.ones_like(run(name, clean))
  cotangent[~np.isfinite(np.asarray(run(name, clean)))] = 0
  got, of_dirty = gradient(name, dirty, cotangent)
  want, of_clean = gradient(name, clean, cotangent)
  for example in (0, 1, 2):
    np.testing.assert_array_equal(rows(got, example), rows(want, example))
  others = SLOT_EXAMPLES != 3
  np.testing.assert_array_equal(of_dirty[others], of_clean[others])
  assert np.isfinite(of_clean).all()


@SMOOTH
def test_a_gradient_that_depends_on_nan_is_nan(name):
  values = values_of()
  values[5, 1] = np.nan
  cotangent = np.ones_like(run(name, values))
  cotangent[~np.isfinite(np.asarray(run(name, values_of())))] = 0
  _, got = gradient(name, values, cotangent)
  own = np.asarray(got)[SLOT_EXAMPLES == 3, 1]
  linear = ("sum", "mean", "sort", "top_k", "cumsum")
  if any(word in name for word in linear) and "log" not in name:
    assert np.isfinite(own).all()  # It does not depend on the values.
  else:
    assert np.isnan(own).any()


@EVERY_OP
@pytest.mark.parametrize("num_slots", [0, 3])
@pytest.mark.parametrize("lengths", [[], [0, 0], [0]])
def test_no_example_and_no_slot(name, num_slots, lengths):
  values = jnp.zeros((num_slots, FEATURES))
  offsets = np.zeros(len(lengths) + 1, np.int32)

  def call(values):
    return OPS[name].call(values, elements_of(values, offsets))

  result = call(values)
  extra = (2,) if name == "segment_top_k" else ()
  leading = {"example": len(lengths), "element": num_slots}[OPS[name].per]
  assert result.shape == (leading, *extra, FEATURES)
  if OPS[name].smooth:
    _, pull = jax.vjp(call, values)
    (got,) = pull(jnp.zeros_like(result))
    np.testing.assert_array_equal(got, np.zeros(values.shape))


@EVERY_OP
def test_derivatives_in_both_modes(name):
  ops.modes(name)


@SMOOTH
def test_forward_mode_by_jacobians(name):
  values = values_of(3)[:, :1]
  settings = {"mode": "forward"} if OPS[name].reverse_only else {}

  def call(values):
    return OPS[name].call(values, elements_of(values), **settings)

  forward = jax.jit(jax.jacfwd(call))(values)
  reverse = jax.jit(jax.jacrev(lambda v: OPS[name].call(v, elements_of(v))))(values)
  np.testing.assert_allclose(forward, reverse, 1e-4, 1e-5)
  along = jax.linearize(call, values)[1](jnp.ones_like(values))
  np.testing.assert_allclose(along, forward.sum((-1, -2)), 1e-4, 1e-5)


@EVERY_OP
def test_batch_mates_do_not_matter_to_a_bit(name):
  # Short and long sets, and what is compiled for both.
  rng = np.random.default_rng(0)
  values = rng.normal(size=(1400, FEATURES)).astype(np.float32)
  places = {"short": (40, 60), "long": (60, 860)}
  mates = [np.array([0, 40, 60, 860, 1300]), np.array([0, 7, 40, 60, 860])]
  results = [np.asarray(run(name, values, offsets)) for offsets in mates]
  for begin, end in places.values():
    parts = []
    for offsets, result in zip(mates, results, strict=True):
      example = int(np.searchsorted(offsets, begin, side="right")) - 1
      by_element = OPS[name].per == "element"
      parts.append(result[begin:end] if by_element else result[example])
    np.testing.assert_array_equal(*parts)


@EVERY_OP
def test_float64_stays_float64(name):
  if name in ops.INDICES or not OPS[name].smooth:
    return
  with jax.enable_x64(True):
    values = values_of().astype(np.float64)
    got = OPS[name].call(jnp.asarray(values), elements_of(values))
    assert got.dtype == jnp.float64
    for example in (0, 2, 3):
      want = ops.wanted(name, values, example)
      np.testing.assert_allclose(rows(got, example), want, 1e-12, 1e-12)


@pytest.mark.slow
@EVERY_OP
def test_the_row_of_the_docs_is_true(name):
  assert ops.row(name) in ops.DOCS.read_text().splitlines()


def test_the_docs_have_a_row_for_every_op_and_no_other():
  table = (
    ops.DOCS.read_text().partition("<!-- table -->")[2].partition("<!-- end -->")[0]
  )
  names = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
  assert names == list(OPS)


def test_the_examples_of_the_docs_run():
  assert doctest.testfile(str(ops.DOCS), module_relative=False).failed == 0


def test_offsets_match_the_lengths():
  np.testing.assert_array_equal(np.diff(OFFSETS), LENGTHS)
