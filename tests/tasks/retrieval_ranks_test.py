import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax.ragged import from_lists
from deepsets_jax.tasks.retrieval import blocks, ranks

# Few shapes: neither number is a multiple of its block, and 19 users are three blocks.
USERS, ITEMS, WIDTH = 19, 37, 3
BLOCKS = {"user_block": 8, "item_block": 10}


def rank_loop(scores, targets, seen):
  """Mean rank, from 0, of all candidates that tie with each target."""
  found = []
  for row, own, out in zip(scores, targets, seen, strict=True):
    candidates = [i for i in range(len(row)) if i not in out or i in own]
    ordered = sorted((row[i] for i in candidates), reverse=True)
    for target in own:
      places = [place for place, score in enumerate(ordered) if score == row[target]]
      found.append(np.mean(places))
  return np.array(found)


def row_lists(rng, longest, users=USERS, items=ITEMS):
  """Item rows per user, some of them twice, and often none."""
  lengths = rng.integers(0, longest + 1, users)
  return [rng.integers(0, items, n) for n in lengths]


def ragged(lists):
  return from_lists(lists, dtype=np.int32)


@st.composite
def cases(draw):
  """Vectors of small integers, whose products are exact and often tie; row lists."""
  rng = np.random.default_rng(draw(st.integers(0, 2**16)))
  users = rng.integers(-2, 3, (USERS, WIDTH)).astype(np.float32)
  items = rng.integers(-2, 3, (ITEMS, WIDTH)).astype(np.float32)
  targets = row_lists(rng, draw(st.sampled_from([1, 3, 20])))
  seen = row_lists(rng, draw(st.sampled_from([0, 5, 60])))
  # Some click again what they have seen.
  again = [s[:1] if rng.uniform() < 0.5 else s[:0] for s in seen]
  targets = [np.concatenate(pair) for pair in zip(targets, again, strict=True)]
  return users, items, targets, seen


@hypothesis.given(cases())
def test_ranks_equal_a_loop(case):
  users, items, targets, seen = case
  want = rank_loop(users @ items.T, targets, seen)
  lists = ragged(targets), ragged(seen)
  np.testing.assert_array_equal(ranks.of_scores(users @ items.T, *lists), want)
  np.testing.assert_array_equal(ranks.of_vectors(users, items, *lists, **BLOCKS), want)


