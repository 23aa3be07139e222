import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from deepsets_jax import ragged
from deepsets_jax.models.mmt import frames
from deepsets_jax.ragged import Ragged

SLOTS, LIMIT = 24, 3
# What the public code, gabeur/mmt at 8f53717, leaves out of so many frames for 30.
LEFT_OUT = {
  31: [12],
  47: [0, 1, 3, 6, 7, 9, 12, 19, 21, 23, 24, 35, 36, 38, 39, 44, 46],
}

lengths = st.lists(st.integers(0, 6), min_size=4, max_size=4)


def of_lengths(lengths):
  offsets = np.cumsum([0, *lengths])
  values = np.where(np.arange(SLOTS) < offsets[-1], np.arange(1, SLOTS + 1), 0)
  return Ragged(
    jnp.asarray(values[:, None], jnp.float32),
    jnp.asarray(offsets, jnp.int32),
    times=jnp.asarray(values, jnp.float32),
  )


def kept(elements, keep):
  """The positions of the kept elements of each example."""
  offsets = np.asarray(elements.offsets)
  assert not np.asarray(keep)[offsets[-1] :].any()
  return [
    np.nonzero(np.asarray(keep)[a:z])[0].tolist()
    for a, z in itertools.pairwise(offsets)
  ]


@hypothesis.given(lengths)
def test_keep_evenly_keeps_as_many_as_allowed_and_spreads_them(lengths):
  elements = of_lengths(lengths)
  keep = jax.jit(frames.keep_evenly, static_argnums=1)(elements, LIMIT)
  for places, length in zip(kept(elements, keep), lengths, strict=True):
    assert len(places) == min(length, LIMIT)
    gaps = np.diff([-1, *places])
    assert not places or gaps.max() - gaps.min() <= 1


@hypothesis.given(lengths, st.integers(0, 99))
def test_random_choice_keeps_as_many_as_allowed(lengths, seed):
  elements = of_lengths(lengths)
  keep = jax.jit(ragged.sample_mask, static_argnums=2)(
    jax.random.key(seed), elements, LIMIT
  )
  got = [len(places) for places in kept(elements, keep)]
  assert got == [min(n, LIMIT) for n in lengths]


def test_random_choice_keeps_all_elements_equally_often():
  elements = of_lengths([6, 0, 2, 5])
  keys = jax.random.split(jax.random.key(0), 2000)
  keep = jax.vmap(lambda key: ragged.sample_mask(key, elements, LIMIT))(keys)
  want = [1 / 2] * 6 + [1.0] * 2 + [3 / 5] * 5 + [0.0] * 11
  np.testing.assert_allclose(np.asarray(keep).mean(0), want, atol=0.05)


def test_frames_are_kept_as_published():
  for length, left_out in LEFT_OUT.items():
    keep = frames.keep_as_published(np.array([0, 2, 2, 2 + length]), length + 9, 30)
    want = [i for i in range(length) if i not in left_out]
    np.testing.assert_array_equal(np.nonzero(keep)[0], [0, 1, *np.array(want) + 2])


@hypothesis.given(lengths, st.integers(0, 99))
def test_select_keeps_the_first_of_each_example_with_their_times(lengths, seed):
  elements = of_lengths(lengths)
  keep = np.random.default_rng(seed).uniform(size=SLOTS) < 0.7
  got = jax.jit(frames.select, static_argnums=2)(elements, keep, LIMIT)
  assert got.num_slots == 4 * LIMIT
  offsets = np.asarray(elements.offsets)
  for i, values in enumerate(got.to_lists()):
    mine = np.arange(offsets[i], offsets[i + 1])
    np.testing.assert_array_equal(values[:, 0], (mine + 1)[keep[mine]][:LIMIT])
  np.testing.assert_array_equal(got.times, got.values[:, 0])
  assert not np.asarray(got.values)[int(got.offsets[-1]) :].any()


def test_times_are_counted_in_windows_from_two():
  times = jnp.array([0.0, 1.9, 2.0, 5.0, 1e9, jnp.inf, -1.0, jnp.nan])
  elements = Ragged(jnp.zeros((8, 1)), jnp.array([0, 8]), times=times)
  got = frames.time_places(elements, 2.0, 32)
  np.testing.assert_array_equal(got, [2, 2, 3, 4, 31, 31, 1, 1])
  unknown = frames.time_places(elements.replace(times=None), 2.0, 32)
  np.testing.assert_array_equal(unknown, [1] * 8)