class TestVectors:
  def test_equal_vectors_tie_at_any_position(self):
    rng = np.random.default_rng(0)
    for width in (7, 64):
      # Five different items, and two users of which one sums without cancelling.
      kinds = rng.integers(0, 5, 300)
      different = rng.normal(size=(5, width)).astype(np.float32)
      users = rng.normal(size=(20, width)).astype(np.float32)
      users[10:], different[:2] = np.abs(users[10:]), np.abs(different[:2])
      exact = users.astype(np.float64) @ different.astype(np.float64).T
      targets, seen = row_lists(rng, 3, 20, 300), row_lists(rng, 30, 20, 300)
      got = ranks.of_vectors(
        users, different[kinds], ragged(targets), ragged(seen), item_block=128
      )
      want = rank_loop(exact[:, kinds], targets, seen)
      np.testing.assert_array_equal(got, want)

  def test_the_tolerance_is_a_few_last_bits(self):
    # In one dimension: of products 1 and 100 epsilons away one ties, one is better.
    step = np.finfo(np.float32).eps
    items = np.array([[1], [1 + step], [1 + 100 * step], [1 - 100 * step]], np.float32)
    targets = ragged([[0]])
    got = ranks.of_vectors(np.ones((1, 1), np.float32), items, targets)
    np.testing.assert_array_equal(got, [1.5])
    assert ranks.tolerance(1) == 2 * step

  def test_blocks_do_not_matter(self):
    rng = np.random.default_rng(1)
    users = rng.normal(size=(USERS, WIDTH)).astype(np.float32)
    items = rng.normal(size=(ITEMS, WIDTH)).astype(np.float32)
    lists = ragged(row_lists(rng, 2)), ragged(row_lists(rng, 20))
    want = ranks.of_scores(users @ items.T, *lists)
    for sizes in ({}, BLOCKS, {"user_block": 1, "item_block": 1}):
      got = ranks.of_vectors(users, items, *lists, **sizes)
      np.testing.assert_array_equal(got, want)

  def test_blocks_and_data_sets_of_one_shape_are_compiled_once(self, monkeypatch):
    traces, scores = [], blocks.scores

    def counted(*args):
      traces.append(args)
      return scores(*args)

    monkeypatch.setattr(blocks, "scores", counted)
    counts = []
    for seed in range(3):
      rng = np.random.default_rng(seed)
      seen = ragged([rng.choice(50, 5, replace=False) for _ in range(40)])
      vectors = rng.normal(size=(40, 2)), rng.normal(size=(50, 2))
      targets = ragged([[user] for user in range(40)])
      ranks.of_vectors(*vectors, targets, seen, user_block=8, item_block=20)
      counts.append(len(traces))
    assert counts[0] == counts[-1] > 0

  def test_a_million_items_need_the_memory_of_a_few_blocks(self):
    items = jax.ShapeDtypeStruct((1_000_000, 256), np.float32)
    users, targets = np.zeros((256, 256), np.float32), np.zeros((256, 1), np.int32)
    pairs = np.zeros(64, np.int32)
    pairs = blocks.ExcludedPairs(pairs, pairs, np.zeros(123, np.int32), 32)
    run = ranks._twice_the_ranks.lower(users, items, pairs, targets, item_block=8192)
    block = 4 * (256 + 256) * 8192  # Bytes of its scores and vectors.
    assert run.compile().memory_analysis().temp_size_in_bytes < 2 * block

  def test_items_of_low_precision_are_multiplied_in_float32(self):
    rng = np.random.default_rng(3)
    users = rng.normal(size=(USERS, WIDTH)).astype(np.float32)
    items = jnp.asarray(rng.normal(size=(ITEMS, WIDTH)), jnp.bfloat16)
    targets = ragged([[user] for user in range(USERS)])
    got = ranks.of_vectors(users, items, targets, **BLOCKS)
    want = ranks.of_scores(users @ np.asarray(items).astype(np.float32).T, targets)
    np.testing.assert_array_equal(got, want)

  def test_a_user_without_direction_ties_with_all(self):
    users, items = np.zeros((1, WIDTH)), np.ones((5, WIDTH))
    got = ranks.of_vectors(users, items, ragged([[3]]), ragged([[0]]), item_block=2)
    np.testing.assert_array_equal(got, [1.5])

  def test_no_targets_have_no_ranks(self):
    users, items = np.ones((2, WIDTH)), np.ones((5, WIDTH))
    assert ranks.of_vectors(users, items, ragged([[], []])).shape == (0,)
    assert ranks.of_vectors(users[:0], items, ragged([])).shape == (0,)
    assert ranks.of_scores(users @ items.T, ragged([[], []])).shape == (0,)


class TestSampled:
  def test_among_all_other_items_it_is_the_full_ranking(self):
    # As many as there are: then none is drawn twice, and none that is seen.
    rng = np.random.default_rng(0)
    users = rng.integers(-2, 3, (USERS, WIDTH)).astype(np.float32)
    items = rng.integers(-2, 3, (ITEMS, WIDTH)).astype(np.float32)
    picked = [rng.permutation(ITEMS) for _ in range(USERS)]
    lists = ragged([p[:1] for p in picked]), ragged([p[1:8] for p in picked])
    want = ranks.of_scores(users @ items.T, *lists)
    for scores in (users @ items.T, (users, items)):
      got = ranks.among_sampled(scores, *lists, n=ITEMS - 8)
      np.testing.assert_array_equal(got, want)

  def test_every_free_item_is_equally_likely(self):
    # Of 30 items 24 are free, and one of them is better than the target.
    users = 4000
    targets, seen = ragged([[29]] * users), ragged([[0, 4, 5, 17, 28]] * users)
    for better in (1, 3, 6, 16, 27):
      scores = np.zeros(30)
      scores[29], scores[better] = 1, 2
      got = ranks.among_sampled(np.tile(scores, (users, 1)), targets, seen, n=6)
      assert set(got) == {0, 1}
      assert abs(got.mean() - 6 / 24) < 4 * np.sqrt(0.25 * 0.75 / users)

  def test_a_sample_depends_on_the_seed_and_the_user_only(self):
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(USERS, ITEMS))
    targets = [[user] for user in range(USERS)]
    every = ranks.among_sampled(scores, ragged(targets), n=5, seed=3)
    some = np.array([2, 17, 4])
    alone = ranks.among_sampled(
      scores[some], ragged([targets[i] for i in some]), n=5, seed=3, user_rows=some
    )
    np.testing.assert_array_equal(alone, every[some])
    other = ranks.among_sampled(scores, ragged(targets), n=5, seed=4)
    assert (every != other).any()

  def test_targets_of_a_user_are_not_ranked_among_each_other(self):
    scores = np.array([[5, 4, 3, 0, 0, 0]])
    got = ranks.among_sampled(scores, ragged([[0, 1, 2]]), n=3)
    np.testing.assert_array_equal(got, [0, 0, 0])

  def test_equal_vectors_tie(self):
    rng = np.random.default_rng(2)
    users = rng.normal(size=(9, 64)).astype(np.float32)
    items = np.tile(rng.normal(size=(1, 64)).astype(np.float32), (30, 1))
    got = ranks.among_sampled((users, items), ragged([[7]] * 9), n=20)
    np.testing.assert_array_equal(got, np.full(9, 10))


class TestBadInput:
  def test_is_named_with_its_place(self):
    scores, targets = np.zeros((2, 4)), ragged([[1], [2]])
    nan = np.array([[0, 0, 0, 0], [0, 0, np.nan, 0]])
    for error, run in (
      (
        "targets has 2 lists for 3 users",
        lambda: ranks.of_scores(nan[[0] * 3], targets),
      ),
      ("user 1: the score of item row 2 is NaN", lambda: ranks.of_scores(nan, targets)),
      (
        "targets of user 1: item row 2 is not in 0 to 1",
        lambda: ranks.of_scores(scores[:, :2], targets),
      ),
      (
        "seen of user 0: item row -1",
        lambda: ranks.of_scores(scores, targets, ragged([[-1], []])),
      ),
      ("scores has the shape", lambda: ranks.of_scores(scores[0], targets)),
      (
        "user 0: only 3 of 4 items are neither seen nor targets, but n is",
        lambda: ranks.among_sampled(scores, targets),
      ),
      (
        "user_rows has the shape .3,.; expected one row for each of the 2",
        lambda: ranks.among_sampled(scores, targets, n=1, user_rows=np.arange(3)),
      ),
    ):
      with pytest.raises(ValueError, match=error):
        run()

  def test_vectors_must_be_of_one_width_and_finite(self):
    users, items, targets = np.ones((2, 3)), np.ones((4, 3)), ragged([[1], [2]])
    bad, large = users.copy(), items.copy()
    bad[1, 2], large[3] = np.nan, 1e30
    for error, arrays in (
      ("users of shape .2, 2. and items of shape .4, 3.", (users[:, 1:], items)),
      ("no items", (users, items[:0])),
      ("user row 1 has a vector of length nan", (bad, items)),
      ("item row 3 has a vector of length inf", (users, large)),
    ):
      with pytest.raises(ValueError, match=error):
        ranks.of_vectors(*arrays, targets)
    for name in BLOCKS:
      with pytest.raises(ValueError, match=f"{name} is 0"):
        ranks.of_vectors(users, items, targets, **BLOCKS | {name: 0})
